"""Record the system calls of a test with strace."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import sys
from typing import TYPE_CHECKING
from typing import Any

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings import cuts
from pytest_eventlet_debug.recordings import marks
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.tracer_registry import CPROFILE_ENGINE
from pytest_eventlet_debug.tracer_registry import STRACE_ARGS
from pytest_eventlet_debug.tracer_registry import STRACE_LIMIT
from pytest_eventlet_debug.tracer_registry import STRACE_LINES
from pytest_eventlet_debug.tracers import lines
from pytest_eventlet_debug.tracers import yama
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.lines import LineMarks
from pytest_eventlet_debug.tracers.marking import Marking
from pytest_eventlet_debug.tracers.marking import shared_with
from pytest_eventlet_debug.tracers.protocol import PHASES
from pytest_eventlet_debug.tracers.protocol import Phase
from pytest_eventlet_debug.tracers.protocol import Recording
from pytest_eventlet_debug.tracers.protocol import RecordingCut
from pytest_eventlet_debug.tracers.protocol import Tracer
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.tracers.strace_program import OPTIONS
from pytest_eventlet_debug.tracers.strace_program import find
from pytest_eventlet_debug.tracers.strace_program import keep_marks

if TYPE_CHECKING:
    from pytest_eventlet_debug.tracers.strace_trial import Trial


#: Seconds by which a greenthread is late if another one has held the hub.
_LATE_SECONDS = 0.1
#: Switches that are looked at once nothing has switched for a while. To look takes some 2 us.
_LOOKS = 32


class Strace(Tracer):
    """``strace -f -ttt -T -yy -s 256``, attached by the helper when a test begins.

    The trace has :mod:`~pytest_eventlet_debug.recordings.marks` in it where a phase begins,
    and wherever greenlet *n* of the test begins to run in the thread that started the
    recording; see :class:`pytest_eventlet_debug.system.switches.Labels`. Others say which line of
    Python makes the next calls, see :mod:`~pytest_eventlet_debug.tracers.lines`. How they get there
    is the business of :mod:`~pytest_eventlet_debug.tracers.marking`.
    """

    name = "strace"
    default_phases: frozenset[Phase] = frozenset(PHASES)

    def __init__(
        self,
        helper: Helper,
        extra_args: tuple[str, ...] = (),
        *,
        limit: int | None = None,
        lines: LineMarks | None = None,
        stay: bool = False,
    ) -> None:
        """Record through *helper*; nothing is started yet.

        :param extra_args: options for strace, after ours and before ``-o``.
        :param limit: bytes of the longest trace that is kept whole; ``None`` for any. Between
            two pauses, that is: each part has its limit.
        :param lines: marks lines of Python; ``None`` for no such marks.
        :param stay: whether strace stays attached from test to test.
        """
        self._stay = stay
        self._attached = False
        self._helper = helper
        self._extra_args = extra_args
        self._limit = limit
        self._lines = lines
        self._version = ""
        self._trial: Trial | None = None
        self._program = ""
        self._recording: Recording | None = None
        self._started_ns = 0
        self._tracing = False
        self._stopping: int | None = None
        self._allowed = False
        self._labels: switches.Labels | None = None
        self._paths: dict[tuple[int, str], bytes] = {}
        self._marked = b""
        self._looks = 0
        self._marking = Marking()
        self._make_mark = self._marking.make

    @property
    def version(self) -> str:
        """What ``strace -V`` says, such as ``6.1``.

        :raises TracerUnavailable: strace cannot trace this process, see :meth:`check`.
        """
        if not self._version:
            self.check()
        return self._version

    def warm_up(self, *, trial: bool) -> None:
        """Begin to find out whether strace can trace this process."""
        if trial:
            from pytest_eventlet_debug.tracers.strace_trial import Trial  # not in each child

            self._trial = Trial(self._helper, self._extra_args)

    def check(self) -> None:
        """Find out which strace this is; :meth:`confirm` hears whether it can trace this process.

        Where there are options of the user's, which may be wrong, that is found out here.

        :raises TracerUnavailable: it cannot; the message says why and what to do.
        """
        if self._trial is None:
            self.warm_up(trial=True)
        assert self._trial is not None
        self._version = self._trial.version()
        if self._extra_args:
            self.confirm()

    def confirm(self) -> None:
        """Wait for the end of the trial.

        :raises TracerUnavailable: strace cannot trace this process.
        """
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.end()

    def start(self, recording: Recording) -> None:
        """Attach; every system call that follows is recorded."""
        if self._recording is not None:
            raise TracerError(f"strace records {self._recording.nodeid} already")
        if not self._allowed:
            yama.allow(self._helper)
            self._allowed = True
            if not self._extra_args:  # they may ask for times in another form, or none
                self._marking = shared_with(self._helper)
                self._make_mark = self._marking.make
        self._marking.begin()
        self._attach(recording, append=False)
        self._recording = recording
        self._started_ns = unpatched.time_ns()
        self._labels = None
        self._paths = {}
        self._marked = b""
        self._label()
        if self._lines is not None and self._lines.waits:
            self._make_mark(marks.RUNNER_RUNS)

    def mark(self, phase: str) -> None:
        """Put the beginning of *phase* into the trace."""
        if self._recording is None or not self._tracing:
            return
        self._make_mark(marks.phase(unpatched.time_ns(), phase, self._recording.nodeid))
        self._label()

    def enter(self) -> None:
        """Mark the lines of the code that begins now."""
        if self._tracing and self._lines is not None:
            self._make_mark(marks.NO_LINE)
            self._lines.enter()

    def leave(self) -> None:
        """Mark no lines, as what comes now is pytest's."""
        if self._tracing and self._lines is not None and self._lines.waits:
            self._lines.leave()
            self._make_mark(marks.RUNNER_RUNS)

    def pause(self) -> None:
        """Detach."""
        if self._tracing:
            self._detach()

    def let_go(self) -> bool:
        """Detach, unless other processes are traced: they could not be attached to again."""
        if not self._tracing or self._helper.request("strace-follows")["others"]:
            return False
        self._detach()
        return True

    def resume(self) -> None:
        """Attach again; the same file goes on."""
        if self._recording is not None and not self._tracing:
            self._attach(self._recording, append=True)
            self._label()

    def begin_stop(self) -> None:
        """Begin to detach."""
        if self._recording is not None and self._tracing:
            self._begin_detach(stay=self._stay and not self._recording.is_block)

    def stop(self) -> None:
        """Detach; the file is complete then.

        :raises TracerError: strace had ended before, or had to be killed. What it wrote
            until then is in the file.
        """
        try:
            self.begin_stop()
        finally:
            recording, self._recording = self._recording, None
        if recording is None:
            return
        rests = self._stopping is not None and self._end_detach()
        if not rests and cuts.is_cut(recording.directory):
            # strace itself does not say that it cannot write.
            since = cuts.last_ns(recording.directory) or self._started_ns
            raise RecordingCut(f"{STRACE_FILE} is cut: there was no room for all of it", since)

    def close(self) -> None:
        """Detach, if strace is still attached, and make no more marks."""
        self._stop_marking()
        if self._lines is not None:
            self._lines.end()
        if self._attached:
            with contextlib.suppress(TracerError):
                self._detach()

    def _attach(self, recording: Recording, *, append: bool) -> None:
        path = str(recording.directory / STRACE_FILE)
        if self._helper.strace_rests and not append:
            # There is nothing to wait for: the recording begins behind this request.
            self._helper.strace_rests = False
            self._helper.post("strace-next", path=path, limit=self._limit)
            self._helper.flush()
        else:
            self._helper.strace_rests = False
            self._helper.request(
                "strace-start",
                program=self._executable(),
                options=[*OPTIONS, *keep_marks(self._extra_args)],
                path=path,
                append=append,
                limit=self._limit,
            )
        self._tracing = self._attached = True
        if self._lines is not None:
            self._lines.begin(self._marking.memory)

    def _stop_marking(self) -> None:
        switches.unsubscribe(self._switched)
        if self._lines is not None:
            self._lines.rest()

    def _detach(self) -> None:
        self._begin_detach()
        self._end_detach()

    def _begin_detach(self, *, stay: bool = False) -> None:
        """Begin to trace no more.

        :param stay: whether strace may stay attached.
        """
        self._stop_marking()
        self._tracing = self._attached = self._helper.strace_rests = False
        self._stopping = self._helper.begin("strace-stop", stay=stay)

    def _end_detach(self) -> bool:
        """Trace no more; say whether strace stays attached."""
        assert self._stopping is not None
        stopping, self._stopping = self._stopping, None
        self._attached = "rests" in self._helper.end(stopping)
        self._helper.strace_rests = self._attached
        if self._lines is not None and not self._attached:
            self._lines.end()
        return self._attached

    def _executable(self) -> str:
        if not self._program:
            self._program = find()
        return self._program

    def _label(self) -> None:
        """Say who runs, and from now on whenever that changes."""
        if not switches.subscribe(self._switched):
            return
        current = switches.current()
        if self._labels is None:
            self._labels = switches.Labels(current)
        known = self._labels.of(current, None)
        if self._path(known) != self._marked:  # the reader knows who ran last
            self._mark(self._path(known))
        if self._lines is not None:
            self._lines.runs(known[0])

    def _switched(self, event: str, arguments: tuple[Any, Any]) -> None:
        assert self._labels is not None
        origin, target = arguments
        late_ns = self._late_ns(origin) if self._looks else 0
        known = self._labels.of(target, origin)
        self._mark(self._path(known), marks.greenlet(*known, late_ns) if late_ns else None)
        if self._lines is not None:
            self._lines.runs(known[0])

    def _path(self, known: tuple[int, str]) -> bytes:
        path = self._paths.get(known)
        if path is None:
            path = self._paths[known] = marks.greenlet(*known)
        return path

    def _late_ns(self, origin: Any) -> int:
        """Return by how much a switch comes too late, in nanoseconds, if that is of account.

        :param origin: what has just switched.
        """
        self._looks -= 1
        late = switches.overdue(origin)
        return int(late * 1e9) if late >= _LATE_SECONDS else 0

    def _mark(self, path: bytes, late: bytes | None = None) -> None:
        self._marked = path
        if self._make_mark(late or path):
            self._looks = _LOOKS


def prepare(settings: Settings) -> None:
    """Know the functions that lines are marked for, before a test can patch them."""
    if yama.ptrace_scope():
        with contextlib.suppress(ImportError):
            import ctypes  # noqa: F401 - the first test needs it, and here nobody waits yet
    if settings.value(STRACE_LINES) == "on":
        lines.prepare()


def make(settings: Settings, start_helper: Callable[[], Helper]) -> Strace:
    """Return a tracer with the arguments that the options name."""
    return Strace(
        start_helper(),
        settings.value(STRACE_ARGS),
        limit=settings.value(STRACE_LIMIT),
        lines=LineMarks(settings.root) if _marks_lines(settings) else None,
        # A fault that is injected into the third call is meant for that of each test.
        stay=not settings.value(STRACE_ARGS),
    )


def _marks_lines(settings: Settings) -> bool:
    # cProfile has a thread's only place for a profiler to itself up to Python 3.11.
    alone = sys.version_info < (3, 12) and settings.value(CPROFILE_ENGINE) == "plain"
    return settings.value(STRACE_LINES) == "on" and not alone
