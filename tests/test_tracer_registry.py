"""A tracer is one module and one entry in the registry."""

from __future__ import annotations

import json
from pathlib import Path
import subprocess
import sys

import pytest

from pytest_eventlet_debug.tracers.protocol import PHASES

# What somebody writes who adds a tracer: here it notes when it was asked for what.
TOY = """
    import itertools

    from pytest_eventlet_debug.option_types import Switch, Value
    from pytest_eventlet_debug import tracer_registry as registry
    from pytest_eventlet_debug.tracers.protocol import Tracer

    WORDS = Value("--toy-words", "WORDS", "What the toy writes.", str, default="nothing")
    registry.register(
        registry.TracerKind(
            "toy", "toy", (Switch("--toy", "Record with a toy.", activates=True), WORDS),
            nests=NESTS,
        )
    )

    class Toy(Tracer):
        name = "toy"
        version = "1.0"
        default_phases = frozenset({"setup", "call", "teardown"})

        def __init__(self, words):
            self.words = words

        def check(self):
            pass

        def start(self, recording):
            self.path = recording.directory / "toy.txt"
            self.note(f"start {self.words}")

        def note(self, line):
            with open(self.path, "a") as file:
                print(line, file=file)

        def mark(self, phase):
            self.note(f"mark {phase}")

        def enter(self):
            self.note("enter")

        def leave(self):
            self.note("leave")

        def pause(self):
            self.note("pause")

        def resume(self):
            self.note("resume")

        def begin_stop(self):
            self.note("begin to stop")

        def stop(self):
            self.note("stop")

    def prepare(settings):
        print("prepared")

    def make(settings, start_helper):
        return Toy(settings.value(WORDS))
"""

TEST = """
    def test_block(eventlet_trace, eventlet_artifacts):
        with eventlet_trace("toy") as directory:
            assert directory.parent == eventlet_artifacts
"""


@pytest.fixture
def toy(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> None:
    pytester.makepyfile(toy=TOY.replace("NESTS", str(getattr(request, "param", False))))
    pytester.makepyfile(TEST)
    pytester.syspathinsert()


def lines() -> dict[str, list[str]]:
    """Return what toys wrote, by the name of the directory."""
    found = Path("eventlet-debug").rglob("toy.txt")
    return {path.parent.name.partition("-")[0]: path.read_text().splitlines() for path in found}


@pytest.mark.usefixtures("toy")
def test_a_tracer_that_is_registered_records_each_test(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("-s", "-p", "toy", "--toy", "--toy-words=all is well")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["prepared", "*toy 1.0*"])
    (test,) = (path.parent for path in Path("eventlet-debug").glob("*/test.json"))
    block = (test / "block-1" / "toy.txt").read_text().splitlines()
    assert block == ["start all is well", "enter", "mark block-1", "begin to stop", "stop"]
    assert (test / "toy.txt").read_text().splitlines() == [
        "start all is well",
        *("mark setup", "enter", "leave"),
        *("mark call", "enter"),
        *("leave", "pause"),
        *("resume", "enter"),
        "leave",
        *("mark teardown", "enter", "leave"),
        *("begin to stop", "stop"),
    ]
    assert "toy.txt" in json.loads((test / "test.json").read_text())["artifacts"]


@pytest.mark.parametrize("toy", [True], indirect=True)
@pytest.mark.usefixtures("toy")
def test_a_tracer_that_nests_goes_on_while_a_block_is_recorded(pytester: pytest.Pytester) -> None:
    pytester.runpytest("-p", "toy", "--toy").assert_outcomes(passed=1)
    (test,) = (path.parent for path in Path("eventlet-debug").glob("*/test.json"))
    text = (test / "toy.txt").read_text()
    assert text.splitlines()[1:] == [
        *(each for phase in PHASES for each in (f"mark {phase}", "enter", "leave")),
        *("begin to stop", "stop"),
    ]


@pytest.mark.usefixtures("toy")
def test_a_registered_tracer_records_a_block_without_its_option(
    pytester: pytest.Pytester,
) -> None:
    result = pytester.runpytest("-s", "-p", "toy")
    result.assert_outcomes(passed=1)
    assert "prepared" not in result.stdout.str()
    assert list(lines()) == ["block"]


@pytest.mark.usefixtures("toy")
def test_a_registered_tracer_has_its_ini_values_and_its_place_in_the_help(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("[pytest]\naddopts = -p toy\neventlet_toy = true\neventlet_toy_words = ini")
    pytester.runpytest().assert_outcomes(passed=1)
    assert lines()["block"][0] == "start ini"
    pytester.runpytest("--help").stdout.fnmatch_lines(["*--toy-words=WORDS*"])


@pytest.mark.usefixtures("toy")
def test_a_name_that_is_registered_nowhere_is_an_error_that_lists_all(
    pytester: pytest.Pytester,
) -> None:
    result = pytester.runpytest()
    result.stdout.fnmatch_lines(
        ["*ValueError: eventlet_trace: 'toy' is not a tracer. There are: cprofile, pcap, strace."]
    )


def test_the_registry_imports_no_tracer() -> None:
    text = """
import sys
from pytest_eventlet_debug import tracer_registry as registry
modules = {kind.module for kind in registry.kinds()}
assert len(modules) == 3
assert not modules & set(sys.modules)
assert not {"eventlet", "ctypes", "cProfile", "psutil"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", text], check=True)
