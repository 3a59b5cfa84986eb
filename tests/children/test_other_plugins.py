"""Coverage, pytest-xdist, retries, timeouts and reports with several hubs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import stat

import pytest
from runs import BOTH
from runs import make_differing
from runs import on_both
from runs import ran
from runs import run


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("workers", [[], ["-n2"]])
def test_coverage_is_one_report_over_all_hubs(
    pytester: pytest.Pytester, workers: list[str]
) -> None:
    pytester.makepyfile(
        covered="""
        def chosen(hub):
            if hub == "asyncio":
                return "only here"
            return "elsewhere"

        def never():
            return 1
        """,
        test_x="""
        import covered
        import warnings

        warnings.warn("given at import")

        def test_a(eventlet_hub): covered.chosen(eventlet_hub)

        def test_b(): pass
        """,
    )
    chosen = ["-k", "not (test_b and asyncio)"]
    result = run(pytester, BOTH, "--cov=covered", "--cov-report=term-missing", *chosen, *workers)
    result.stdout.no_fnmatch_line("*only, not on*")
    # Neither again for the second hub, nor of coverage in the controller, which imports nothing.
    result.assert_outcomes(passed=3, warnings=len(workers) + 1, deselected=1 - len(workers))
    assert "CoverageWarning" not in result.stdout.str() + result.stderr.str()
    result.stdout.fnmatch_lines(["covered.py*6*1*83%*7"])
    assert sum(line.startswith("TOTAL") for line in result.outlines) == 1
    assert list(pytester.path.glob(".coverage*")) == [pytester.path / ".coverage"]
    if not workers:
        low = run(pytester, BOTH, "--cov=covered", "--cov-fail-under=90")
        assert low.ret == pytest.ExitCode.TESTS_FAILED
        assert "83" in low.stdout.str()


def test_xdist_runs_the_tests_of_each_hub_in_workers(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import os
        import pytest

        @pytest.mark.parametrize("n", range(6))
        def test_p(n, eventlet_hub, worker_id):
            import eventlet.hubs
            assert type(eventlet.hubs.get_hub()).__module__ == f"eventlet.hubs.{eventlet_hub}"
            assert worker_id.startswith("gw")
            assert (n, eventlet_hub) != (3, "asyncio")
        """
    )
    result = run(pytester, BOTH, "-n2", "-v")
    result.assert_outcomes(passed=11, failed=1)
    hubs = ("epolls", "asyncio")
    assert sorted(ran(result)) == sorted(f"test_p[{n}-{hub}]" for n in range(6) for hub in hubs)
    result.stdout.fnmatch_lines(
        [
            "*eventlet hub epolls: 6 tests*",
            "1 test differs between epolls, asyncio",
            "*test_p[[]3]   epolls passed   asyncio failed",
        ]
    )
    again = run(pytester, BOTH, "-n2", "-v", "--lf")
    assert ran(again) == ["test_p[3-asyncio]"]
    again.stdout.no_fnmatch_line("*differ* between*")


