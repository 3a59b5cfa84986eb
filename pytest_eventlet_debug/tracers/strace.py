"""Record the system calls of a test with strace."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import errno
import os
from pathlib import Path
import shutil
import sys
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
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.lines import LineMarks
from pytest_eventlet_debug.tracers.marking import Marking
from pytest_eventlet_debug.tracers.marking import shared_with
from pytest_eventlet_debug.tracers.protocol import PHASES
from pytest_eventlet_debug.tracers.protocol import Phase
from pytest_eventlet_debug.tracers.protocol import Recording
from pytest_eventlet_debug.tracers.protocol import RecordingCut
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.tracers.protocol import TracerUnavailable

#: -f threads and children, -ttt unix time, -T time spent, -yy what a descriptor is.
OPTIONS = ("-f", "-ttt", "-T", "-yy", "-s", "256")

_PR_GET_DUMPABLE = 3
_PR_SET_PTRACER = 0x59616D61
_CAP_SYS_PTRACE = 19

#: What ``-e`` takes besides the set of system calls to trace.
_OTHER_QUALIFIERS = frozenset(
    (
        *("abbrev", "a", "verbose", "v", "raw", "x", "signal", "signals", "s"),
        *("read", "reads", "r", "write", "writes", "w", "fault", "inject", "status"),
        *("quiet", "silent", "silence", "q", "kvm", "decode-fds", "decode-pids"),
    )
)


class Strace:
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
        pin: bool = True,
        limit: int | None = None,
        lines: LineMarks | None = None,
        stay: bool = False,
    ) -> None:
        """Record through *helper*; nothing is started yet.

        :param extra_args: options for strace, after ours and before ``-o``.
        :param pin: keep strace and the test's main thread on one CPU while recording,
            which makes a traced call three to five times cheaper. Tests can see it in
            their ``os.sched_getaffinity(0)``.
        :param limit: bytes of the longest trace that is kept whole; ``None`` for any. Between
            two pauses, that is: each part has its limit.
        :param lines: marks lines of Python; ``None`` for no such marks.
        :param stay: whether strace stays attached from test to test.
        """
        self._stay = stay
        self._attached = False
        self._helper = helper
        self._extra_args = extra_args
        self._pin = pin
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
            self._trial = Trial(self._helper, self._extra_args)

    def check(self) -> None:
        """Find out which strace this is; :meth:`confirm` hears whether it can trace this process.

        Where there are options of the user's, which may be wrong, that is found out here.

        :raises TracerUnavailable: it cannot; the message says why and what to do.
        """
        self._trial = self._trial or Trial(self._helper, self._extra_args)
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
            _allow(self._helper)
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

    def mark(self, phase: str) -> None:
        """Put the beginning of *phase* into the trace."""
        if self._recording is None or not self._tracing:
            return
        self._make_mark(marks.phase(unpatched.time_ns(), phase, self._recording.nodeid))
        self._label()

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
        path = str(_artifact(recording))
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
                pin=self._pin,
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
            self._program = _find()
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
        known = self._labels.of(target, origin)
        self._mark(self._path(known))
        if self._lines is not None:
            self._lines.runs(known[0])

    def _path(self, known: tuple[int, str]) -> bytes:
        path = self._paths.get(known)
        if path is None:
            path = self._paths[known] = marks.greenlet(*known)
        return path

    def _mark(self, path: bytes) -> None:
        self._marked = path
        self._make_mark(path)


def prepare(settings: Settings) -> None:
    """Know the functions that lines are marked for, before a test can patch them."""
    if _ptrace_scope():
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


class Trial:
    """Finds out before the first test whether strace can trace this process.

    The helper attaches strace to it and detaches it, while this process goes on if it may.
    """

    def __init__(self, helper: Helper, extra_args: Sequence[str] = ()) -> None:
        """Begin.

        :param extra_args: options for strace, after ours.
        :raises TracerUnavailable: it cannot; the message names the cause and the remedy.
        """
        self._helper = helper
        self._extra_args = extra_args
        self._program = _find()
        self._status = _status()
        tracer = int(self._status.get("TracerPid", "0"))
        if tracer:
            raise TracerUnavailable(
                f"strace cannot trace this process: {_command(tracer)} (process {tracer}) "
                "traces it already, and a process can have only one tracer; run without it"
            )
        self._privileged = bool(int(self._status.get("CapEff", "0"), 16) >> _CAP_SYS_PTRACE & 1)
        self._scope = _ptrace_scope()
        if self._scope == 3:
            raise TracerUnavailable(
                "strace cannot trace any process: kernel.yama.ptrace_scope is 3, which stays "
                "until the next boot; set it to 1 in /etc/sysctl.d and reboot"
            )
        if self._scope == 2 and not self._privileged:
            raise TracerUnavailable(
                "strace may only be used by root here: kernel.yama.ptrace_scope is 2; "
                "run as root, or `sysctl kernel.yama.ptrace_scope=1`"
            )
        self._asked = helper.begin("strace-version", program=self._program)
        self._attempt: int | None = None
        # Elsewhere the helper must be allowed to first, and has yet to say which process it is.
        if self._privileged or not self._scope:
            self._attempt = self._begin()

    def _begin(self) -> int:
        # The user's code may run meanwhile. Its children stay untraced, for what is traced
        # gets no privileges from the file that it executes.
        options = [option for option in OPTIONS if option != "-f"]
        return self._helper.begin(
            "strace-try",
            program=self._program,
            options=[*options, *keep_marks(self._extra_args)],
        )

    def version(self) -> str:
        """Return strace's version, such as ``6.1``, while it is still being tried.

        :raises TracerUnavailable: it is none; the message names the remedy.
        """
        with self._explaining():
            version = _version(str(self._helper.end(self._asked)["words"]))
            if self._attempt is None:
                _allow(self._helper)
                self._attempt = self._begin()
            return version

    def end(self) -> None:
        """Wait until strace has attached and detached; do nothing where it never began.

        :raises TracerUnavailable: it cannot trace; the message names the cause and the remedy.
        """
        with self._explaining():
            if self._attempt is not None:
                self._helper.end(self._attempt)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except TracerUnavailable:
            raise
        except TracerError as error:
            cause = _cause(str(error), self._status, self._scope, self._privileged)
            if not cause and self._extra_args:
                cause = f"the options given for it are {' '.join(self._extra_args)}"
            raise TracerUnavailable(f"{error}; {cause}" if cause else str(error)) from error


def keep_marks(arguments: Sequence[str]) -> tuple[str, ...]:
    """Let the system call that makes our marks pass a filter among strace's options.

    :param arguments: options for strace, such as ``-e trace=network``.
    :return: the same, with ``access`` added where a set of system calls is named; a set
        that is negated (``!read``) is left as it is.
    """
    kept: list[str] = []
    follows_e = False
    for argument in arguments:
        if follows_e:
            kept.append(_with_access(argument))
        elif argument.startswith("--trace="):
            kept.append("--trace=" + _with_access(argument.removeprefix("--trace=")))
        elif argument.startswith("-e") and argument != "-e":
            kept.append("-e" + _with_access(argument.removeprefix("-e")))
        else:
            kept.append(argument)
        follows_e = not follows_e and argument in ("-e", "--trace")
    return tuple(kept)


def _with_access(expression: str) -> str:
    qualifier, equals, calls = expression.partition("=")
    if equals and qualifier in _OTHER_QUALIFIERS:
        return expression
    if not equals:
        qualifier, calls = "", expression
    if calls.startswith("!") or calls == "all":
        return expression
    kept = ",".join(f"?{call}" for call in marks.CALLS)
    return f"{qualifier}{equals}" + (kept if calls == "none" else f"{calls},{kept}")


def _artifact(recording: Recording) -> Path:
    return Path(os.path.abspath(recording.directory)) / STRACE_FILE


def _find() -> str:
    if not unpatched.on_linux():
        raise TracerUnavailable(f"strace needs Linux; this is {sys.platform}")
    program = shutil.which("strace")
    if program is None:
        raise TracerUnavailable(
            "there is no strace on PATH: install it (`apt install strace`, "
            "`dnf install strace`, `apk add strace`)"
        )
    return os.path.abspath(program)


def _version(words: str) -> str:
    """Take the version from ``strace -- version 6.1``.

    :raises TracerUnavailable: these are not strace's words.
    """
    _, found, version = words.rpartition("version ")
    if not found or not version.strip():
        said = repr(words[:40]) if words.strip() else "nothing"
        raise TracerUnavailable(
            f"`{shutil.which('strace')} -V` says {said} and no version: it is broken or another "
            "program; install strace again, or put it first on PATH"
        )
    return version.strip()


def _status() -> dict[str, str]:
    lines = unpatched.read_file("/proc/self/status").decode("utf-8", "replace").splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key: value.strip() for key, _, value in pairs}


def _command(pid: int) -> str:
    try:
        return unpatched.read_file(f"/proc/{pid}/comm").decode("utf-8", "replace").strip()
    except OSError:
        return "a program that cannot be seen"


def _ptrace_scope() -> int:
    """Return Yama's setting; 0 without Yama. See ptrace(2)."""
    try:
        return int(unpatched.read_file("/proc/sys/kernel/yama/ptrace_scope"))
    except (OSError, ValueError):
        return 0


