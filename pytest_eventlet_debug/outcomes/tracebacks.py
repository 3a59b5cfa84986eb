"""Tracebacks that a failing test printed: its own, or those of programs that it started.

Many tests run a program and fail with no more than "it did not print 'pass'". What went wrong
stands in what was captured, as the interpreter wrote it; see ``traceback.print_exception``.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from typing import NamedTuple

from pytest_eventlet_debug.outcomes.failure_text import one_line
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.system.code_places import shown_path

#: The longest cycle of frames that is looked for in a recursion.
_CYCLE = 8

_HEAD = lazily(r"^(.*?)Traceback \(most recent call last\):\s*$")
_FRAME = lazily(r'^  File "([^"\n]+)", line (\d+)(?:, in (.+?))?\s*$')
_REPEATED = lazily(r"^  \[Previous line repeated (\d+) more times?\]")
_EXCEPTION = lazily(r"^([A-Za-z_][\w.]*)(?:: (.*))?$")
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
#: What asyncio prints before it.
_UNHEARD = "Task exception was never retrieved"
_LIBRARIES = lazily(
    r"/(?:site|dist)-packages/|/lib(?:64)?/python3(?:\.\d+)?/|^<frozen |"
    # This plugin, where it is installed from a clone: what it wraps is in many a traceback.
    rf"/{__name__.partition('.')[0]}/"
)


class Frame(NamedTuple):
    """A line of a traceback."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{shown_path(self.file)}:{self.line} in {self.function}"


class Traceback(NamedTuple):
    """One exception as it was printed.

    :param error: its type and message, in one line; of a bare assert the assertion, if that was
        printed.
    :param frames: the outermost first; a cycle of a recursion once.
    :param cycle: the frames that a recursion repeats, or none.
    :param repeats: how often they are repeated.
    :param is_of_task: whether asyncio printed it, as a task was let go of which nobody had asked
        how it ended. By then a later test may run.
    """

    error: str
    frames: tuple[Frame, ...]
    cycle: tuple[Frame, ...] = ()
    repeats: int = 0
    is_of_task: bool = False

    @property
    def raised(self) -> Frame | None:
        """The innermost frame."""
        return self.frames[-1] if self.frames else None

    @property
    def users(self) -> Frame | None:
        """The innermost frame that is neither the standard library's nor an installed package's."""
        own = (frame for frame in reversed(self.frames) if not is_library(frame.file))
        return next(own, None)

    def describe(self) -> str:
        """Say it in one line: the error, where it arose, and what a recursion goes through."""
        place = self.users or self.raised
        where = f" ({place})" if place is not None else ""
        if self.cycle:
            steps = " -> ".join(
                f"{frame.function} ({shown_path(frame.file)}:{frame.line})" for frame in self.cycle
            )
            return f"{self.error}: {steps}, repeated {self.repeats} times"
        task = ", as asyncio tells of a task, perhaps an earlier test's" if self.is_of_task else ""
        return self.error + where + task


def is_library(file: str) -> bool:
    """Say whether a file is the standard library's or an installed package's."""
    return _LIBRARIES.search(file) is not None


def first_printed(texts: Iterable[str]) -> Traceback | None:
    """Return the first complete traceback in what a test printed; of a chain the last one.

    :param texts: what was captured, in the order in which to look.
    """
    of_task = None
    for text in texts:
        for chain in chains(text):
            if not chain[0].is_of_task:
                return chain[-1]
            of_task = of_task or chain[-1]._replace(is_of_task=True)
    return of_task


def chains(text: str) -> Iterator[list[Traceback]]:
    """Yield the tracebacks of a text, those that are chained together.

    One that breaks off before its exception's line is left out.
    """
    lines = text.splitlines()
    chain: list[Traceback] = []
    number = 0
    while number < len(lines):
        head = _HEAD.match(lines[number])
        if head is None:
            number += 1
            continue
        is_of_task = any(_UNHEARD in line for line in lines[max(number - 3, 0) : number])
        # A logger or a parent process may put the same words before each line.
        found, number = _read(lines, number + 1, _prefix(head[1], lines, number + 1))
        if found is None:
            continue
        chain.append(found._replace(is_of_task=is_of_task))
        if not _goes_on(lines, number):
            yield chain
            chain = []
    if chain:
        yield chain


def _prefix(before: str, lines: list[str], number: int) -> str:
    """Return what stands before each line: the same as before the head, or only an indentation."""
    following = lines[number] if number < len(lines) else ""
    if following.startswith(before):
        return before
    return before if not before.strip() else ""


def _goes_on(lines: list[str], number: int) -> bool:
    """Say whether the next words tell that another traceback belongs to this one."""
    words = (line for line in lines[number : number + 4] if line.strip())
    return next(words, "").strip().endswith(_CHAINED)


def _read(lines: list[str], number: int, prefix: str) -> tuple[Traceback | None, int]:
    """Read the frames and the exception that follow a head."""
    frames: list[Frame] = []
    source = ""
    folded = 0
    while number < len(lines):
        line = lines[number].removeprefix(prefix)
        number += 1
        frame = _FRAME.match(line)
        repeated = _REPEATED.match(line)
        if frame is not None:
            frames.append(Frame(frame[1], int(frame[2]), frame[3] or "<module>"))
            source = ""
        elif repeated is not None:
            folded += int(repeated[1])
        elif line.startswith("  ") or not line.strip():
            source = source or line.strip()  # below it are marks
        else:
            exception = _EXCEPTION.match(line)
            if exception is None:
                return None, number
            # What a bare assert was about says more than its type; a call that failed does not.
            is_said = exception[2] or not source.startswith("assert ")
            error = line.strip() if is_said else f"{exception[1]}: {source}"
            return _traceback(error, frames, folded), number
    return None, number


def _traceback(error: str, frames: list[Frame], folded: int) -> Traceback:
    error = one_line(error)
    kept, cycle, repeats = _folded(frames, folded)
    if not error.startswith("RecursionError"):
        return Traceback(error, tuple(kept))
    return Traceback(error, tuple(kept), tuple(cycle), repeats)


def _folded(frames: list[Frame], folded: int) -> tuple[list[Frame], list[Frame], int]:
    """Return the frames with a cycle once, the cycle, and how often it stands there.

    :param folded: repetitions that the interpreter itself has left out, of one frame.
    """
    for length in range(1, _CYCLE + 1):
        # A recursion ends at whichever frame met the limit, not at the end of a cycle.
        for skipped in range(length * 2):
            end = len(frames) - skipped
            repeats = _repeats(frames, end, length)
            if repeats >= 3 or (folded and length == 1 and repeats >= 2):
                start = end - repeats * length
                cycle = frames[start : start + length]
                kept = frames[: start + length] + frames[end:]
                return kept, cycle, repeats + folded
    return frames, [], 0


def _repeats(frames: list[Frame], end: int, length: int) -> int:
    """Count how often the frames before *end* repeat, looking backwards."""
    count = 1
    while (
        end - (count + 1) * length >= 0
        and frames[end - (count + 1) * length : end - count * length] == frames[end - length : end]
    ):
        count += 1
    return count if end >= length else 0
