"""The texts that a run ends with, and its line at the top."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
import re
import shutil

from needs import needs_strace
import pytest
from runs import LACKED_CPUS
from speed import depends_on_speed

EXAMPLES = Path(__file__).parent.parent / "examples"


TITLES = ("hub differences", "findings", "recordings")


def summary(result: pytest.RunResult, *titles: str) -> list[str]:
    """Return the lines of our sections of the terminal's summary, or of those named."""
    found = []
    ours = False
    for line in result.stdout.lines:
        if line.startswith("==="):
            ours = line.strip("= ") in (titles or TITLES)
        elif ours and line and not line.startswith(LACKED_CPUS):
            found.append(line)
    return found


DIFFERING = """
    import pytest

    def test_differs(eventlet_hub):
        assert eventlet_hub == "poll"

    def test_skips_on_one(eventlet_hub):
        if eventlet_hub == "poll":
            pytest.skip()

    @pytest.mark.eventlet_hub("poll")
    def test_for_one(): pass

    def test_fails_on_both():
        assert False

    def test_passes(): pass
"""


def test_tests_that_differ_are_counted_and_listed_with_their_outcomes(
    pytester: pytest.Pytester,
) -> None:
    path = pytester.makepyfile(DIFFERING)
    lines = summary(pytester.runpytest("--eventlet-hub=poll,selects"))
    assert lines[0] == "2 tests differ between poll, selects; 1 exists on only some of them"
    assert lines.pop(2) == "    selects: AssertionError: assert 'selects' == 'poll'"
    assert {" ".join(line.split()) for line in lines[1:]} == {
        f"{path.name}::test_differs poll passed selects failed",
        f"{path.name}::test_skips_on_one poll skipped selects passed",
        "poll: Skipped",
        f"{path.name} 1 test on poll only, not on selects",
    }


def test_no_difference_is_said_in_a_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_fails(): assert False")
    assert summary(pytester.runpytest("--eventlet-hub=poll,selects")) == [
        "no tests differ between poll, selects"
    ]


