"""What a test patches does not reach the recorder.

Of all public functions of the standard library's modules that our code imports, those are found
out first that it calls around a test, if need be by way of the standard library. A suite of one
test for each of these replaces that function by one that raises where our code calls it, and
lets everybody else through.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import pathlib
from pathlib import Path
import sys
import time

import pytest

import pytest_eventlet_debug

EVERYTHING = (
    *("--strace", "--cprofile", "--pcap", "--dump-asyncio-tasks", "--eventlet-leaks=warn"),
    *("--eventlet-phases=call", "--eventlet-blocked"),
)

IN_THE_CALL = """
def test_patched(target, monkeypatch):
    owner, name = target
    monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    switch()
"""

IN_A_FAILING_CALL = (
    IN_THE_CALL
    + """
    assert False, "as it should"
"""
)

AROUND_THE_TEST = """
@pytest.fixture(scope="module")
def patched(target):
    owner, name = target
    before = getattr(owner, name)
    setattr(owner, name, failing(before))
    yield
    setattr(owner, name, before)

def test_patched(patched):
    switch()
"""

OUR_CALLS = """
import importlib
import json
import sys
import sysconfig

import eventlet
import pytest

STANDARD = (sysconfig.get_path("stdlib"), "<frozen")
getframe = sys._getframe

def called_by_the_plugin():
    frame = getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(STANDARD):
        if "site-packages" in frame.f_code.co_filename:
            return False
        frame = frame.f_back
    return frame is not None and "/pytest_eventlet_debug/" in frame.f_code.co_filename

def find(function):
    module, *path, name = function
    target = importlib.import_module(module)
    for each in path:
        target = getattr(target, each)
    return target, name

def switch():
    left, done = eventlet.spawn(eventlet.sleep, 60), eventlet.spawn(len, "")
    eventlet.GreenPool().spawn_n(eventlet.sleep)
    with eventlet.Timeout(0, False):
        eventlet.sleep(60)
    done.wait()
"""

SURVEY = (
    OUR_CALLS
    + """
@pytest.fixture(scope="module", autouse=True)
def survey():
    reached = set()

    def noting(function, full_name):
        def note(*args, **kwargs):
            if called_by_the_plugin():
                reached.add(full_name)
            return function(*args, **kwargs)
        return note

    places = [(*find(function), function) for function in {functions!r}]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, function in places:
        setattr(owner, name, noting(getattr(owner, name), function))
    yield
    for owner, name, function in before:
        setattr(owner, name, function)
    with open("reached.json", "w") as file:
        json.dump(sorted(reached), file)

def test_passes():
    switch()

def test_fails():
    switch()
    assert False, "as it should"

def test_after_it():
    pass
"""
)

SUITE = (
    OUR_CALLS
    + """
def failing(function):
    def fail(*args, **kwargs):
        if called_by_the_plugin():
            raise RuntimeError("a test has patched this")
        return function(*args, **kwargs)
    return fail

@pytest.fixture(scope="module", params={functions!r}, ids="/".join)
def target(request):
    return find(request.param)
"""
)


def standard_modules() -> list[str]:
    """Return the modules of the standard library that our code imports."""
    found = set()
    for path in Path(pytest_eventlet_debug.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return sorted(name for name in found if name.partition(".")[0] in sys.stdlib_module_names)


def public_functions() -> list[tuple[str, ...]]:
    """Return the public functions of these modules, and of pathlib's class."""
    functions: list[tuple[str, ...]] = [("builtins", "open")]
    for name in standard_modules():
        if name in ("__future__", "builtins", "typing"):
            continue
        module = importlib.import_module(name)
        functions += [
            (name, each)
            for each, value in vars(module).items()
            if not each.startswith("_") and callable(value) and not inspect.isclass(value)
        ]
    functions += [
        ("pathlib", "Path", each)
        for each, value in inspect.getmembers(pathlib.Path, inspect.isfunction)
        if not each.startswith("_")
    ]
    return functions


