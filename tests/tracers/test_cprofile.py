"""cprofile around a test's call."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import cProfile
import json
from pathlib import Path
import pstats
import re
import shutil
import subprocess
import sys
from types import FrameType

from needs import needs_strace
import pytest

from pytest_eventlet_debug.tracers.cprofile import CProfile
from pytest_eventlet_debug.tracers.protocol import Recording
from pytest_eventlet_debug.tracers.protocol import TracerError

ROOT = Path(__file__).parent.parent.parent


def busy() -> int:
    return sum(inner(number) for number in range(1000))


def inner(number: int) -> int:
    return number * number


def other() -> None:
    pass


def calls(path: Path) -> dict[str, int]:
    stats = pstats.Stats(str(path))
    return {name: entry[1] for (_, _, name), entry in stats.stats.items()}  # type: ignore[attr-defined]


@contextlib.contextmanager
def profiled(
    directory: Path, tracer: CProfile | None = None, nodeid: str = "a::b"
) -> Iterator[CProfile]:
    """Have what is called meanwhile profiled, and the profile written into a directory."""
    tracer = tracer or CProfile()
    tracer.start(Recording(nodeid, directory))
    tracer.enter()
    yield tracer
    tracer.stop()


def test_what_runs_between_start_and_stop_is_counted(tmp_path: Path) -> None:
    tracer = CProfile()
    other()
    with profiled(tmp_path, tracer):
        busy()
    other()
    counted = calls(tmp_path / "profile.cprof")
    assert counted["busy"] == 1
    assert counted["inner"] == 1000
    assert "other" not in counted


def test_callers_are_right_and_what_we_do_ourselves_calls_nothing(tmp_path: Path) -> None:
    tracer = CProfile()
    for _ in range(2):
        with profiled(tmp_path, tracer):
            busy()
            tracer.leave()
            tracer.pause()
            tracer.resume()
            tracer.enter()
            busy()
    stats = pstats.Stats(str(tmp_path / "profile.cprof"))
    callers = {
        function[2]: {caller[2] for caller in entry[4]}
        for function, entry in stats.stats.items()  # type: ignore[attr-defined]
    }
    assert callers["inner"] == {"<genexpr>"}
    assert callers["busy"] == {"<all greenlets>"}


def test_the_next_recording_begins_empty(tmp_path: Path) -> None:
    tracer = CProfile()
    with profiled(tmp_path, tracer):
        other()
    with profiled(tmp_path, tracer, "a::c"):
        busy()
    assert "other" not in calls(tmp_path / "profile.cprof")


def test_a_pause_is_left_out(tmp_path: Path) -> None:
    with profiled(tmp_path) as tracer:
        inner(1)
        tracer.leave()
        tracer.pause()
        inner(2)
        other()
        tracer.resume()
        tracer.enter()
        inner(3)
    counted = calls(tmp_path / "profile.cprof")
    assert counted["inner"] == 2
    assert "other" not in counted


def test_the_summary_is_the_sum_of_all_self_costs(tmp_path: Path) -> None:
    with profiled(tmp_path):
        busy()
    text = (tmp_path / "profile.callgrind").read_text()
    # A line of costs behind one of calls is what the callee cost.
    costs = re.findall(r"^(calls=.*\n)?\d+ (\d+)$", text, re.MULTILINE)
    own = sum(int(cost) for calls, cost in costs if not calls)
    assert own > 0
    assert re.findall(r"^summary: (.*)$", text, re.MULTILINE) == [str(own)]


def test_the_files_say_of_what_they_are_and_which_engine_counted(tmp_path: Path) -> None:
    with profiled(tmp_path, CProfile("wall", "plain"), nodeid="a.py::test_b[x y]"):
        busy()
    header = (tmp_path / "profile.callgrind").read_text().partition("\nevent")[0]
    assert header.splitlines() == [
        "cmd: pytest a.py::test_b[x y]",
        "desc: Test: a.py::test_b[x y]",
        "desc: Engine: plain",
        "desc: Clock: wall",
    ]
    assert json.loads((tmp_path / "profile.json").read_text())["engine"] == "plain"


@pytest.mark.skipif(not shutil.which("callgrind_annotate"), reason="valgrind is not installed")
def test_callgrind_annotate_reads_it(tmp_path: Path) -> None:
    with profiled(tmp_path):
        busy()
    done = subprocess.run(
        ["callgrind_annotate", str(tmp_path / "profile.callgrind")], capture_output=True, text=True
    )
    assert "inner" in done.stdout, done.stderr


@pytest.mark.fault("profiler-active")
def test_a_profiler_that_is_active_already_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytest_eventlet_debug.profiling.native", None)
    tracer = CProfile()

    def theirs(frame: FrameType, event: str, argument: object) -> None: ...

    sys.setprofile(theirs)
    try:
        tracer.start(Recording("a::b", tmp_path))
        with pytest.raises(TracerError) as caught:
            tracer.enter()
    finally:
        sys.setprofile(None)
    assert "\n" not in str(caught.value)
    assert "theirs" in str(caught.value)
    tracer.stop()
    assert not list(tmp_path.iterdir())
    with profiled(tmp_path, tracer):
        pass
    assert (tmp_path / "profile.json").exists()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a thread has one profiler")
def test_another_profiler_that_is_active_already_does_not_matter(tmp_path: Path) -> None:
    pytest.importorskip("pytest_eventlet_debug.profiling._native")
    theirs = cProfile.Profile()
    theirs.enable()
    try:
        with profiled(tmp_path):
            busy()
    finally:
        theirs.disable()
    theirs.create_stats()
    assert "busy" in {name for _, _, name in theirs.stats}
    assert calls(tmp_path / "profile.cprof")["busy"] == 1


def test_a_test_that_profiles_itself_passes(tmp_path: Path) -> None:
    tracer = CProfile()
    tracer.start(Recording("a::b", tmp_path))
    tracer.enter()
    theirs = cProfile.Profile()
    theirs.enable()
    inner(1)
    theirs.disable()
    busy()
    if sys.version_info >= (3, 12):
        tracer.stop()
    else:
        with pytest.raises(TracerError, match="the profile is incomplete"):
            tracer.stop()
    theirs.create_stats()
    names = {name for _, _, name in theirs.stats}
    assert "inner" in names
    assert "busy" not in names
    assert (sys.version_info < (3, 12)) or calls(tmp_path / "profile.cprof")["busy"] == 1


@pytest.mark.fault("profiler-active")
def test_a_test_that_leaves_its_profiler_on_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pytest_eventlet_debug.profiling.native", None)
    tracer = CProfile()
    tracer.start(Recording("a::b", tmp_path))
    tracer.enter()
    theirs = cProfile.Profile()
    theirs.enable()
    if sys.version_info >= (3, 12):  # cProfile has a place of its own
        tracer.stop()
    else:
        with pytest.raises(TracerError, match="the profile is incomplete"):
            tracer.stop()
    busy()
    theirs.disable()
    theirs.create_stats()
    assert "busy" in {name for _, _, name in theirs.stats}


def test_loading_it_does_not_import_pyprof2calltree() -> None:
    module = "pytest_eventlet_debug.tracers.cprofile"
    program = f"import sys, {module}; print('pyprof2calltree' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "False\n", done.stderr


@needs_strace
def test_no_greenlet_of_ours_is_in_the_first_recording(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import eventlet

        def test_it():
            eventlet.spawn(eventlet.sleep, 0.001).wait()
        """
    )
    pytester.runpytest("--strace", "--cprofile").assert_outcomes(passed=1)
    (path,) = Path("eventlet-debug").glob("*/strace.txt")
    names = set(re.findall(r"greenlet/(\d+)/(\w+)", path.read_text()))
    assert names == {("1", "test"), ("2", "hub"), ("3", "sleep")}


