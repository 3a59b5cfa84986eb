"""Record where a test spends its time with cProfile."""

from __future__ import annotations

import cProfile
import io
import marshal
import os
from pathlib import Path
import platform
import re
import sys

from pytest_eventlet_debug.tracers.protocol import Phase
from pytest_eventlet_debug.tracers.protocol import Recording
from pytest_eventlet_debug.tracers.protocol import TracerError

ARTIFACTS = ("profile.cprof", "profile.callgrind")

#: The tool id that cProfile takes on Python 3.12 and newer.
_PROFILER_ID = 2

#: The tool ids that sys.monitoring leaves without a meaning.
_UNNAMED_IDS = (3, 4)


class CProfile:
    """Plain cProfile around the test's call.

    It knows nothing of greenlets: where they switch, cumulative times and callers are
    wrong; and on Python 3.12 and newer all threads of the process share one stack.

    A test that itself uses cProfile passes. On 3.12 and newer both see everything. On
    older versions the test's profiler takes the place of ours, and the recording is
    reported as incomplete.
    """

    name = "cprofile"
    default_phases: frozenset[Phase] = frozenset({"call"})

    def __init__(self) -> None:
        """Record nothing yet."""
        self._recording: Recording | None = None
        self._profile = cProfile.Profile()
        self._running = False
        self._complete = True
        self._tool = _PROFILER_ID

    @property
    def version(self) -> str:
        """Python's version, whose standard library cProfile belongs to."""
        return platform.python_version()

    def check(self) -> None:
        """Find out whether the results can be written.

        :raises TracerUnavailable: never; cProfile is everywhere.
        """

    def start(self, recording: Recording) -> None:
        """Profile from this moment on.

        :raises TracerError: another profiler is active.
        """
        if self._recording is not None:
            raise TracerError(f"cprofile records {self._recording.nodeid} already")
        self._profile = cProfile.Profile()
        self._complete = True
        self._enable()
        self._recording = recording

    def mark(self, phase: str) -> None:
        """Do nothing: a profile has no place for it."""

    def pause(self) -> None:
        """Leave out what runs from now on."""
        self._complete = self._end()

    def resume(self) -> None:
        """Profile again."""
        if self._recording is not None and not self._running:
            self._enable()

    def stop(self) -> tuple[Path, ...]:
        """End the profile and write it as pstats and as callgrind.

        :raises TracerError: the files cannot be written, or a profiler of the test's
            own has replaced ours; what was seen until then is in the files.
        """
        recording, self._recording = self._recording, None
        if recording is None:
            return ()
        complete = self._end()
        directory = Path(os.path.abspath(recording.directory))
        paths = tuple(directory / name for name in ARTIFACTS)
        try:
            if self._profile.getstats():  # pstats refuses to read a file without entries
                write(self._profile, *paths)
        except OSError as error:
            raise TracerError(f"the profile cannot be written: {error}") from error
        if not complete:
            raise TracerError(
                "the profile is incomplete: the test put a profiler of its own in the place of "
                "ours, or left it on"
            )
        return paths

    def close(self) -> None:
        """Take the profiler out, if a recording was never stopped."""
        self._end()
        self._recording = None

    def _enable(self) -> None:
        if sys.version_info < (3, 12) and sys.getprofile() is not None:
            raise TracerError(f"cprofile cannot start: {sys.getprofile()!r} profiles already")
        try:
            self._profile.enable()
        except ValueError as error:
            raise TracerError(f"cprofile cannot start: {error} ({_other_tool()})") from error
        self._running = True
        if sys.version_info >= (3, 12):
            self._tool = _leave_the_profilers_place()

    def _end(self) -> bool:
        """Take the profiler out; say whether everything so far has been counted."""
        if self._running:
            self._running = False
            if sys.version_info >= (3, 12):
                self._complete &= _take_out(self._profile, self._tool)
            else:
                present: object = sys.getprofile()
                self._complete &= present is self._profile
                if present is None or present is self._profile:
                    self._profile.disable()
                else:
                    # disable() would take the test's profiler out.
                    _abandoned.append(self._profile)
        return self._complete


