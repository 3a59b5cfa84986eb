"""What faulthandler writes as Python crashes, with the innermost calls first."""

from __future__ import annotations

_MARK = "Fatal Python error: "
_CURRENT = "Current thread"

#: Lines of each stack that are shown.
_MOST_LINES = 30
#: The C stack, which Python has from 3.14 on, is mostly addresses within the interpreter.
_MOST_LINES_OF_C = 10
#: Characters of what stands before it, such as glibc's reason to abort.
_BEFORE = 500
#: Characters in all.
_LENGTH = 8000


def shortened(text: str) -> str:
    """Return the part of an output that tells most of a crash.

    :param text: what the process wrote to stderr.
    :return: nothing where faulthandler has not written there.
    """
    before, mark, told = text.rpartition(_MARK)
    if not mark:
        return ""
    title, *stacks = told.split("\n\n")
    stacks.sort(key=lambda stack: not stack.startswith(_CURRENT))
    parts = [before[-_BEFORE:] + mark + title, *map(_beginning, stacks)]
    return "\n\n".join(parts)[:_LENGTH]


def _beginning(stack: str) -> str:
    title, *calls = stack.split("\n")
    most = _MOST_LINES_OF_C if "C stack trace" in title else _MOST_LINES
    if len(calls) > most:
        calls[most:] = [f"  ... and {len(calls) - most} more"]
    return "\n".join([title, *calls])
