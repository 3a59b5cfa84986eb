"""Why a test failed, as far as its report says: its own error, and what it printed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from pytest_eventlet_debug.dump_limits import NEVER
from pytest_eventlet_debug.dump_limits import SECTION
from pytest_eventlet_debug.dump_limits import WAITS
from pytest_eventlet_debug.outcomes import failure_text
from pytest_eventlet_debug.outcomes import tracebacks
from pytest_eventlet_debug.outcomes.tracebacks import Traceback
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.report_properties import REASON_PROPERTY

# Errors that say that something else went wrong: in a program, or in another greenthread.
_VAGUE = frozenset(
    (
        *("AssertionError", "CalledProcessError", "Exception", "Failed", "RuntimeError"),
        *("SystemExit", "Timeout", "TimeoutError", "TimeoutExpired"),
    )
)
#: Begins what ``TestCaseFunction._addexcinfo()`` of pytest fails with.
_WRAPPED = "Failed: NOTE: Incompatible Exception Representation"
_EVENTLET = lazily(r"/eventlet/(?!tests/|examples/)")
#: What wakes the greenthreads that wait for it, each in its own thread alone.
_WAKES = ("/eventlet/semaphore.py", "/eventlet/event.py", "/eventlet/queue.py")
#: Begin the lines of a dump that say why a test hangs.
_WHY = (WAITS, NEVER)
_TYPE = lazily(r"^(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*)(?::|$)")


class Cause(NamedTuple):
    """What the report on a test that did not pass says of the reason.

    :param error: the error in one line as pytest shows it, or why the test was skipped or is
        expected to fail.
    :param printed: the first traceback in what the test printed, if any.
    :param files: the files of all of its tracebacks, the innermost frame first.
    :param seen: what its hub or one of its tasks has to do with it, in one line each.
    """

    error: str
    printed: Traceback | None = None
    files: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """The error that says most, in one line."""
        if self.printed is not None and not self._is_of_task and _is_vague(self.error):
            return self.printed.error
        return self.error

    @property
    def kind(self) -> str:
        """The type of that error, such as ``KeyError``; ``AssertionError`` for a bare assert."""
        match = _TYPE.match(self.message)
        return match[1] if match is not None else "AssertionError"

    def lines(self) -> Iterator[str]:
        """Say it in one line to three, the error or what was printed first."""
        besides = self.besides
        if besides and _is_vague(self.error) and not self._is_of_task:
            yield from (besides, self.error, *self.seen)
        else:
            yield from (self.error, *self.more)

    @property
    def more(self) -> tuple[str, ...]:
        """What says more than the error: what was printed, and what was seen, a line each."""
        besides = filter(None, [self.besides])
        return (*self.seen, *besides) if self._is_of_task else (*besides, *self.seen)

    @property
    def _is_of_task(self) -> bool:
        return self.printed is not None and self.printed.is_of_task

    def with_ignored(self, text: str) -> Cause:
        """Return it with an exception that Python ignored, if eventlet has raised that.

        :param text: pytest's warning of it. Of other libraries' objects, which may be an earlier
            test's, nothing is told.
        """
        ignored = tracebacks.first_printed([text])
        if ignored is None or ignored.raised is None or not _EVENTLET.search(ignored.raised.file):
            return self
        line = f"ignored by Python: {ignored.describe()}"
        if "mainloop" in ignored.error.lower():
            line += ", called in the hub itself, where nothing can wait"
        return self if line in self.seen else self._replace(seen=(*self.seen, line))

    @property
    def besides(self) -> str:
        """What the test printed that says more than its own error, in one line, or ``""``."""
        if self.printed is None or self.printed.error == self.error:
            return ""
        return f"printed: {self.printed.describe()}"


def _is_vague(error: str) -> bool:
    match = _TYPE.match(error)
    return match is None or match[1] in _VAGUE


def cause_of(report: pytest.TestReport | pytest.CollectReport) -> Cause:
    """Return what a report says of the reason; its test did not pass."""
    if isinstance(report.longrepr, tuple):  # a skip: path, line, reason
        return Cause(failure_text.one_line(report.longrepr[2]))
    expected = getattr(report, "wasxfail", "")
    if expected:
        return Cause(failure_text.one_line(expected))
    text = report.longreprtext
    captured = [content for _, content in report.sections]
    files = failure_text.files("\n".join([*captured, text]))
    crash = getattr(report.longrepr, "reprcrash", None)
    error = failure_text.error_line(text)
    if crash is not None:  # there with --tb=no too
        error, files = _unwrapped(str(crash.message)), (crash.path, *files)
    # What a test puts into its message is often a program's output, too.
    printed = tracebacks.first_printed([*captured, _without_marks(text), *_of_ended(report)])
    seen = (*_explained(printed), *_seen(report), *_waited(report))
    return Cause(failure_text.one_line(error), printed, files, seen)


def _of_ended(report: pytest.TestReport | pytest.CollectReport) -> Iterator[str]:
    """Yield what a test had printed that hung or killed its process: it is in the evidence."""
    if getattr(report, "eventlet_end", None) is not None:
        for title, text in getattr(report.longrepr, "sections", ()):
            if title.startswith("Captured std"):
                yield text


def _waited(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, ...]:
    """Return what a test that hung was waiting for, by its own words."""
    sections = getattr(report.longrepr, "sections", ())
    texts = [text for title, text in sections if title == SECTION]
    lines = [each for text in texts for each in text.splitlines() if each.startswith(_WHY)]
    waits = [each for each in lines if each.startswith(WAITS)]
    return tuple(lines) if len(waits) == 1 else ()  # of several workers each has its own


def _explained(printed: Traceback | None) -> Iterator[str]:
    """Yield what an error of eventlet's means that does not say so."""
    if printed is None or printed.raised is None:
        return
    is_switch = printed.error.startswith("greenlet.error: ") and "thread" in printed.error
    if is_switch and printed.raised.file.endswith(_WAKES):
        yield (
            "two threads use one lock, event or queue of eventlet's, which cannot wake a "
            "greenthread that waits for it in another thread"
        )


def _seen(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, ...]:
    properties = getattr(report, "user_properties", ())
    return tuple(str(value) for name, value in properties if name == REASON_PROPERTY)


def _unwrapped(message: str) -> str:
    """Return a failure's message; of one that pytest wraps the traceback of, the error in that.

    pytest does so with exceptions that it cannot represent, as those of testtools' tests are.
    """
    if not message.startswith(_WRAPPED):
        return message
    wrapped = tracebacks.first_printed([message])
    return wrapped.error if wrapped is not None else message


def _without_marks(text: str) -> str:
    """Return a failure's text without the ``E`` that pytest puts before lines of the error."""
    lines = (line[1:].removeprefix("   ") for line in text.splitlines() if line[:1] == "E")
    return "\n".join(lines)