#: Profilers that could not be disabled. Freed, they would take somebody else's place away.
_abandoned: list[cProfile.Profile] = []


if sys.version_info >= (3, 12):

    def _leave_the_profilers_place() -> int:
        """Let the cProfile that was just enabled work under another tool id.

        cProfile always takes id 2, and a test's own would fail then: "Another profiling
        tool is already active". Its callbacks do not care which id calls them.

        :return: the tool id it has now.
        """
        monitoring = sys.monitoring
        free = [tool for tool in _UNNAMED_IDS if monitoring.get_tool(tool) is None]
        if not free:
            return _PROFILER_ID
        events = monitoring.get_events(_PROFILER_ID)
        # A plain call would begin under the profiler and not end under it, and stay on its
        # stack as the caller of all that follows. A map called by `for` is no call to it.
        for _ in map(monitoring.set_events, (_PROFILER_ID,), (0,)):
            pass
        monitoring.use_tool_id(free[0], "pytest-eventlet-debug")
        for event in _single(monitoring.events):
            callback = monitoring.register_callback(_PROFILER_ID, event, None)
            monitoring.register_callback(free[0], event, callback)
        monitoring.free_tool_id(_PROFILER_ID)
        monitoring.set_events(free[0], events)
        return free[0]

    def _take_out(profile: cProfile.Profile, tool: int) -> bool:
        """Disable *profile*, which works under the id *tool*; say whether that went well."""
        monitoring = sys.monitoring
        if tool != _PROFILER_ID:
            monitoring.set_events(tool, 0)
            for event in _single(monitoring.events):
                monitoring.register_callback(tool, event, None)
            monitoring.free_tool_id(tool)
            if monitoring.get_tool(_PROFILER_ID) is not None:
                _abandoned.append(profile)
                return False
            # disable() gives back the id it believes it has.
            monitoring.use_tool_id(_PROFILER_ID, "cProfile")
        profile.disable()
        return True

    def _single(events: object) -> list[int]:
        values = (value for value in vars(events).values() if isinstance(value, int))
        return [value for value in values if value and not value & (value - 1)]


def write(profile: cProfile.Profile, pstats_path: Path, callgrind_path: Path) -> None:
    """Write a profile that counts no more, in both formats.

    :param pstats_path: for ``python -m pstats``, snakeviz and others.
    :param callgrind_path: for KCachegrind and callgrind_annotate.
    """
    import pyprof2calltree  # only those who profile pay for it

    # Not dump_stats(): it disables, and what it disables may be a test's profiler.
    profile.snapshot_stats()
    pstats_path.write_bytes(marshal.dumps(profile.stats))
    text = io.StringIO()
    pyprof2calltree.convert(str(pstats_path), text)
    callgrind_path.write_text(with_summary(text.getvalue()), "utf-8", "backslashreplace")


def with_summary(callgrind: str) -> str:
    """Correct the ``summary:`` line of pyprof2calltree's output.

    pyprof2calltree writes the largest cumulative time there. The callgrind format wants
    the total of all self costs, and callgrind_annotate's percentages are of that.

    :param callgrind: text in the format of
        https://valgrind.org/docs/manual/cl-format.html.
    """
    total = 0
    cost_of_call = False
    for line in callgrind.splitlines():
        if re.match(r"[+*-]?\d+ \d+$", line):
            if not cost_of_call:
                total += int(line.split()[1])
            cost_of_call = False
        elif line.startswith("calls="):
            cost_of_call = True  # the next line is the callee's cost, not a self cost
    return re.sub(r"^summary: .*$", f"summary: {total}", callgrind, flags=re.MULTILINE)


def _other_tool() -> str:
    if sys.version_info >= (3, 12):
        return f"tool {_PROFILER_ID} is {sys.monitoring.get_tool(_PROFILER_ID)!r}"
    return repr(sys.getprofile())
