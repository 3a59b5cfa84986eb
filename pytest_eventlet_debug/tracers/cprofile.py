"""Record where a test spends its time, greenlet by greenlet."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import platform

from pytest_eventlet_debug import fallbacks
from pytest_eventlet_debug.profiling import debug_build
from pytest_eventlet_debug.profiling.choice import engine_kind
from pytest_eventlet_debug.profiling.choice import make_engine
from pytest_eventlet_debug.profiling.choice import trouble_of_native
from pytest_eventlet_debug.profiling.clock import ClockName
from pytest_eventlet_debug.profiling.engine import Engine
from pytest_eventlet_debug.profiling.engine import EngineName
from pytest_eventlet_debug.profiling.engine import Profile
from pytest_eventlet_debug.profiling.engine import ProfilingError
from pytest_eventlet_debug.recordings.profile_file import ProfileCounts
from pytest_eventlet_debug.recordings.profile_file import ProfileFacts
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.tracer_registry import CPROFILE_CLOCK
from pytest_eventlet_debug.tracer_registry import CPROFILE_ENGINE
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.protocol import Phase
from pytest_eventlet_debug.tracers.protocol import Recording
from pytest_eventlet_debug.tracers.protocol import Tracer
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.tracers.protocol import TracerUnavailable

_VERSION = platform.python_version()


class CProfile(Tracer):
    """A profile of the test's call, in the thread that runs it.

    A test that profiles itself passes, except under the engine ``plain`` on Python 3.12 and
    newer, where else both see everything. On older versions the test's profiler takes the
    place of ours, and the recording is reported as incomplete.
    """

    name = "cprofile"
    default_phases: frozenset[Phase] = frozenset({"call"})

    def __init__(
        self,
        clock: ClockName = "run",
        engine: EngineName = "greenlet",
        helper: Helper | None = None,
    ) -> None:
        """Record nothing yet.

        :param clock: what is measured; see :func:`profiling.clock.make_clock`.
        :param engine: ``plain`` for cProfile as it is.
        :param helper: has the finisher write the files while the next test runs; without one
            all that is done here.
        """
        self._helper = helper
        self._clock: ClockName = clock
        self._engine_name: EngineName = engine
        self._recording: Recording | None = None
        self._engine: Engine | None = None
        if not debug_build.aborts():
            # A trial's greenlets belong into no recording, and into the first test's least of all.
            engine_kind(engine)

    @property
    def version(self) -> str:
        """Python's version, whose standard library the profiler belongs to."""
        return _VERSION

    def check(self) -> None:
        """Find out whether this is a Python that can be profiled.

        :raises TracerUnavailable: it would be aborted.
        """
        if debug_build.aborts():
            raise TracerUnavailable(
                "cprofile cannot profile greenlets in a debug build of Python 3.12 or newer: an "
                "assertion of Python's own fails, as under cProfile by itself. Use another build."
            )

    def start(self, recording: Recording) -> None:
        """Take note of what is profiled, from each :meth:`enter` to the next :meth:`leave`.

        :raises TracerError: another test is being profiled.
        """
        if self._recording is not None:
            raise TracerError(f"cprofile records {self._recording.nodeid} already")
        if self._engine_name == "greenlet" and (why := trouble_of_native()):
            fallbacks.warn(f"Profiling is many times slower, by the engine in Python: {why}")
        self._recording = recording

    def enter(self) -> None:
        """Profile from this moment on.

        :raises TracerError: another profiler is active.
        """
        engine = self._engine or make_engine(self._engine_name, self._clock)
        if self._helper is not None:
            self._helper.flush()  # to send it later would be in the profile
        try:
            engine.start()
        except ProfilingError as error:
            raise TracerError(f"cprofile cannot start: {error}") from error
        self._engine = engine

    def leave(self) -> None:
        """Leave out what runs from now on."""
        if self._engine is not None:
            self._engine.stop()

    def begin_stop(self) -> None:
        """Profile no more, and have what was counted written, as pstats and as callgrind.

        :raises TracerError: the files cannot be written, or the profile is incomplete;
            what was seen until then is in the files.
        """
        recording, engine = self._recording, self._engine
        if recording is None or engine is None:
            return
        self.leave()
        self._engine = None
        profile = engine.profile()
        try:
            self._write(engine.name, recording, profile)
        except OSError as error:
            raise TracerError(f"the profile cannot be written: {error}") from error
        if profile.trouble:
            raise TracerError(f"the profile is incomplete: {profile.trouble}")

    def stop(self) -> None:
        """End the profile.

        :raises TracerError: as :meth:`begin_stop` does, unless that was called.
        """
        try:
            self.begin_stop()
        finally:
            self._recording = None

    def close(self) -> None:
        """Take the profiler out, if a recording was never stopped."""
        self.leave()
        self._engine = None
        self._recording = None

    def _write(self, engine: str, recording: Recording, profile: Profile) -> None:
        counts = ProfileCounts(
            facts=ProfileFacts(
                engine=engine,
                clock=self._clock,
                seconds=profile.seconds,
                self_seconds=0.0,
                switching_seconds=profile.switching,
                incomplete=profile.trouble,
            ),
            parts=profile.parts,
            has_greenlets=profile.has_greenlets,
        )
        if self._helper is not None and not recording.is_block:
            self._helper.post("profile", counts.encode(), directory=str(recording.directory))
            return
        from pytest_eventlet_debug.recordings import profiles

        profiles.write(recording.directory, counts)
        if self._helper is None:
            profiles.complete(recording.directory, recording.nodeid)


def prepare(settings: Settings) -> None:
    """Do nothing: what writes the results is in other processes."""


def make(settings: Settings, start_helper: Callable[[], Helper]) -> CProfile:
    """Return a profiler with the clock and the engine that the options name."""
    helper = None
    with contextlib.suppress(TracerError):  # on Linux alone
        helper = start_helper()
    return CProfile(settings.value(CPROFILE_CLOCK), settings.value(CPROFILE_ENGINE), helper)
