"""Profiles of random greenlet programs, compared with what these know of themselves."""

from __future__ import annotations

from collections.abc import Callable
import cProfile

from oracle import Program
from oracle import differences
from oracle import found
import pytest

from pytest_eventlet_debug.profiling.choice import native_engine
from pytest_eventlet_debug.profiling.clock import Clock
from pytest_eventlet_debug.profiling.clock import make_clock
from pytest_eventlet_debug.profiling.engine import Engine
from pytest_eventlet_debug.profiling.fallback import FallbackEngine
from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.profiling.stats import labelled
from pytest_eventlet_debug.profiling.stats import merge

PROGRAMS = 300

ENGINES = [kind for kind in (native_engine(), FallbackEngine) if kind is not None]


@pytest.mark.parametrize("make", ENGINES, ids=lambda kind: kind.name)
def test_all_numbers_of_random_greenlet_programs_are_right(
    make: Callable[[Clock], Engine],
) -> None:
    checked = 0
    for seed in range(PROGRAMS):
        program = Program(seed)
        engine = make(Clock(program.now))
        engine.start()
        try:
            program.run()
        finally:
            engine.stop()
        profile = engine.profile()
        right = program.truth()
        assert differences(right, found(profile.stats)) == [], seed
        assert sum(entry[2] for entry in profile.stats.values()) <= program.clock[0] + 1e-6
        assert not profile.trouble
        checked += len(right)
        program.clean_up()
    assert checked > 100 * PROGRAMS / 3
    print(f"{checked} entries and edges")


@pytest.mark.parametrize("make", ENGINES, ids=lambda kind: kind.name)
@pytest.mark.parametrize("clock", ["run", "wall"])
def test_calls_and_callers_are_right_by_the_real_clocks(
    make: Callable[[Clock], Engine], clock: str
) -> None:
    for seed in range(30):
        program = Program(seed)
        engine = make(make_clock(clock))  # type: ignore[arg-type]
        engine.start()
        try:
            program.run()
        finally:
            engine.stop()
        profile = engine.profile()
        assert differences(program.truth(), found(profile.stats), columns=2) == [], seed
        for entry in profile.stats.values():
            assert entry[2] > -1e-6
            assert entry[3] > -1e-6
            if clock == "run":
                assert entry[3] <= profile.seconds
        program.clean_up()


def test_plain_cprofile_is_wrong_about_the_same_programs() -> None:
    wrong = checked = 0
    for seed in range(20):
        program = Program(seed)
        plain = cProfile.Profile(program.now)
        plain.enable()
        try:
            program.run()
        finally:
            plain.disable()
        right = program.truth()
        wrong += len(differences(right, found(merge([Part(labelled(plain.getstats()))]))))
        checked += len(right)
        program.clean_up()
    assert wrong > checked / 2