def _prctl(option: int, argument: int) -> tuple[int, int]:
    """Call prctl(2); return its result and errno."""
    try:
        import ctypes  # slow to import, and only those who use strace need it
    except ImportError:
        return -1, errno.EINVAL  # a Python without it: go on as without Yama
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0)
    return int(result), ctypes.get_errno()


def _allow(helper: Helper) -> None:
    """Let the helper and its children trace this process, as Yama's scope 1 demands."""
    if not _ptrace_scope():
        return
    result, reason = _prctl(_PR_SET_PTRACER, helper.pid)
    if result and reason != errno.EINVAL:  # EINVAL: no Yama, no restriction
        raise TracerError(f"prctl(PR_SET_PTRACER, {helper.pid}): {os.strerror(reason)}")


def _cause(words: str, status: dict[str, str], scope: int, privileged: bool) -> str:
    """Say why ptrace was refused, which strace's own words do not tell."""
    if "ptrace" not in words.lower():
        return ""
    if status.get("Seccomp", "0") != "0":
        return (
            "a seccomp filter is in force (a container?) and seems to forbid ptrace: "
            "`docker run --cap-add=SYS_PTRACE --security-opt seccomp=unconfined`"
        )
    if not privileged and _prctl(_PR_GET_DUMPABLE, 0)[0] != 1:
        return (
            "this process is not dumpable (PR_SET_DUMPABLE, or its interpreter has file "
            "capabilities): use an interpreter without capabilities, or run as root"
        )
    if scope and not privileged:
        return f"kernel.yama.ptrace_scope is {scope}: `sysctl kernel.yama.ptrace_scope=0`"
    if not privileged:
        return "CAP_SYS_PTRACE is missing: run as root or as the owner of the process"
    return "a security module (SELinux, AppArmor) may forbid ptrace; see `dmesg`"
