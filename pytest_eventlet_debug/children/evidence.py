"""What a silent or dead child was doing, as the user will read it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import os
from pathlib import Path
import posix
import re
import shutil
import signal
import sys

from pytest_eventlet_debug.artifact_names import HANG_FILE
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.artifact_names import TEST_FILE
from pytest_eventlet_debug.artifacts import newest_attempt
from pytest_eventlet_debug.children import proc
from pytest_eventlet_debug.children.answering import ALIVE_SIGNAL
from pytest_eventlet_debug.children.process import ChildProcess
from pytest_eventlet_debug.dump_limits import SECTION
from pytest_eventlet_debug.redaction import Redaction
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system import unpatched

#: Of a trace that is read while its test is looked at, half from its end; that takes a second.
_TRACE_BYTES = 20_000_000

#: Of a longer one only the end is read for the last calls.
_LAST_BYTES = 4_000_000

#: Seconds of strace where a test is not traced already.
_STRACE_SECONDS = 1.0

#: Seconds that Python has to begin its answer, and faulthandler to write all stacks.
_ANSWER_SECONDS = 1.0

#: Seconds that py-spy has.
_PY_SPY_SECONDS = 5.0

#: How often it is looked at whether a child burns CPU, and the seconds between.
_SAMPLES = 10
_BETWEEN_SAMPLES_SECONDS = 0.05

_RUNNER_IN_PY_SPY = re.compile(r"\((_pytest|pluggy|pytest_eventlet_debug)/|^(Process|Python) ")

#: What the thread is called that watches for stalls: see ``stalls/_watcher.c``.
_OWN_THREAD = "eventlet-debug"


def gather(
    process: ChildProcess,
    scratch: Path,
    artifacts: Path | None,
    nodeids: Iterable[str],
    redact: Redaction,
    *,
    has_workers: bool = False,
) -> list[tuple[str, str]] | None:
    """Look at a silent child from outside, before it is killed.

    :param scratch: where a second of strace may go.
    :param artifacts: where its tests may be recorded already, if this run records; two straces
        cannot attach.
    :param nodeids: the tests it is in.
    :param redact: takes out of a text what is not to be in it.
    :param has_workers: whether pytest-xdist runs its tests.
    :return: titles and texts, or ``None`` as soon as the child says something after all.
    """
    running = (process.workers() if has_workers else []) or [process.runner]
    recorded = {}
    if artifacts is not None:
        recorded = {nodeid: newest_attempt(artifacts, nodeid) for nodeid in nodeids}
    traces = _traces(recorded) if any(map(proc.tracer, running)) else {}
    threads = [thread for pid in running for thread in proc.threads(pid, _OWN_THREAD)]
    own = [number for thread in threads for number in proc.ids(thread)]
    doing = activity(process, traces.values(), own)
    # Before the stacks, for writing them out is system calls too.
    if traces:
        # As long as a sample takes: a test that goes on late is not killed sooner for a recording.
        process.wait_until_heard(_STRACE_SECONDS)
        calls = _of_each(traces, lambda trace: _last_calls(trace, own=own))
    else:
        calls = _strace_sample(process, own, scratch)
    if doing is None or process.wait_until_heard(0):
        return None
    # What it says from here on does not count: these signals end calls that block in C.
    seen = [_inside(process, pid, scratch.with_name("py-spy.txt")) for pid in running]
    inside = [(title, redact(text)) for sections in seen for title, text in sections]
    _keep(recorded.values(), inside)
    shows = redact(_of_each(traces, _findings))
    return [
        ("What it was doing", doing),
        ("What its trace shows", shows),
        *inside,
        ("Its last system calls", redact(calls)),
    ]


def _of_each(traces: Mapping[str, Path], tell: Callable[[Path], str]) -> str:
    """Return what is told of each trace, below its test's name if there are several."""
    if len(traces) == 1:
        return tell(*traces.values())
    return "\n".join(
        f"{nodeid}:\n{text}" for nodeid, trace in traces.items() if (text := tell(trace))
    )


def _findings(trace: Path) -> str:
    """Return what is found in a trace as far as it goes, a line each."""
    from pytest_eventlet_debug.recordings import recorded
    from pytest_eventlet_debug.recordings.findings import text

    found = recorded.find(trace.parent, _TRACE_BYTES).findings
    return "\n".join(text.line(finding) for finding in found)


def _inside(process: ChildProcess, pid: int, scratch: Path) -> list[tuple[str, str]]:
    """Ask Python what it does; where it does not answer, read that from outside.

    :param pid: who runs the tests: the child itself, or a worker of its.
    """
    alive = process.dump_alive(pid, _ANSWER_SECONDS)
    if alive:
        return [(SECTION, alive)]
    if proc.blocks(pid, ALIVE_SIGNAL):
        why = "its main thread blocks signals"
    else:
        why = "its main thread is in C code, or in a signal handler, and does not return to Python"
    return [
        ("Python did not answer", why),
        ("Its stacks", process.dump_stacks(pid, _ANSWER_SECONDS)),
        ("Its running stacks, by py-spy", _py_spy(pid, scratch)),
    ]


def _keep(directories: Iterable[Path], sections: Iterable[tuple[str, str]]) -> None:
    """Put what was seen beside what was recorded of the tests."""
    text = "".join(f"{title}:\n{text.rstrip()}\n\n" for title, text in sections if text.strip())
    for directory in directories:
        if (directory / TEST_FILE).exists():
            with contextlib.suppress(OSError):
                files.replace(directory / HANG_FILE, text.encode("utf-8", "backslashreplace"))