def called_around_tests(pytester: pytest.Pytester) -> list[tuple[str, ...]]:
    """Return those of the public functions that our code calls while tests run."""
    functions = public_functions()
    assert len(functions) > 500
    pytester.makepyfile(SURVEY.format(functions=functions))
    pytester.runpytest("-q", *EVERYTHING).assert_outcomes(passed=2, failed=1)
    reached = json.loads((pytester.path / "reached.json").read_text())
    return [tuple(function) for function in reached]


@pytest.mark.fault("any-function-patched")
def test_no_function_that_a_test_patches_changes_its_outcome_when_it_is_recorded(
    pytester: pytest.Pytester,
) -> None:
    functions = called_around_tests(pytester)
    assert ("posix", "open") in functions
    suite = SUITE.format(functions=functions)
    pytester.makepyfile(
        test_in_the_call=suite + IN_THE_CALL,
        test_in_a_call_that_fails=suite + IN_A_FAILING_CALL,
        test_around_the_test=suite + AROUND_THE_TEST,
    )
    files = ["test_in_the_call.py", "test_in_a_call_that_fails.py", "test_around_the_test.py"]
    result = pytester.runpytest(*files, "-q", "--tb=short", *EVERYTHING)
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    result.assert_outcomes(passed=2 * len(functions), failed=len(functions))
    failures = [line for line in result.outlines if line.startswith("FAILED ")]
    assert all(line.startswith(f"FAILED {files[1]}::") for line in failures)


@pytest.mark.fault("json-patched")
def test_json_patched_in_the_call_costs_neither_the_test_nor_its_trace(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import json

        def fail(*args, **kwargs):
            raise RuntimeError("not in this test")

        def test_it(monkeypatch):
            monkeypatch.setattr(json, "dumps", fail)
            monkeypatch.setattr(json, "loads", fail)
    """)
    result = pytester.runpytest("--strace", "--eventlet-phases=call")
    result.assert_outcomes(passed=1)
    assert_nothing_was_lost(pytester, result)


@pytest.mark.fault("json-patched-class")
def test_json_patched_for_a_class_whose_tests_run_in_a_child_is_no_internal_error(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        from unittest import mock
        import pytest

        class TestIt:
            @pytest.fixture(scope="class", autouse=True)
            def patched(self):
                with mock.patch("json.dumps", side_effect=RuntimeError("not here")):
                    yield

            def test_a(self):
                pass

            def test_b(self):
                pass
    """)
    result = pytester.runpytest("--strace", "--eventlet-hub=poll,selects")
    result.assert_outcomes(passed=4)
    assert_nothing_was_lost(pytester, result)


@pytest.mark.fault("mkdir-patched")
def test_a_mock_that_says_all_directories_exist_does_not_hold_the_test_up(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        from unittest import mock
        import pytest

        @pytest.fixture(scope="module", autouse=True)
        def patched():
            with mock.patch("os.mkdir", side_effect=FileExistsError("always")):
                yield

        def test_it():
            pass
    """)
    result = pytester.runpytest("--strace", "--cprofile", timeout=60)
    result.assert_outcomes(passed=1)
    assert_nothing_was_lost(pytester, result)


@pytest.mark.fault("open-patched")
def test_a_profile_is_written_where_open_is_patched(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from unittest import mock
        import pytest

        @pytest.fixture(scope="module", autouse=True)
        def patched():
            with mock.patch("builtins.open", mock.mock_open(read_data="")):
                yield

        def test_it():
            pass
    """)
    result = pytester.runpytest("--cprofile")
    result.assert_outcomes(passed=1)
    assert_nothing_was_lost(pytester, result)
    (profile,) = pytester.path.glob("eventlet-debug/*/profile.callgrind")
    assert "fn=" in profile.read_text()