def test_reruns_happen_within_the_hub_and_the_last_one_counts(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import os

        def test_flaky(eventlet_hub):
            if eventlet_hub == "asyncio" and not os.path.exists("once"):
                open("once", "w")
                assert False
        """
    )
    result = run(pytester, BOTH, "-v", "-p", "rerunfailures", "--reruns=1")
    assert ran(result) == ["test_flaky[epolls]", "test_flaky[asyncio]", "test_flaky[asyncio]"]
    result.stdout.fnmatch_lines(["no tests differ between epolls, asyncio", "*2 passed, 1 rerun*"])


@pytest.mark.parametrize("reruns", [1, 2])
def test_what_is_to_be_rerun_crashes_in_the_phase_that_it_is_in(
    pytester: pytest.Pytester, reruns: int
) -> None:
    """Its reports come when its last phase is over."""
    pytester.makepyfile(
        test_x=f"""
        import os

        ATTEMPTS = []

        def test_a():
            ATTEMPTS.append(1)
            if len(ATTEMPTS) == {reruns}: os._exit(3)
            assert False
        """
    )
    options = ["--eventlet-hub=epolls", "--eventlet-timeout=60", "--cprofile"]
    result = run(pytester, *options, "-p", "rerunfailures", "--reruns=2")
    result.stdout.fnmatch_lines(["CRASHED test_x.py::test_a[[]epolls]*"])
    paths = pytester.path.glob("eventlet-debug/*/test.json")
    records = sorted((json.loads(path.read_bytes()) for path in paths), key=lambda r: r["attempt"])
    assert len(records) == reruns
    last = records[-1]
    assert (last["outcomes"], list(last["phases"])) == ({"call": "crashed"}, ["setup", "call"])


def test_pytest_timeout_fails_the_test_or_ends_the_process(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import signal

        def test_slow(eventlet_hub):
            while eventlet_hub == "asyncio":
                signal.pause()

        def test_after(): pass
        """
    )
    # Not of the setup, which takes a busy machine its time.
    options = [BOTH, "-v", "--timeout=1", "-o", "timeout_func_only=true"]
    result = run(pytester, *options, "--timeout-method=signal")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["E*Timeout*"])
    # This method ends the process, and with it a plain run.
    result = pytester.runpytest(*options, "--timeout-method=thread")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "  test_x.py::test_slow   epolls passed   asyncio crashed",
            "CRASHED test_x.py::test_slow[[]asyncio]*",
        ]
    )