def _py_spy(pid: int, path: Path) -> str:
    """Return what py-spy reads of a process's memory, where it is installed and may."""
    beside = os.path.dirname(sys.executable)
    program = shutil.which("py-spy", path=beside) or shutil.which("py-spy")
    if program is None:
        return ""
    reader = _start([program, "dump", "--nonblocking", "--pid", str(pid)], path)
    if reader is None:
        return ""
    deadline = unpatched.monotonic() + _PY_SPY_SECONDS
    with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored, and it has ended
        while not posix.waitpid(reader, posix.WNOHANG)[0]:
            if unpatched.monotonic() > deadline:
                _end(reader)
                break
            unpatched.wait_readable([], 0.02)
    return _without_runner(proc.tail(path))


def _start(command: list[str], output: Path | None = None) -> int | None:
    """Start a program that looks at a child; return its id.

    :param output: where its output goes.
    :return: ``None`` where it does not run, as one that was built for another machine.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output or os.devnull), flags, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    try:
        return posix.posix_spawn(command[0], command, unpatched.environment(), file_actions=streams)
    except OSError:
        return None


def _without_runner(text: str) -> str:
    lines = (line for line in text.splitlines() if not _RUNNER_IN_PY_SPY.search(line))
    return "\n".join(lines)


def _traces(recorded: Mapping[str, Path]) -> dict[str, Path]:
    """Return the traces that are being written of tests, where there are any.

    :param recorded: the tests' directories.
    """
    paths = {nodeid: directory / STRACE_FILE for nodeid, directory in recorded.items()}
    return {nodeid: path for nodeid, path in paths.items() if path.exists()}


def activity(
    process: ChildProcess, traces: Collection[Path] = (), own: Collection[int] = ()
) -> str | None:
    """Say whether a child and its descendants burn CPU or wait.

    It is their state that counts: on a busy machine a loop gets little of a CPU, and so does
    one that is traced, which is stopped at each of its calls.

    :param traces: what strace writes of it at the moment.
    :param own: threads of this plugin's in them.
    :return: ``None`` as soon as the child says something.
    """
    import psutil

    pid = process.runner
    started = unpatched.monotonic()
    before, written = _cpu_seconds(pid), {trace: proc.size(trace) for trace in traces}
    running = stopped = 0
    for _ in range(_SAMPLES):
        if process.wait_until_heard(_BETWEEN_SAMPLES_SECONDS):
            return None
        states = {_status(each) for each in (pid, *proc.descendants(pid))}
        running += psutil.STATUS_RUNNING in states
        stopped += psutil.STATUS_TRACING_STOP in states
    after = _cpu_seconds(pid)
    elapsed = unpatched.monotonic() - started
    burnt = sum(after[each] - before.get(each, 0.0) for each in after) / elapsed
    ours = tuple(f"{thread} " for thread in own)
    lines = (proc.read(trace, start).splitlines() for trace, start in written.items())
    calls = sum(not line.startswith(ours) for each in lines for line in each)
    if stopped == _SAMPLES and not calls:
        return _say(len(after), "is", "are") + " held by a tracer that does not respond"
    if burnt > 0.5 or running + stopped > _SAMPLES / 2:
        what = _say(len(after), "burns CPU", "burn CPU")
    else:
        what = _say(len(after), "waits", "wait")
    traced = f", {calls / elapsed:.0f} system calls/s in its trace" if traces else ""
    return f"{what}, {burnt:.0%} of one CPU{traced}"


def _say(processes: int, does: str, do: str) -> str:
    return f"its process {does}" if processes == 1 else f"{processes} processes {do}"


def _cpu_seconds(pid: int) -> dict[int, float]:
    import psutil

    spent = {}
    for each in (pid, *proc.descendants(pid)):
        with contextlib.suppress(psutil.Error):
            user, system, *_ = psutil.Process(each).cpu_times()
            spent[each] = user + system
    return spent


def _status(pid: int) -> str:
    import psutil

    try:
        return psutil.Process(pid).status()
    except psutil.Error:
        return ""


def _last_calls(
    trace: Path,
    main: int | None = None,
    children: Mapping[int, str] | None = None,
    own: Collection[int] = (),
) -> str:
    """Return the last calls of each thread; see :func:`~.recordings.last_calls.describe`."""
    from pytest_eventlet_debug.recordings import last_calls
    from pytest_eventlet_debug.recordings.strace_log import StraceLogError

    start = max(0, proc.size(trace) - _LAST_BYTES)
    lines = proc.read(trace, start).splitlines(keepends=True)
    try:
        # The first line is whole at the beginning alone.
        whole = lines[1:] if start else lines
        return "\n".join(last_calls.describe(whole, unpatched.time_ns(), main, children, own))
    except StraceLogError as error:
        return str(error)


def _strace_sample(process: ChildProcess, own: Collection[int], path: Path) -> str:
    """Return the end of a second of strace, where strace is there and may attach.

    :param own: threads of this plugin's in it.
    """
    strace = shutil.which("strace")
    if strace is None or process.wait_until_heard(0):
        return ""
    children = proc.commands(proc.descendants(process.runner))
    traced = [word for pid in (process.runner, *children) for word in ("-p", str(pid))]
    tracer = _start([strace, "-f", "-ttt", "-y", "-o", str(path), *traced])
    if tracer is None:
        return ""
    try:
        process.wait_until_heard(_STRACE_SECONDS)
    finally:
        _end(tracer)
    return _last_calls(path, process.runner, children, own)


def _end(tracer: int) -> None:
    """End a strace, which may wait for ever for a thread that it was told to let go."""
    deadline = unpatched.monotonic() + 1.0
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        posix.kill(tracer, signal.SIGTERM)
        while posix.waitpid(tracer, posix.WNOHANG)[0] == 0:
            if unpatched.monotonic() > deadline:
                posix.kill(tracer, signal.SIGKILL)
            unpatched.wait_readable([], 0.005)