@pytest.mark.fault("builtins-patched")
@pytest.mark.parametrize("hubs", ["epolls", "epolls,asyncio"])
def test_functions_that_a_fixture_patches_for_the_whole_test_change_no_outcome(
    pytester: pytest.Pytester, hubs: str
) -> None:
    pytester.makepyfile("""
        from unittest import mock
        import pytest

        # What pytest itself calls may be a mock, but not raise.
        NAMES = dict.fromkeys(["max", "min", "filter"])
        NAMES |= dict.fromkeys(["round", "sum", "zip"], OSError)

        @pytest.fixture(params=NAMES, autouse=True)
        def patched(request):
            with mock.patch(f"builtins.{request.param}", side_effect=NAMES[request.param]):
                yield

        def test_passes(): pass

        def test_fails(): assert 0
    """)
    result = pytester.runpytest(*EVERYTHING, f"--eventlet-hub={hubs}", "--eventlet-reruns=0")
    count = 6 * len(hubs.split(","))
    result.assert_outcomes(passed=count, failed=count)


@pytest.mark.fault("patched-for-good", "module-replaced")
def test_patches_left_on_for_good_end_in_no_traceback(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import json, os, pathlib, re, struct, sys, time

        def fail(*args, **kwargs):
            raise RuntimeError("for good")

        def test_first():
            places = (
                (json, "loads"), (json, "dumps"), (struct, "pack"), (re, "sub"),
                (pathlib.Path, "mkdir"), (time, "time_ns"), (os, "open"),
            )
            for owner, name in places:
                setattr(owner, name, fail)
            sys.modules["pyprof2calltree"] = None

        def test_second():
            pass
    """)
    result = pytester.runpytest("-p", "no:cacheprovider", "--strace", "--cprofile", "--pcap")
    result.assert_outcomes(passed=2)
    assert_nothing_was_lost(pytester, result)


@pytest.mark.fault("mock-fails-test")
def test_a_mock_that_fails_the_test_when_called_does_not_when_we_call_it(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import posix
        import pytest

        @pytest.fixture(scope="module", autouse=True)
        def patched():
            before = posix.mkdir
            posix.mkdir = lambda *args, **kwargs: pytest.fail("nothing is to be made")
            yield
            posix.mkdir = before

        def test_it():
            pass
    """)
    result = pytester.runpytest("--cprofile")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["cprofile: Failed: nothing is to be made (*"])


@pytest.mark.fault("leaks-unjudged")
def test_leaks_that_cannot_be_looked_for_fail_no_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_it():
            sys._current_frames = lambda: 1 / 0
    """)
    result = pytester.runpytest("--eventlet-leaks=fail")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["leaks: ZeroDivisionError: division by zero (*"])


@pytest.mark.parametrize(
    "clock",
    [
        pytest.param("freezegun.freeze_time('2012-01-14')", id="freezegun"),
        pytest.param(
            "time_machine.travel('2012-01-14', tick=False)",
            id="time-machine",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("time_machine") is None,
                reason="time_machine is not installed; tox -e plugins",
            ),
        ),
    ],
)
def test_a_test_that_stops_the_clock_is_recorded_by_the_real_one(
    pytester: pytest.Pytester, clock: str
) -> None:
    pytester.makepyfile(f"""
        import time
        import eventlet
        import pytest
        import {clock.partition(".")[0]}

        @pytest.fixture
        def stopped():
            with {clock}:
                yield

        def test_it(stopped):
            assert time.time() == 1326499200
            eventlet.sleep(0)
    """)
    before_ns = time.time_ns()
    result = pytester.runpytest("--strace", "--cprofile", "--eventlet-hub=epolls")
    after_ns = time.time_ns()
    result.assert_outcomes(passed=1)
    assert_nothing_was_lost(pytester, result)
    (path,) = pytester.path.glob("eventlet-debug/*/test.json")
    phases = json.loads(path.read_text())["phases"]
    assert list(phases) == ["setup", "call", "teardown"]
    times = [each for phase in phases.values() for each in phase]
    assert before_ns < times[0]
    assert times[-1] < after_ns
    assert times == sorted(set(times))


def assert_nothing_was_lost(pytester: pytest.Pytester, result: pytest.RunResult) -> None:
    """See that no tracer had a failure, and no traceback was printed."""
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    records = list(pytester.path.glob("eventlet-debug/*/test.json"))
    assert records
    assert [json.loads(record.read_text())["errors"] for record in records] == [[]] * len(records)
