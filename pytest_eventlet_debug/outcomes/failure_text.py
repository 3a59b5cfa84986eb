"""What the text of a failure tells: the error in one line, the files and modules involved.

The text is pytest's, in whichever ``--tb`` style, with the tracebacks that a test itself
printed or put into its message, such as those of a process it started.
"""

from __future__ import annotations

import re

from pytest_eventlet_debug.patterns import lazily

#: Characters of an error's line that are kept.
MESSAGE_LENGTH = 300

_PLAIN = r'File "([^"\n]+)", line \d+'
_PYTESTS = r"^(\S[^\n:]*\.py):\d+:"
_FRAME = lazily(f"{_PLAIN}|{_PYTESTS}", re.MULTILINE)
_ERROR_LINE = lazily(r"^E +(\S.*)$", re.MULTILINE)
_EXCEPTION = lazily(r"^[A-Za-z_][\w.]*(?:: .*)?$")
_MODULE = lazily(r"(?:module named|cannot import name .* from|module) ['\"]([\w.]+)['\"]")


def files(text: str) -> tuple[str, ...]:
    """Return the files of a failure's tracebacks, each once, the innermost frame first."""
    found = [plain or pytests for plain, pytests in _FRAME.findall(text)]
    return tuple(dict.fromkeys(reversed(found)))


def error_line(text: str) -> str:
    """Return the last error of a failure as pytest shows it, in one line."""
    blocks: list[list[str]] = []
    before = -2
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _ERROR_LINE.match(line)
        if match:
            if number != before + 1:
                blocks.append([])
            blocks[-1].append(match[1])
            before = number
    shown = blocks[-1] if blocks else [line for line in lines if line.strip()][-1:]
    errors = [line for line in shown if _EXCEPTION.match(line)]
    return one_line((errors or shown or [""])[0])


def one_line(text: str) -> str:
    """Return the first line of a text, cut to a length that a table bears.

    It is cut before its end, which often is the point: *got Future <...> attached to a different
    loop*.
    """
    line = text.strip().partition("\n")[0].strip()
    if len(line) <= MESSAGE_LENGTH:
        return line
    end = MESSAGE_LENGTH // 3
    return f"{line[: MESSAGE_LENGTH - 3 - end]}...{line[-end:]}"


def modules(message: str) -> tuple[str, ...]:
    """Return the modules that an error names, such as the one that lacks an attribute."""
    return tuple(dict.fromkeys(_MODULE.findall(message)))
