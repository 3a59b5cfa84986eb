"""Several hubs in one command: node ids, outcomes, the hub in force, names of hubs."""

from __future__ import annotations

import os
from pathlib import Path
import re
import subprocess
import sys

import pytest
from runs import BOTH
from runs import refused
from runs import run

HUB_IN_FORCE = """
def hub_in_force():
    import eventlet.hubs
    return type(eventlet.hubs.get_hub()).__module__.rpartition(".")[2]
"""


@pytest.fixture(autouse=True)
def in_force(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(in_force=HUB_IN_FORCE)


def outcomes(result: pytest.RunResult) -> dict[str, str]:
    """Return the outcome of each node id in the output of ``-v``; ids that repeat fail."""
    found: dict[str, str] = {}
    for line in result.outlines:
        match = re.match(
            r"(\S.*\]) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS|CRASHED|HUNG)\b(?! - )", line
        )
        if match:
            nodeid, outcome = match.groups()
            if outcome != "ERROR":
                assert nodeid not in found, f"{nodeid} twice"
            found[nodeid] = outcome
    return found


ALL_KINDS = """
    import unittest
    import pytest

    def test_plain(): pass

    @pytest.mark.parametrize("n", [1, "a b", "x-y"])
    def test_param(n): pass

    class TestClass:
        def test_method(self): pass

        @pytest.mark.parametrize("n", [1])
        def test_param(self, n): pass

    class TestUnit(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            cls.ready = True

        def setUp(self):
            self.name = self.id().rpartition(".")[2]

        def test_method(self):
            assert self.ready
            assert self.name == "test_method"
            assert self._testMethodName == "test_method"

        def test_subtests(self):
            for n in range(2):
                with self.subTest(n=n):
                    self.assertEqual(n, 0)

        @unittest.skip("never")
        def test_skipped(self): assert False

        @unittest.expectedFailure
        def test_expected(self): assert False

    @unittest.skip("the whole class")
    class TestSkipped(unittest.TestCase):
        def test_method(self): assert False

    class TestAsync(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self):
            self.ready = True

        async def test_method(self):
            assert self.ready

    class TestBroken(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            raise ValueError("no class today")

        def test_method(self): pass

    def documented():
        '''
        >>> 1 + 1
        2
        '''
"""

ITEMS_OF_A_CONFTEST = """
import pytest

def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".letters":
        return LettersFile.from_parent(parent, path=file_path)

class LettersFile(pytest.File):
    def collect(self):
        for letter in self.path.read_text().split():
            yield LetterItem.from_parent(self, name=letter)

class LetterItem(pytest.Item):
    def runtest(self):
        assert self.name != "bad", "not a letter"

    def repr_failure(self, excinfo):
        return f"{self.name} is not a letter"

    def reportinfo(self):
        return self.path, 0, f"letter: {self.name}"
"""

EXPECTED_OF_ALL_KINDS = {
    "all.letters::a[{hub}]": "PASSED",
    "all.letters::bad[{hub}]": "FAILED",
    "test_kinds.py::test_plain[{hub}]": "PASSED",
    "test_kinds.py::test_param[1-{hub}]": "PASSED",
    "test_kinds.py::test_param[a b-{hub}]": "PASSED",
    "test_kinds.py::test_param[x-y-{hub}]": "PASSED",
    "test_kinds.py::TestClass::test_method[{hub}]": "PASSED",
    "test_kinds.py::TestClass::test_param[1-{hub}]": "PASSED",
    "test_kinds.py::TestUnit::test_method[{hub}]": "PASSED",
    "test_kinds.py::TestUnit::test_skipped[{hub}]": "SKIPPED",
    "test_kinds.py::TestUnit::test_expected[{hub}]": "XFAIL",
    "test_kinds.py::TestSkipped::test_method[{hub}]": "SKIPPED",
    "test_kinds.py::TestAsync::test_method[{hub}]": "PASSED",
    "test_kinds.py::TestBroken::test_method[{hub}]": "ERROR",
    "test_kinds.py::test_kinds.documented[{hub}]": "PASSED",
}


@pytest.fixture
def all_kinds(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_kinds=ALL_KINDS)
    pytester.makeconftest(ITEMS_OF_A_CONFTEST)
    pytester.makefile(".letters", all="a bad")


@pytest.mark.parametrize("hubs", [("epolls", "asyncio"), ("selects",)])
@pytest.mark.usefixtures("all_kinds")
def test_items_of_every_kind_are_named_after_their_hub_and_end_as_without(
    pytester: pytest.Pytester, hubs: tuple[str, ...]
) -> None:
    result = run(pytester, f"--eventlet-hub={','.join(hubs)}", "-v", "--doctest-modules")
    found = outcomes(result)
    subtests = {k: v for k, v in found.items() if "test_subtests" in k}
    expected = {
        nodeid.format(hub=hub): outcome
        for hub in hubs
        for nodeid, outcome in EXPECTED_OF_ALL_KINDS.items()
    }
    assert {k: v for k, v in found.items() if k not in subtests} == expected
    assert set(subtests) == {f"test_kinds.py::TestUnit::test_subtests[{hub}]" for hub in hubs}
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for hub in hubs:
        result.stdout.fnmatch_lines(["bad is not a letter*", "FAILED all.letters::bad*"])
        result.stdout.fnmatch_lines(
            [f"ERROR test_kinds.py::TestBroken::test_method[[]{hub}]*ValueError: no*"]
        )


@pytest.mark.usefixtures("all_kinds")
def test_pasted_ids_run_exactly_the_tests_they_name(pytester: pytest.Pytester) -> None:
    of_one_hub = [
        "test_kinds.py::test_plain[asyncio]",
        "test_kinds.py::test_param[x-y-epolls]",
        "all.letters::a[epolls]",
        "test_kinds.py::test_kinds.documented[asyncio]",
    ]
    of_both = {
        "test_kinds.py::test_param[1]": "test_kinds.py::test_param[1-{hub}]",
        "test_kinds.py::TestUnit::test_method": "test_kinds.py::TestUnit::test_method[{hub}]",
        "test_kinds.py::TestClass::test_param": "test_kinds.py::TestClass::test_param[1-{hub}]",
    }
    result = run(pytester, BOTH, "-v", "--doctest-modules", *of_one_hub, *of_both)
    assert list(outcomes(result)) == [
        each
        for hub in ("epolls", "asyncio")
        for each in (
            *(one for one in of_one_hub if hub in one),
            *(both.format(hub=hub) for both in of_both.values()),
        )
    ]
    assert result.ret == pytest.ExitCode.OK
    method = "test_kinds.py::TestUnit::test_method[asyncio]"
    assert list(outcomes(run(pytester, BOTH, "-v", method))) == [method]


@pytest.mark.usefixtures("all_kinds")
def test_ids_of_different_hubs_are_run_each_on_its_own(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        BOTH,
        "-v",
        "test_kinds.py::test_plain[epolls]",
        "test_kinds.py::TestClass::test_method[asyncio]",
        "test_kinds.py::test_param[1]",
    )
    assert list(outcomes(result)) == [
        "test_kinds.py::test_plain[epolls]",
        "test_kinds.py::test_param[1-epolls]",
        "test_kinds.py::TestClass::test_method[asyncio]",
        "test_kinds.py::test_param[1-asyncio]",
    ]
    result.stdout.fnmatch_lines(["no tests differ between epolls, asyncio"])


def test_an_id_of_a_hub_that_is_not_asked_for_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_x(): pass")
    nodeid = "test_it.py::test_x"
    result = run(pytester, BOTH, f"{nodeid}[poll]")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: not found:*test_x*"])
    alone = run(pytester, "--eventlet-hub=asyncio", "-v", f"{nodeid}[asyncio]")
    assert list(outcomes(alone)) == [f"{nodeid}[asyncio]"]


def test_every_child_runs_its_tests_under_its_hub(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import os

        HUB = os.environ.get("EVENTLET_HUB")

        def pytest_report_header():
            return f"at conftest import: {HUB}"
        """
    )
    pytester.makepyfile(
        test_hub="""
        from in_force import hub_in_force
        import os
        import conftest

        AT_IMPORT = hub_in_force()

        def test_x(eventlet_hub):
            assert AT_IMPORT == hub_in_force() == eventlet_hub
            assert os.environ["EVENTLET_HUB"] == conftest.HUB == eventlet_hub

        def test_y(eventlet_hub):
            assert eventlet_hub == "asyncio"
        """
    )
    result = run(pytester, "--eventlet-hub=all", "-v")
    assert outcomes(result) == {
        f"test_hub.py::test_{name}[{hub}]": (
            "PASSED" if name == "x" or hub == "asyncio" else "FAILED"
        )
        for hub in ("epolls", "poll", "selects", "asyncio")
        for name in "xy"
    }
    result.stdout.fnmatch_lines(
        [
            "1 test differs between epolls, poll, selects, asyncio",
            "*::test_y * epolls failed * poll failed * selects failed * asyncio passed",
        ]
    )


@pytest.mark.fault("everything-monkey-patched")
def test_a_conftest_that_patches_everything_changes_no_outcome(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import eventlet
        eventlet.monkey_patch()
        """
    )
    pytester.makepyfile(
        test_patched="""
        from in_force import hub_in_force
        import socket, subprocess, threading, time
        import eventlet, eventlet.patcher

        def test_server(eventlet_hub):
            assert eventlet.patcher.is_monkey_patched("socket")
            assert hub_in_force() == eventlet_hub
            listener = socket.create_server(("127.0.0.1", 0))
            def serve():
                with listener.accept()[0] as connection:
                    connection.sendall(b"hello")
            thread = threading.Thread(target=serve)
            thread.start()
            with socket.create_connection(listener.getsockname()) as client:
                assert client.recv(5) == b"hello"
            thread.join()
            listener.close()

        def test_process():
            assert subprocess.run(["true"]).returncode == 0

        def test_fails():
            time.sleep(0)
            assert False
        """
    )
    for jobs in "12":
        result = run(pytester, BOTH, "-v", f"--eventlet-jobs={jobs}")
        assert outcomes(result) == {
            f"test_patched.py::test_{name}[{hub}]": outcome
            for hub in ("epolls", "asyncio")
            for name, outcome in {
                "server": "PASSED",
                "process": "PASSED",
                "fails": "FAILED",
            }.items()
        }


def test_tests_of_a_module_that_exists_on_one_hub_only_are_said_once(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        test_only="""
        from in_force import hub_in_force
        if hub_in_force() == "asyncio":
            def test_one(): pass
            def test_two(): pass
        """,
        test_always="def test_it(): pass",
    )
    folder = pytester.mkdir("from_here")
    monkeypatch.chdir(folder)
    result = run(pytester, BOTH, "..", f"--rootdir={pytester.path}")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "no tests differ between epolls, asyncio; 2 exist on only some of them",
            "  ../test_only.py   2 tests on asyncio only, not on epolls",
        ]
    )