def test_html_is_one_file_over_all_hubs(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:asyncio -o eventlet_reruns=0")
    make_differing(pytester)
    run(pytester, BOTH, "--html=out.html", "--self-contained-html")
    text = pytester.path.joinpath("out.html").read_text()
    for name in on_both("test_a", "test_b", "test_c"):
        assert f"test_x.py::{name}" in text
    assert "5 Passed" in text
    assert "1 Failed" in text


# -- plugins that the tox factor "plugins" installs


def needs(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not installed; tox -e plugins")


@needs("pytest_benchmark")
def test_benchmarks_of_all_hubs_are_in_one_table_and_one_file(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where workers run these tests, pytest-benchmark measures nothing.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makepyfile(
        test_x="""
        import pytest

        @pytest.mark.parametrize("n", [1, 2])
        def test_sum(benchmark, n):
            benchmark.extra_info["n"] = n
            benchmark.pedantic(sum, args=([n],), rounds=3)

        def test_crashes(eventlet_hub):
            import os
            eventlet_hub == "epolls" and os._exit(1)
        """
    )
    result = run(pytester, BOTH, "--benchmark-json=out.json")
    names = [f"test_sum[{n}-{hub}]" for hub in ("epolls", "asyncio") for n in (1, 2)]
    saved = json.loads(pytester.path.joinpath("out.json").read_bytes())["benchmarks"]
    assert [each["name"] for each in saved] == names
    assert [each["extra_info"] for each in saved] == [{"n": 1}, {"n": 2}] * 2
    assert all(each["stats"]["rounds"] == len(each["stats"]["data"]) == 3 for each in saved)
    assert len([line for line in result.outlines if "- benchmark: 4 tests -" in line]) == 1
    rows = [line.split()[0] for line in result.outlines if re.match(r"test_sum\[\S+ +\d", line)]
    assert sorted(rows) == sorted(names)
    saving = run(pytester, BOTH, "--benchmark-save=one", "-k", "sum")
    assert len(list(pytester.path.glob(".benchmarks/*/*_one.json"))) == 1
    saving.stdout.no_fnmatch_line("*Not saving*")
    compared = run(pytester, BOTH, "--benchmark-compare", "-k", "sum")
    compared.stdout.fnmatch_lines(["*- benchmark: 8 tests -*"])


RANDOM = """
    import random

    class TestA:
        def test_a(self): print("random", self.test_a.__name__, random.random())
        def test_b(self): print("random", self.test_b.__name__, random.random())

    def test_c(): print("random", "test_c", random.random())
    def test_d(): print("random", "test_d", random.random())
"""


@needs("pytest_randomly")
def test_one_seed_shuffles_and_seeds_the_tests_of_every_hub_as_without_hubs(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x=RANDOM, test_y=RANDOM)

    def numbers(result: pytest.RunResult) -> list[str]:
        return [line for line in result.outlines if line.startswith("random ")]

    randomly = ("-rP", "-p", "randomly")
    first = run(pytester, BOTH, *randomly)
    (seed,) = {word for line in first.outlines for word in re.findall(r"--randomly-seed=\d+", line)}
    shuffled = numbers(first)
    assert len(shuffled) == 16
    assert shuffled[:8] == shuffled[8:]
    assert numbers(run(pytester, BOTH, *randomly, "--randomly-seed=last")) == shuffled
    for arguments in ([], ["--eventlet-hub=poll"]):
        assert numbers(run(pytester, *randomly, seed, *arguments)) == shuffled[:8]


@needs("allure_pytest")
def test_allure_has_a_result_for_each_hub_with_the_hub_and_what_was_found(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        import eventlet
        import time

        def test_a(): pass

        def test_b(eventlet_hub):
            other = eventlet.spawn(eventlet.sleep, 0.02)
            if eventlet_hub == "asyncio":
                eventlet.spawn(time.sleep, 0.15).wait()
            other.wait()

        def test_c(): assert 0
        """
    )
    options = ("--alluredir=out", "--cprofile", "--eventlet-blocked=0.1")
    run(pytester, BOTH, *options, "-n2").assert_outcomes(passed=4, failed=2)
    of_workers = set(pytester.path.glob("out/*-result.json"))
    assert len(list(pytester.path.glob("out/*-attachment.txt"))) == 3
    # What lies there of another run stays as it is.
    run(pytester, BOTH, *options, "--clean-alluredir").assert_outcomes(passed=4, failed=2)
    assert not of_workers.intersection(pytester.path.glob("out/*"))
    run(pytester, BOTH, *options).assert_outcomes(passed=4, failed=2)
    paths = pytester.path.glob("out/*-result.json")
    results = sorted(
        (json.loads(path.read_bytes()) for path in paths), key=lambda each: each["stop"]
    )
    assert len(results) == 12
    assert len({each["historyId"] for each in results}) == 6
    assert len({each["fullName"] for each in results}) == 3
    parameters = [each["parameters"] for each in results]
    assert {one["name"] for (one,) in parameters} == {"eventlet_hub"}
    assert sorted(one["value"] for (one,) in parameters) == ["'asyncio'"] * 6 + ["'epolls'"] * 6
    attached = {
        each["name"]: [
            (pytester.path / "out" / attachment["source"]).read_text()
            for attachment in each.get("attachments", ())
            if attachment["name"] == "eventlet-debug"
        ]
        for each in results
    }
    names = ["test_b[asyncio]", "test_c[asyncio]", "test_c[epolls]"]
    assert sorted(name for name, texts in attached.items() if len(texts) == 1) == names
    assert sum(map(len, attached.values())) == 3
    assert attached["test_b[asyncio]"][0].startswith("stall: ")
    assert "  profile.callgrind\n" in attached["test_c[epolls]"][0]
    assert attached["test_c[epolls]"][0].endswith("index.html#/test/test_x.py%3A%3Atest_c")


@needs("testmon")
def test_testmon_runs_on_each_hub_what_a_change_concerns(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="def test_a(): pass", test_y="def test_b(): pass")
    tests = on_both("test_a", "test_b")
    assert ran(run(pytester, BOTH, "-v", "--testmon")) == tests
    again = run(pytester, BOTH, "-v", "--testmon")
    assert ran(again) == []
    assert again.ret == pytest.ExitCode.OK
    pytester.makepyfile(test_y="def test_b(): assert 1")
    assert ran(run(pytester, BOTH, "-v", "--testmon")) == on_both("test_b")


@needs("pytest_sugar")
def test_sugars_progress_is_that_of_all_hubs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="def test_a(): pass\ndef test_b(): pass\ndef test_c(): pass")
    result = run(pytester, BOTH, "--force-sugar", "-k", "test_a or test_b")
    seen = [int(percent) for percent in re.findall(r"(\d+)% ", result.stdout.str())]
    assert [each for each in dict.fromkeys(seen) if each] == [25, 50, 75, 100]


#: Plugins that need nothing of ours, by module: options, a test that uses them, and how often it
#: runs on a hub.
WORKING = {
    "anyio": (
        ["-p", "anyio"],
        "import pytest\n@pytest.mark.anyio\nasync def test_a(anyio_backend): pass\n"
        "@pytest.fixture\ndef anyio_backend(): return 'asyncio'",
        1,
    ),
    "pyfakefs": (
        ["--strace", "--cprofile", "--eventlet-leaks=warn"],
        "import os\ndef test_a(fs):\n    fs.create_file('/nowhere/a')\n"
        "    assert os.listdir('/nowhere') == ['a']",
        1,
    ),
    "pytest_asyncio": (
        ["-p", "asyncio"],
        "import pytest\n@pytest.mark.asyncio\nasync def test_a(): pass",
        1,
    ),
    "pytest_flakefinder": (["--flake-finder", "--flake-runs=2"], "def test_a(): pass", 2),
    "pytest_instafail": (["--instafail"], "def test_a(): pass", 1),
    "pytest_jsonreport": (["--json-report"], "def test_a(): pass", 1),
    "pytest_memray": (["--memray"], "def test_a(): assert [0] * 100_000", 1),
    "pytest_mock": ([], "def test_a(mocker): mocker.patch('os.getcwd')", 1),
    "pytest_order": ([], "import pytest\n@pytest.mark.order(1)\ndef test_a(): pass", 1),
    "pytest_repeat": (["--count=2"], "def test_a(): pass", 2),
    "pytest_reportlog": (["--report-log=log.jsonl"], "def test_a(): pass", 1),
    # Of pytest itself since 9.0, of pytest-subtests before.
    "_pytest.subtests": (
        [],
        "def test_a(subtests):\n    for i in range(3):\n        with subtests.test(i=i): pass",
        1,
    ),
    "pytest_split": (["--splits=1", "--group=1"], "def test_a(): pass", 1),
}


@pytest.mark.parametrize("module", [pytest.param(name, marks=needs(name)) for name in WORKING])
def test_a_plugin_that_works_without_hubs_works_with_several(
    pytester: pytest.Pytester, module: str
) -> None:
    options, program, times = WORKING[module]
    pytester.makepyfile(test_x=program)
    result = run(pytester, BOTH, *options)
    result.assert_outcomes(passed=2 * times)
    result.stdout.fnmatch_lines(["no tests differ between epolls, asyncio"])
    if module in ("pytest_jsonreport", "pytest_reportlog"):
        (path,) = [*pytester.path.glob(".report.json"), *pytester.path.glob("log.jsonl")]
        text = path.read_text()
        assert "test_a[epolls]" in text
        assert "test_a[asyncio]" in text
    if module == "pyfakefs":
        assert len([*pytester.path.glob("eventlet-debug/*/profile.callgrind")]) == 2
        assert len([*pytester.path.glob("eventlet-debug/*/strace.txt")]) == 2
    if module == "pytest_memray":
        (report,) = result.stdout.str().split("MEMRAY REPORT")[1:]
        assert all(f"test_a[{hub}]" in report for hub in ("epolls", "asyncio"))


@needs("pyfakefs")
def test_a_faked_file_system_is_not_what_is_recorded_in(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os

        def test_fails(fs):
            fs.create_file("/var/image", contents="data")
            with open("/var/image") as file:
                assert file.read() == "other"

        def test_next():
            assert not os.path.exists("/var/image")
        """
    )
    before = os.stat(os.devnull).st_mode
    tracers = ("--strace", "--cprofile", "--dump-asyncio-tasks", "--eventlet-leaks=warn")
    try:
        result = run(pytester, BOTH, *tracers)
        assert os.stat(os.devnull).st_mode == before
    finally:
        if os.stat(os.devnull).st_mode != before:
            os.chmod(os.devnull, stat.S_IMODE(before))
    result.assert_outcomes(passed=2, failed=2)
    for name, tests in (("tasks.txt", 2), ("strace.txt", 4), ("profile.cprof", 4)):
        assert len([*pytester.path.glob(f"eventlet-debug/*/{name}")]) == tests
    result.stdout.no_fnmatch_line("*recording*not*")
