"""Engines in the real world: greenthreads, threads, signals, other profilers, memory."""

from __future__ import annotations

from collections.abc import Callable
import cProfile
from pathlib import Path
import re
import shutil
import subprocess
import sys
import textwrap

import greenlet
import pytest
from speed import depends_on_speed

from pytest_eventlet_debug.profiling import trial
from pytest_eventlet_debug.profiling.choice import engine_kind
from pytest_eventlet_debug.profiling.choice import make_engine
from pytest_eventlet_debug.profiling.choice import native_engine
from pytest_eventlet_debug.profiling.clock import make_clock
from pytest_eventlet_debug.profiling.engine import ProfilingError
from pytest_eventlet_debug.profiling.fallback import FallbackEngine
from pytest_eventlet_debug.profiling.plain import PlainEngine

NEW = sys.version_info >= (3, 12)

_PROLOGUE = """
import _thread, cProfile, re, sys, threading, time, warnings
warnings.simplefilter("ignore")
import eventlet, greenlet
from pytest_eventlet_debug.profiling.choice import make_engine

def burn(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass

def seen(profile):
    # Roots and what they call are named after the place of their function: leave that out.
    return {re.sub(r" \\(\\S+:\\d+\\)", "", name): e for (_, _, name), e in profile.stats.items()}

def callers(profile, name):
    found = {caller[2] for caller in seen(profile)[name][4]}
    return {re.sub(r" \\(\\S+:\\d+\\)", "", caller) for caller in found}
"""


Run = Callable[[str], str]

#: As where the plugin was installed without a compiler.
_NO_NATIVE = "import sys; sys.modules['pytest_eventlet_debug.profiling._native'] = None"