def test_what_pytest_and_its_plugins_do_around_a_phase_is_not_in_its_profile(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        import pytest

        def around():
            pass

        def within():
            pass

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_setup():
            around()
            return (yield)

        pytest_runtest_call = pytest_runtest_teardown = pytest_runtest_setup
        """
    )
    pytester.makepyfile(
        """
        import eventlet
        import pytest

        from conftest import within

        @pytest.fixture
        def fixture():
            within()
            yield
            eventlet.sleep(0)
            within()

        def test_it(fixture, eventlet_trace):
            within()
            with eventlet_trace("cprofile"):
                within()
                within()
            within()
        """
    )
    done = pytester.runpytest("--cprofile", "--eventlet-phases=setup,call,teardown")
    done.assert_outcomes(passed=1)
    (whole,) = pytester.path.glob("eventlet-debug/*/profile.cprof")
    (block,) = pytester.path.glob("eventlet-debug/*/block-1/profile.cprof")
    assert calls(whole)["within"] == 4
    assert calls(block)["within"] == 2
    for names in (calls(whole), calls(block)):
        assert not {"around", "resume_global_capture", "catching_logs"} & names.keys()


@pytest.mark.skipif(sys.platform != "linux", reason="there is no epoll")
def test_what_else_watches_a_test_is_not_in_its_profile(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import asyncio, unittest
        import eventlet

        def work():
            pass

        async def task():
            work()

        async def start():
            await asyncio.create_task(task())

        class TestX(unittest.TestCase):
            def setUp(self):
                work()

            def test_method(self):
                work()
                eventlet.spawn(work).wait()

        def test_loop():
            asyncio.run(start())
            eventlet.kill(eventlet.spawn(work))
        """
    )
    pytester.maketxtfile(test_doc=">>> import test_x; test_x.work()")
    options = ("--cprofile", "--doctest-glob=*.txt", "-p", "no:cacheprovider")
    watches = ("--eventlet-hub=epolls", "--dump-asyncio-tasks", "--eventlet-leaks=warn")
    for place, more in (("alone", ()), ("watched", watches)):
        done = pytester.runpytest(*options, *more, f"--eventlet-artifacts={place}")
        done.assert_outcomes(passed=3)
    alone, watched = (
        {path.name.rsplit("-", 1)[0]: callers(path) for path in pytester.path.glob(f"{place}/*-*")}
        for place in ("alone", "watched")
    )
    assert len(alone) == 3
    assert {f"{name}-epolls": each for name, each in alone.items()} == watched