def test_one_hub_has_nothing_to_compare(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_passes(): pass")
    assert summary(pytester.runpytest("--eventlet-hub=poll")) == []


def test_a_hub_whose_run_broke_off_is_not_compared(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        if os.environ["EVENTLET_HUB"] == "selects":
            raise ImportError("not on selects")
        def test_one(): pass
        """
    )
    lines = summary(pytester.runpytest("--eventlet-hub=poll,selects,epolls"))
    assert lines == [
        "no tests differ between poll, epolls",
        "the run under selects is incomplete (errors during collection) and not compared",
    ]


@depends_on_speed
@needs_strace
def test_a_system_call_that_repeats_without_progress_is_named(pytester: pytest.Pytester) -> None:
    shutil.copy(EXAMPLES / "test_closed_listener.py", pytester.path)
    result = pytester.runpytest("--eventlet-hub=epolls,asyncio", "--strace", "-W", "ignore")
    result.assert_outcomes(passed=1, failed=1)
    test = "test_closed_listener.py::test_server_ends_when_its_listener_is_closed"
    differing, which, error, found, *_ = summary(result, "hub differences")
    assert differing == "1 test differs between epolls, asyncio"
    assert " ".join(which.split()) == f"{test} epolls passed asyncio failed"
    assert error.startswith("    asyncio: AssertionError: ")
    assert re.fullmatch(
        r"    asyncio: storm: accept4\(-1\) = -1 EBADF x [\d,]+ in [\d.]+ s at \S+:\d+ in accept, "
        r"from \S+:\d+ in serve by greenthread \d+:serve, strace\.txt(\.gz)? line \d+",
        found,
    )
    assert summary(result, "findings") == []
    artifacts = pytester.path / "eventlet-debug"
    assert summary(result, "recordings") == [
        f"artifacts of 2 tests: {artifacts}",
        f"report: {artifacts}/index.html",
    ]


@depends_on_speed
@pytest.mark.fault("crash-recorded")
@needs_strace
def test_a_test_that_kills_its_process_while_it_spins_is_named(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import os

        def test_spins():
            for _ in range(20_000):
                try:
                    os.read(-1, 1)
                except OSError:
                    pass
            os.abort()
        """
    )
    result = pytester.runpytest("--eventlet-hub=poll", "--eventlet-timeout=60", "--strace")
    _, found = summary(result, "findings")
    assert found.startswith("    storm: read(-1) = -1 EBADF x ")


@pytest.mark.parametrize("hubs", ["poll", "poll,epolls"])
def test_a_test_that_ran_on_another_hub_is_named(pytester: pytest.Pytester, hubs: str) -> None:
    path = pytester.makepyfile(
        """
        import eventlet.hubs

        def test_honest():
            eventlet.sleep(0)

        def test_changes_the_hub():
            eventlet.hubs.use_hub("selects")
            eventlet.sleep(0)
            eventlet.hubs.use_hub()

        def test_fails_elsewhere():
            eventlet.hubs.use_hub("selects")
            assert False
        """
    )
    result = pytester.runpytest(f"--eventlet-hub={hubs}", "--cprofile", "-W", "ignore")
    lines = summary(result)
    start = next(n for n, line in enumerate(lines) if "selects" in line)
    names = [f"  {path.name}::test_fails_elsewhere[{hub}]" for hub in hubs.split(",")]
    tests = "1 test" if len(names) == 1 else f"{len(names)} tests"
    assert lines[start] == f"{tests} ran or ended on the hub selects, not on the one in the id:"
    assert lines[start + 1 : start + 1 + len(names)] == names
    result.stdout.fnmatch_lines(["poll was asked for, selects was in force"])


ENDS_ITS_HUB = """
    import signal

    import eventlet
    import eventlet.hubs
    import greenlet


    class Reload(Exception):
        pass


    def reload(*_):
        if greenlet.getcurrent() is eventlet.hubs.get_hub().greenlet:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Reload


    def test_reloads():
        eventlet.spawn_after(60, print)
        eventlet.sleep(0)
        signal.signal(signal.SIGALRM, reload)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        try:
            eventlet.sleep(60)
        except Reload:
            pass


    def test_waits():
        eventlet.sleep(0.5)


    def test_waits_too():
        eventlet.sleep(0.5)


    def test_fails_without_a_wait():
        assert False
"""


@pytest.mark.parametrize("hubs", ["asyncio", "epolls,asyncio"])
def test_who_fails_as_an_exception_has_ended_the_hub_learns_in_which_test(
    pytester: pytest.Pytester, hubs: str
) -> None:
    path = pytester.makepyfile(ENDS_ITS_HUB)
    result = pytester.runpytest(f"--eventlet-hub={hubs}", "--dump-asyncio-tasks", "-W", "ignore")
    result.assert_outcomes(passed=hubs.count(",") * 3 + 1, failed=hubs.count(",") + 3)
    line = (
        f"Reload, raised at {path.name}:15 in reload, ended the hub in "
        f"{path.name}::test_reloads[[]asyncio[]]; it does not start again, "
        "so every wait fails with RuntimeError: Already running!"
    )
    result.stdout.fnmatch_lines(["*- eventlet hub -*", line])
    assert result.stdout.str().count("- eventlet hub -") == 2
    result.stdout.fnmatch_lines(["hub asyncio, ended by an exception for good: *"])
    if hubs == "asyncio":
        result.stdout.fnmatch_lines(
            [
                "*= findings =*",
                f"  {path.name}::test_waits[[]asyncio[]]   and 1 more",
                f"    {line}",
            ]
        )
    else:
        result.stdout.fnmatch_lines(
            [
                "*= hub differences =*",
                "    asyncio: RuntimeError: Already running!",
                f"    asyncio: {line}",
                "    word for word the same for 1 other test:",
            ]
        )


def test_a_hub_that_gets_on_for_a_while_ended_where_it_ended_first(
    pytester: pytest.Pytester,
) -> None:
    path = pytester.makepyfile(
        ENDS_ITS_HUB
        + """

    ended = []

    def test_gets_on():
        hub = eventlet.hubs.get_hub()
        ended.append(hub.greenlet)
        hub.greenlet = greenlet.getcurrent()


    def test_waits_in_vain():
        eventlet.hubs.get_hub().greenlet = ended.pop()
        eventlet.sleep(0.01)
"""
    )
    tests = [f"{path.name}::test_{name}" for name in ("reloads", "gets_on", "waits_in_vain")]
    result = pytester.runpytest("--eventlet-hub=asyncio", "-W", "ignore", *tests)
    result.assert_outcomes(passed=2, failed=1)
    line = f"an exception ended the hub in {path.name}::test_reloads[[]asyncio[]]; *"
    result.stdout.fnmatch_lines(["*- eventlet hub -*", line])


def test_a_hub_that_starts_again_after_an_exception_is_no_reason(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(ENDS_ITS_HUB)
    result = pytester.runpytest("--eventlet-hub=epolls", "-W", "ignore")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.no_fnmatch_line("*an exception ended the hub*")


def test_what_a_tracer_could_not_is_told_once_for_all_its_tests(
    pytester: pytest.Pytester,
) -> None:
    path = pytester.makepyfile(
        """
        import cProfile, pytest

        @pytest.fixture(autouse=True, scope="module")
        def profiler():
            import sys
            if sys.version_info >= (3, 12):
                for tool in 3, 4, 5:
                    sys.monitoring.use_tool_id(tool, "theirs")
                yield
                for tool in 3, 4, 5:
                    sys.monitoring.free_tool_id(tool)
            else:
                profile = cProfile.Profile()
                profile.enable()
                yield
                profile.disable()

        @pytest.mark.parametrize("number", range(3))
        def test_profiled(number): pass
        """
    )
    result = pytester.runpytest("--cprofile")
    result.assert_outcomes(passed=3)
    told, artifacts, _ = summary(result)
    assert re.fullmatch(
        rf"cprofile: cprofile cannot start: .* \({path.name}::test_profiled\[0\] and 2 more\)",
        told,
    )
    assert artifacts.startswith("artifacts of 3 tests: ")


@pytest.mark.parametrize(
    ("variable", "named"), [(None, "epolls (eventlet's default)"), ("poll", "poll")]
)
def test_the_header_names_the_hub_that_nobody_asked_for(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, variable: str | None, named: str
) -> None:
    monkeypatch.delenv("EVENTLET_HUB", raising=False)
    if variable is not None:
        monkeypatch.setenv("EVENTLET_HUB", variable)
    pytester.makepyfile("def test_passes(): pass")
    result = pytester.runpytest("--cprofile")
    result.stdout.fnmatch_lines([f"eventlet *, hubs: {named}; cprofile *"])


@needs_strace
def test_the_header_names_hubs_tools_with_versions_and_the_directory(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("def test_passes(): pass")
    result = pytester.runpytest(
        *("--eventlet-hub=poll,selects", "--eventlet-timeout=90", "--strace", "--pcap")
    )
    (line,) = [line for line in result.stdout.lines if line.startswith("eventlet ")]
    assert re.fullmatch(
        rf"eventlet {re.escape(version('eventlet'))}, hubs: poll, selects; pcap \S+; "
        r"strace \d[\d.]*\S*; timeout: 90 s; "
        rf"artifacts: {re.escape(str(pytester.path / 'eventlet-debug'))}",
        line,
    )


def test_a_run_that_has_nothing_to_say_has_no_section(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_passes(): pass")
    result = pytester.runpytest("--dump-asyncio-tasks")
    result.assert_outcomes(passed=1)
    assert summary(result) == []


def test_without_a_terminal_the_run_ends_well(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_passes(): pass")
    result = pytester.runpytest("--eventlet-hub=poll,selects", "--cprofile", "-p", "no:terminal")
    assert result.ret == 0


def test_an_exception_that_ends_a_thread_is_told_of_a_test_that_fails(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        import threading

        def load():
            raise KeyError("missing")

        def end_a_thread():
            thread = threading.Thread(target=load)
            thread.start()
            thread.join()

        def test_fails():
            end_a_thread()
            assert False

        def test_passes():
            end_a_thread()

        def test_fails_after_it():
            assert False
        """
    )
    for hubs in ("poll", "poll,epolls"):
        result = pytester.runpytest(f"--eventlet-hub={hubs}", "-W", "default")
        told = summary(result, "findings")
        assert [line for line in told if "printed" in line] == [
            "    printed: KeyError: 'missing' (test_x.py:4 in load)"
        ]
        assert told[0].startswith("  test_x.py::test_fails[poll]")


def test_what_a_test_prints_of_the_reason_is_told_once_for_all_that_print_it(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        import subprocess, sys
        import pytest

        @pytest.mark.parametrize("n", range(2))
        def test_program(n):
            done = subprocess.run([sys.executable, "-c", "{}['key']"], stderr=subprocess.PIPE)
            print(done.stderr.decode())
            assert not done.returncode

        def test_plain():
            assert "nothing printed" == ""
        """
    )
    for hubs in ("poll", "poll,epolls"):
        result = pytester.runpytest(f"--eventlet-hub={hubs}")
        assert summary(result, "findings") == [
            f"  test_x.py::test_program[0-poll]   and {2 * len(hubs.split(',')) - 1} more",
            "    printed: KeyError: 'key' (<string>:1 in <module>)",
        ]