@pytest.fixture(params=["native", "python"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a program in a process of its own, with either engine; return what it prints."""
    if request.param == "native":
        pytest.importorskip("pytest_eventlet_debug.profiling._native")
    before = _NO_NATIVE if request.param == "python" else ""

    def run(program: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", before + _PROLOGUE + textwrap.dedent(program)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    return run


@depends_on_speed
def test_time_is_that_of_the_greenlet_that_ran(run: Run) -> None:
    assert (
        run(
            """
        def worker():
            burn(0.05)
            eventlet.sleep(0.2)
            burn(0.05)

        engine = make_engine()
        engine.start()
        for thread in [eventlet.spawn(worker) for _ in range(3)]:
            thread.wait()
        engine.stop()
        profile = engine.profile()
        entry = seen(profile)["worker"]
        assert entry[:2] == (3, 3)
        assert 0.29 < entry[3] < 0.85, entry  # 0.9 and more if waiting counted
        root = seen(profile)["<greenthread worker>"]
        assert root[:2] == (3, 3) and root[3] >= entry[3], root
        assert callers(profile, "main [worker]") == {"<greenthread worker>"}
        assert callers(profile, "worker") == {"main [worker]"}
        whole = seen(profile)["<all greenlets>"]
        assert whole[:3] == (1, 1, 0.0)
        assert abs(whole[3] - sum(entry[2] for entry in profile.stats.values())) < 1e-6
        assert callers(profile, "<greenthread worker>") == {"<all greenlets>"}
        total = sum(entry[2] for entry in profile.stats.values())
        assert abs(profile.seconds - total - profile.switching) < 0.05
        assert not profile.trouble
        print("done")
        """
        )
        == "done\n"
    )


def test_what_greenlets_call_takes_all_the_time_that_the_plugin_did_not(run: Run) -> None:
    assert (
        run(
            """
        from pytest_eventlet_debug.phrasing import span

        def inner():
            burn(0.01)
            yield

        def outer():
            for number in range(100):
                span(number)
            next(inner())
            yield

        def other():
            next(inner())

        engine = make_engine()
        engine.start()
        next(outer())
        next(inner())
        other()
        engine.stop()
        profile = engine.profile()
        whole = seen(profile)["<all greenlets>"]
        called = [callers for *_, callers in profile.stats.values()]
        edges = [edge for each in called for caller, edge in each.items() if "<all" in caller[2]]
        assert abs(whole[3] - sum(edge[3] for edge in edges)) < 1e-8, (whole, edges)
        assert "span" not in seen(profile) and "<nobody>" not in seen(profile)
        outer = seen(profile)["outer"]
        below = sum(e[3] for each in called for caller, e in each.items() if caller[2] == "outer")
        assert abs(outer[3] - outer[2] - below) < 1e-8, outer
        print("done")
        """
        )
        == "done\n"
    )


@depends_on_speed
def test_by_the_wall_clock_waiting_is_time_in_switch(run: Run) -> None:
    assert (
        run(
            """
        def worker():
            eventlet.sleep(0.2)

        engine = make_engine(clock="wall")
        engine.start()
        for thread in [eventlet.spawn(worker) for _ in range(3)]:
            thread.wait()
        engine.stop()
        found = seen(engine.profile())
        assert 0.59 < found["worker"][3] < 2.0
        assert found["<method 'switch' of 'greenlet.greenlet' objects>"][2] > 0.59
        print("done")
        """
        )
        == "done\n"
    )


def test_what_cannot_be_named_runs_as_it_would_without_a_profile(run: Run) -> None:
    """A proxy that raises whatever it is asked for, and a test that has patched what names take."""
    assert (
        run(
            """
        from unittest import mock

        class Proxy:
            def __getattr__(self, name): raise RuntimeError("outside of a request")
            def __call__(self): burn(0.001); return "called"

        def function(): burn(0.001); return "called too"

        engine = make_engine()
        engine.start()
        called = eventlet.spawn(Proxy()).wait()
        with mock.patch("os.fspath", side_effect=RuntimeError("not here")):
            too = eventlet.spawn(function).wait()
        engine.stop()
        found = seen(engine.profile())
        assert found["<greenthread Proxy>"][:2] == found["<greenthread function>"][:2] == (1, 1)
        print(called, too)
        """
        )
        == "called called too\n"
    )


def test_a_pool_has_roots_too_and_spawn_n_starts_with_the_function(run: Run) -> None:
    assert (
        run(
            """
        def pooled(): burn(0.001)
        def bare(): burn(0.001)

        pool = eventlet.GreenPool(3)
        engine = make_engine()
        engine.start()
        for _ in range(10):
            pool.spawn_n(pooled)
            eventlet.spawn_n(bare)
        pool.waitall()
        engine.stop()
        found = seen(engine.profile())
        assert found["<greenthread pooled>"][:2] == (10, 10)
        assert callers(engine.profile(), "bare") == {"<all greenlets>"}
        print("done")
        """
        )
        == "done\n"
    )


def test_other_threads_are_left_out_and_harm_nothing(run: Run) -> None:
    assert (
        run(
            """
        from eventlet import tpool

        def in_thread(): burn(0.02)
        def worker():
            for _ in range(5):
                tpool.execute(in_thread)
                inside()
        def inside(): burn(0.005)

        for _ in range(2):
            engine = make_engine()
            engine.start()
            for thread in [eventlet.spawn(worker) for _ in range(4)]:
                thread.wait()
            engine.stop()
            profile = engine.profile()
            found = seen(profile)
            assert found["inside"][:2] == (20, 20)
            assert callers(profile, "inside") == {"worker"}
            assert "in_thread" not in found
            assert "start_thread" not in found
            assert not profile.trouble
        print("done")
        """
        )
        == "done\n"
    )


def test_a_greenlet_that_is_collected_dies_as_it_would_without(run: Run) -> None:
    assert (
        run(
            """
        gone = []
        def worker():
            try:
                greenlet.getcurrent().parent.switch()
            finally:
                gone.append(1)

        engine = make_engine()
        engine.start()
        for _ in range(50):
            greenlet.greenlet(worker).switch()
        engine.stop()
        assert len(gone) == 50
        found = seen(engine.profile())
        assert found["worker"][:2] == (50, 50)
        print("done")
        """
        )
        == "done\n"
    )


def test_a_callback_that_was_there_before_hears_on(run: Run) -> None:
    assert (
        run(
            """
        heard = []
        greenlet.settrace(lambda *event: heard.append(event))
        before = greenlet.gettrace()
        engine = make_engine()
        engine.start()
        greenlet.greenlet(burn).switch(0.0)
        engine.stop()
        assert len(heard) >= 2
        assert greenlet.gettrace() is before
        assert not engine.profile().trouble
        print("done")
        """
        )
        == "done\n"
    )


def test_it_may_start_in_one_greenthread_and_stop_in_another(run: Run) -> None:
    assert (
        run(
            """
        engine = make_engine()
        def begin():
            engine.start()
            eventlet.sleep(0)
            burn(0.01)
        def end():
            eventlet.sleep(0.1)
            engine.stop()
        threads = eventlet.spawn(begin), eventlet.spawn(end)
        for thread in threads:
            thread.wait()
        found = seen(engine.profile())
        assert found["burn"][:2] == (1, 1)
        print("done")
        """
        )
        == "done\n"
    )


def test_a_lost_hook_is_told(run: Run) -> None:
    assert "without our notice" in run(
        """
        engine = make_engine()
        engine.start()
        greenlet.settrace(None)
        engine.stop()
        print(engine.profile().trouble)
        """
    )


def test_a_test_may_profile_itself_while_greenlets_switch(run: Run) -> None:
    said = run(
        """
        def theirs(): eventlet.sleep(0)
        engine = make_engine()
        engine.start()
        own = cProfile.Profile()
        own.enable()
        for _ in range(10):
            theirs()
        own.disable()
        engine.stop()
        own.create_stats()
        (count,) = [entry[1] for (_, _, name), entry in own.stats.items() if name == "theirs"]
        assert count >= 10  # plain cProfile may count one too many here, whoever else profiles
        assert sys.getprofile() is None
        print(engine.profile().trouble)
        """
    )
    assert said == "\n" if NEW else "our profiler with its own" in said


def test_setprofile_of_a_test_goes_on(run: Run) -> None:
    run(
        """
        heard = []
        def hear(*event): heard.append(event)
        engine = make_engine()
        engine.start()
        sys.setprofile(hear)
        burn(0.0)
        eventlet.sleep(0)
        burn(0.0)
        assert sys.getprofile() is hear
        sys.setprofile(None)
        engine.stop()
        names = [frame.f_code.co_name for frame, event, _ in heard if event == "call"]
        assert names.count("burn") == 2
        """
    )


def test_where_the_trial_fails_python_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    native = pytest.importorskip("pytest_eventlet_debug.profiling.native").NativeEngine
    assert engine_kind("greenlet") is native
    monkeypatch.setattr(trial, "trouble", {native: "greenlets cannot be profiled here"}.get)
    assert engine_kind("greenlet") is FallbackEngine
    assert engine_kind("plain") is PlainEngine


def test_the_trial_passes_here_and_finds_wrong_callers() -> None:
    for kind in (native_engine(), FallbackEngine):
        assert kind is None or trial.trouble(kind) == ""
    assert "wrong callers" in trial.trouble(PlainEngine)
    assert greenlet.gettrace() is None


def test_without_a_compiler_there_is_an_engine_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest_eventlet_debug.profiling.native", None)
    assert native_engine() is None
    assert type(make_engine()) is FallbackEngine


@pytest.mark.usefixtures("unmeasured")
def test_what_a_signal_handler_raises_arrives(run: Run) -> None:
    """It may rise within our callback: then the profile is incomplete, and says so."""
    assert (
        run(
            """
        import signal
        class Alarm(Exception): pass
        def ring(*ignored): raise Alarm
        signal.signal(signal.SIGALRM, ring)
        def call(n): return n
        def work():
            until = time.perf_counter() + 5
            while time.perf_counter() < until:
                call(1)
        arrived = 0
        for _ in range(100):
            engine = make_engine()
            engine.start()
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.001)
                work()
            except Alarm:
                arrived += 1
            engine.stop()
            profile = engine.profile()
            assert profile.trouble or profile.stats
            assert sys.getprofile() is None
        print(arrived)
        """
        )
        == "100\n"
    )


@pytest.mark.skipif(not NEW, reason="a thread has one profiler")
def test_by_the_plain_engine_a_test_with_cprofile_of_its_own_is_told_why_that_fails() -> None:
    engine = PlainEngine(make_clock("run"))
    engine.start()
    try:
        words = "profiling tool is already active|tool 2 is already in use"
        with pytest.raises(ValueError, match=words):
            cProfile.Profile().enable()
    finally:
        engine.stop()
    assert engine.profile().trouble == (
        "the test uses cProfile itself, and two of them cannot run at once; "
        "without --cprofile-engine=plain they can"
    )


def test_the_plain_engine_does_not_start_beside_another_cprofile() -> None:
    theirs = cProfile.Profile()
    theirs.enable()
    try:
        with pytest.raises(ProfilingError):
            PlainEngine(make_clock("run")).start()
    finally:
        theirs.disable()


def test_ten_thousand_greenthreads_need_no_memory_for_each(run: Run) -> None:
    grown = run(
        """
        import resource
        def kilobytes(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        def spawn(count):
            pool = eventlet.GreenPool(100)
            for _ in range(count):
                pool.spawn_n(eventlet.sleep, 0)
            pool.waitall()
        spawn(2_000)
        before = kilobytes()
        engine = make_engine()
        engine.start()
        spawn(10_000)
        engine.stop()
        profile = engine.profile()
        assert seen(profile)["<greenthread sleep>"][1] == 10_000
        print(kilobytes() - before)
        """
    )
    assert int(grown) < 3_000


@pytest.mark.skipif(not shutil.which("callgrind_annotate"), reason="valgrind is not installed")
def test_the_shares_of_callgrind_annotate_add_up_to_a_hundred(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import eventlet
        def work():
            for _ in range(50):
                sum(range(1000))
                eventlet.sleep(0)
        def test_it():
            for thread in [eventlet.spawn(work) for _ in range(20)]:
                thread.wait()
        """
    )
    pytester.runpytest("--cprofile").assert_outcomes(passed=1)
    (path,) = Path("eventlet-debug").glob("*/profile.callgrind")
    command = ["callgrind_annotate", "--threshold=100", "--auto=no", str(path)]
    text = subprocess.run(command, capture_output=True, text=True).stdout
    functions = text.partition("file:function")[2]
    shares = [float(share) for share in re.findall(r"^ *[\d,]+ \( *([\d.]+)%\)", functions, re.M)]
    assert sum(shares) == pytest.approx(100, abs=0.01 * len(shares) + 0.1)


BUSY = """
    import greenlet, time

    def work(main):
        while True:
            main.switch()

    def test_busy():
        other = greenlet.greenlet(work)
        until = time.monotonic() + 120
        while time.monotonic() < until:
            other.switch(greenlet.getcurrent())
            sum(range(10))
"""


def test_a_timeouts_signal_arrives_in_a_busy_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(BUSY)
    timeout = ("--timeout=1", "-o", "timeout_func_only=true", "--timeout-method=signal")
    result = pytester.runpytest("--cprofile", *timeout)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Timeout *1.0s*"])
    assert result.duration < 60  # of 120


def test_ctrl_c_arrives_in_a_busy_test(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import os, signal, subprocess, sys
        def pytest_runtest_call():
            program = f"import os, time; time.sleep(1); os.kill({os.getpid()}, {signal.SIGINT:d})"
            subprocess.Popen([sys.executable, "-c", program])
        """
    )
    pytester.makepyfile(BUSY)
    result = pytester.runpytest("--cprofile")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*KeyboardInterrupt*"])
    assert result.duration < 60  # of 120