def callers(directory: Path) -> set[tuple[str, int, str, int]]:
    """Return who called the functions of a test's module and of a few others, and how often."""
    stats = pstats.Stats(str(directory / "profile.cprof")).stats  # type: ignore[attr-defined]
    return {
        (name, line, caller[2], edge[0])
        for (file, line, name), entry in stats.items()
        if file.endswith(("test_x.py", "unittest/case.py", "asyncio/runners.py"))
        for caller, edge in entry[4].items()
    }


@pytest.mark.skipif(sys.platform != "linux", reason="there is no helper")
def test_what_can_be_done_later_is_not_done_in_the_test_process(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_one(eventlet_artifacts):
            global before
            before = eventlet_artifacts

        def test_two():
            assert "pyprof2calltree" not in sys.modules
            assert "pstats" not in sys.modules
    """)
    pytester.runpytest_subprocess("--cprofile").assert_outcomes(passed=2)
    for directory in Path("eventlet-debug").glob("*two*"):
        assert "fn=" in (directory / "profile.callgrind").read_text()
        artifacts = json.loads((directory / "test.json").read_text())["artifacts"]
        assert {"profile.callgrind", "profile.cprof", "profile.json"} <= set(artifacts)


@pytest.mark.fault("debug-python")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="greenlets can be profiled there")
def test_a_debug_build_of_python_is_not_aborted(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(debug_build="import sys; sys.gettotalrefcount = lambda: 0")
    pytester.makepyfile("""
        import sys
        def test_a():
            assert not any(map(sys.monitoring.get_tool, (3, 4)))
    """)
    result = pytester.runpytest("-p", "debug_build", "--cprofile")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: *cannot profile greenlets in a debug build of Python 3.12*"]
    )
    pytester.runpytest("-p", "debug_build", "--strace").assert_outcomes(passed=1)