@pytest.mark.fault("another-hub")
@pytest.mark.parametrize("hubs", ["epolls,poll", "epolls"])
def test_a_test_that_takes_another_hub_is_reported(pytester: pytest.Pytester, hubs: str) -> None:
    pytester.makepyfile(
        test_use="""
        import eventlet.hubs

        def test_before(): pass

        def test_takes_another():
            eventlet.hubs.use_hub("asyncio")
            eventlet.hubs.get_hub()
        """
    )
    result = run(pytester, f"--eventlet-hub={hubs}")
    count = "1 test" if hubs == "epolls" else "2 tests"
    result.stdout.fnmatch_lines(
        [
            f"{count} ran or ended on the hub asyncio, not on the one in the id:",
            "  test_use.py::test_takes_another[[]epolls]",
        ]
    )
    result.stdout.no_fnmatch_line("  test_use.py::test_before*")


def test_one_hub_runs_in_this_process_and_the_environment_is_put_back(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        import os
        IN_CONFTEST = os.environ["EVENTLET_HUB"]
        """
    )
    pytester.makepyfile(
        test_here="""
        import os
        import conftest

        def test_x():
            assert conftest.IN_CONFTEST == os.environ["EVENTLET_HUB"] == "asyncio"
            open("pid", "w").write(str(os.getpid()))
        """
    )
    script = pytester.makepyfile(
        script="""
        import os, sys
        import pytest
        before = os.environ.get("EVENTLET_HUB")
        status = pytest.main(["--eventlet-hub=asyncio"])
        assert os.environ.get("EVENTLET_HUB") == before
        assert open("pid").read() == str(os.getpid())
        sys.exit(status)
        """
    )
    for before in (None, "poll"):
        environment = {**os.environ, **({"EVENTLET_HUB": before} if before else {})}
        pytester.path.joinpath("pid").unlink(missing_ok=True)
        process = subprocess.run(
            [sys.executable, script], env=environment, capture_output=True, timeout=60
        )
        assert process.returncode == 0, (process.stdout + process.stderr).decode()


def test_the_environment_names_the_hub_where_no_option_does(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTLET_HUB", "poll")
    pytester.makepyfile(
        test_env="""
        from in_force import hub_in_force
        def test_x(eventlet_hub):
            assert hub_in_force() == eventlet_hub == "poll"
        """
    )
    # A hub by the environment alone leaves ids alone.
    result = run(pytester, "-v", "--dump-asyncio-tasks")
    result.stdout.fnmatch_lines(["test_env.py::test_x PASSED*"])
    result = run(pytester, "-v", "--eventlet-hub=selects")
    result.stdout.fnmatch_lines(["test_env.py::test_x[[]selects] FAILED*"])
    pytester.makeini("[pytest]\neventlet_hub = selects, asyncio")
    result = run(pytester, "-q")
    result.assert_outcomes(failed=2)
    result = run(pytester, "-v", "--eventlet-hub=poll", "--eventlet-hub=poll")
    assert outcomes(result) == {"test_env.py::test_x[poll]": "PASSED"}


MARKED = """
    import unittest
    import pytest

    @pytest.mark.eventlet_hub("asyncio")
    def test_asyncio_only(): pass

    @pytest.mark.eventlet_hub("epoll", "select")
    def test_by_aliases(): pass

    @pytest.mark.eventlet_hub("kqueue")
    def test_elsewhere(): pass

    @pytest.mark.eventlet_hub("asyncio")
    class TestUnit(unittest.TestCase):
        def test_method(self): pass
"""


def test_the_marker_limits_a_test_to_hubs_without_counting_as_a_difference(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_marked=MARKED)
    result = run(pytester, BOTH, "-v", "-rs", "--strict-markers")
    assert outcomes(result) == {
        "test_marked.py::test_asyncio_only[epolls]": "SKIPPED",
        "test_marked.py::test_by_aliases[epolls]": "PASSED",
        "test_marked.py::test_elsewhere[epolls]": "SKIPPED",
        "test_marked.py::TestUnit::test_method[epolls]": "SKIPPED",
        "test_marked.py::test_asyncio_only[asyncio]": "PASSED",
        "test_marked.py::test_by_aliases[asyncio]": "SKIPPED",
        "test_marked.py::test_elsewhere[asyncio]": "SKIPPED",
        "test_marked.py::TestUnit::test_method[asyncio]": "PASSED",
    }
    result.stdout.fnmatch_lines(
        [
            "no tests differ between epolls, asyncio; 3 exist on only some of them",
            "SKIPPED*marked for the eventlet hub asyncio, this is epolls",
        ]
    )
    result.stdout.fnmatch_lines(
        ["SKIPPED*marked for the eventlet hub epolls, selects, this is asyncio"]
    )


@pytest.mark.parametrize(
    ("option", "names"), [([BOTH], '"epol"'), (["--eventlet-hub=poll"], ""), ([], '"epol"')]
)
def test_a_marker_that_names_no_hub_is_a_usage_error_that_names_the_test(
    pytester: pytest.Pytester, option: list[str], names: str
) -> None:
    pytester.makepyfile(
        test_marked=f"""
        import pytest

        @pytest.mark.eventlet_hub({names})
        def test_x(): pass
        """
    )
    result = run(pytester, *option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.errlines if line.startswith("ERROR")]
    assert len(lines) == 1
    assert "test_marked.py::test_x" in lines[0]
    assert "marker eventlet_hub" in lines[0]
    assert "Available here: epolls, poll, selects, asyncio." in lines[0]


@pytest.mark.fault("no-hub")
def test_a_hub_that_cannot_be_used_is_a_usage_error_before_anything_is_collected(
    pytester: pytest.Pytester,
) -> None:
    says = {
        "epol": "'epol' is not an eventlet hub. Available here: epolls,",
        "": "a hub's name is empty. Available here:",
        "epolls,,asyncio": "a hub's name is empty.",
        "kqueue": "the hub 'kqueue' is not available on this machine. Available here:",
        "nowhere:Hub": "the hub 'nowhere:Hub' cannot be imported (ModuleNotFoundError:",
    }
    lines = refused(pytester, [[f"--eventlet-hub={names}"] for names in says])
    for line, words in zip(lines, says.values(), strict=True):
        assert line.startswith(f"ERROR: --eventlet-hub: {words}")


def test_a_name_of_the_environment_or_the_ini_file_is_refused_like_one_of_the_option(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile("def test_x(): pass")
    monkeypatch.setenv("EVENTLET_HUB", "epoll5")
    result = run(pytester, "--cprofile")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: EVENTLET_HUB: 'epoll5' is not an eventlet hub.*"])
    pytester.makeini("[pytest]\neventlet_hub = nothing")
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: eventlet_hub in the ini file: 'nothing' is not *"])


def test_aliases_and_doubles_fold_into_one_run_of_each_hub(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="def test_x(): pass")
    result = run(
        pytester,
        "-v",
        "--eventlet-hub=epoll, epolls,select",
        "--eventlet-hub=selects",
    )
    assert list(outcomes(result)) == [
        "test_x.py::test_x[epolls]",
        "test_x.py::test_x[selects]",
    ]
    result.stdout.fnmatch_lines(["eventlet *, hubs: epolls, selects"])


def test_a_hub_of_the_project_is_used_by_its_module_and_class(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        myhub="""
        import eventlet.hubs.poll

        class Mine(eventlet.hubs.poll.Hub):
            pass
        """,
        test_mine="""
        import eventlet.hubs

        def test_x(eventlet_hub):
            hub = type(eventlet.hubs.get_hub())
            assert eventlet_hub in ("poll", f"{hub.__module__}:{hub.__qualname__}")
            assert eventlet.sleep(0) is None
        """,
    )
    result = pytester.run(
        *pytester._getpytestargs(), "-v", "--eventlet-hub=poll,myhub:Mine", "-p", "no:cacheprovider"
    )
    assert outcomes(result) == {
        "test_mine.py::test_x[poll]": "PASSED",
        "test_mine.py::test_x[myhub:Mine]": "PASSED",
    }
    result.stdout.no_fnmatch_line("*not on the one in the id*")
    nodeid = "test_mine.py::test_x[myhub:Mine]"
    result = run(pytester, "-v", "--eventlet-hub=poll,myhub:Mine", nodeid)
    assert list(outcomes(result)) == [nodeid]


def test_without_an_option_the_plugin_renames_and_starts_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTLET_HUB", "asyncio")
    pytester.makepyfile(
        test_x="""
        import sys

        def test_nothing_of_the_kind_is_imported():
            assert "eventlet" not in sys.modules
            assert "psutil" not in sys.modules
        """
    )
    result = run(pytester, "-v")
    result.stdout.fnmatch_lines(["test_x.py::test_nothing_of_the_kind_is_imported PASSED*"])
    result.stdout.no_fnmatch_line("eventlet *")


def test_the_temporary_directories_of_the_run_are_removed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = pytester.mkdir("scratch")
    monkeypatch.setenv("TMPDIR", str(scratch))
    pytester.makepyfile(test_x="def test_x(): pass")
    run(pytester, BOTH).assert_outcomes(passed=2)
    left = [path.name for path in Path(scratch).iterdir() if "eventlet" in path.name]
    assert left == []
