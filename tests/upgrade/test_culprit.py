"""Which upgrade makes tests fail: real distributions, installed by pip, on real runs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
import os
from pathlib import Path
import select
import signal
import subprocess
import sys
import zipfile

import pytest
from test_comparison import case
from test_comparison import run

from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.upgrade import culprit
from pytest_eventlet_debug.upgrade import saved_run
from pytest_eventlet_debug.upgrade.culprit import CulpritError
from pytest_eventlet_debug.upgrade.culprit import Culprits
from pytest_eventlet_debug.upgrade.culprit import search
from pytest_eventlet_debug.upgrade.saved_run import Distribution
from pytest_eventlet_debug.upgrade.saved_run import Key

ONE, TWO = ("t.py::test_one", "poll"), ("t.py::test_two", "poll")


def runner(*causes: tuple[Key, set[str]]) -> culprit.Run:
    """Return a run in which each test fails once all of its causes are upgraded."""

    def run(upgraded: Sequence[str]) -> dict[Key, Outcome]:
        ended: dict[Key, Outcome] = {ONE: "passed", TWO: "passed"}
        failed: dict[Key, Outcome] = {
            test: "failed" for test, names in causes if names <= set(upgraded)
        }
        return ended | failed

    return run


def test_one_of_many_upgrades_is_found() -> None:
    names = [f"d{number}" for number in range(20)]
    found = search(names, [ONE], runner((ONE, {"d7"})))
    assert found.smallest == ("d7",)
    assert found.tests == (ONE,)
    assert found.runs < 15


def test_two_that_fail_a_test_each_are_told_apart() -> None:
    found = search("abcd", [ONE, TWO], runner((ONE, {"a"}), (TWO, {"c"})))
    assert found.smallest == ("a", "c")
    assert found.alone == {"a": (ONE,), "c": (TWO,)}


def test_two_that_only_together_fail_a_test_are_both_named() -> None:
    found = search("abcd", [ONE], runner((ONE, {"a", "d"})))
    assert found.smallest == ("a", "d")
    lines = culprit.describe(found, upgrades("a", "d"))
    assert lines[-1] == "  only together"


def upgrades(*names: str) -> list[culprit.Upgrade]:
    return [culprit.Upgrade(name, "1", "2", 0, 0) for name in names]


def test_a_test_that_passes_after_all_is_set_apart() -> None:
    found = search("ab", [ONE, TWO], runner((ONE, {"a"})))
    assert found == Culprits(("a",), {}, (ONE,), (TWO,), found.runs)
    assert culprit.describe(found, upgrades("a", "b")) == [
        f"what makes 1 test fail ({found.runs} runs):",
        "  a  1 -> 2",
        "not explained by an upgrade: t.py::test_two (poll)",
    ]


@pytest.mark.parametrize(
    ("causes", "words"),
    [([], "they are flaky, or something else"), ([(ONE, set())], "no upgrade is to blame")],
)
def test_where_no_upgrade_is_to_blame_that_is_said(
    causes: list[tuple[Key, set[str]]], words: str
) -> None:
    with pytest.raises(CulpritError, match=words):
        search("ab", [ONE], runner(*causes))


def make_wheel(folder: Path, name: str, version: str, source: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", source)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def packages(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels: two distributions in two versions each, of which one breaks a test."""
    folder = pytester.mkdir("wheels")
    for version in ("1", "2"):
        make_wheel(folder, "cul_innocent", version, f"version = {version}")
        make_wheel(folder, "cul_guilty", version, f"answer = {42 if version == '1' else 43}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # no uv, it reads other variables
    pytester.makepyfile(
        test_answers="""
        import cul_guilty, cul_innocent
        def test_answer(): assert cul_guilty.answer == 42
        def test_version(): assert cul_innocent.version
        """
    )
    return folder


def install(folder: Path, version: str) -> str:
    """Unpack wheels as pip does, which takes a hundred times as long."""
    target = folder / f"environment-{version}"
    for path in folder.glob(f"*-{version}-py3-none-any.whl"):
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(target)
    return str(target)


def test_the_guilty_of_two_real_upgrades_is_found_without_changing_what_is_installed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, packages: Path
) -> None:
    for version, name in (("1", "before"), ("2", "after")):
        monkeypatch.setenv("PYTHONPATH", install(packages, version))
        pytester.runpytest("--eventlet-hub=poll", f"--eventlet-save={name}.json")
    old = saved_run.read(pytester.path / "before.json")
    new = saved_run.read(pytester.path / "after.json")
    overlay = culprit.Overlay(pytester.mkdir("overlay"), old, new, ["-p", "no:cacheprovider"])
    assert sorted(overlay.names) == ["cul-guilty", "cul-innocent"]
    found = search(overlay.names, overlay.tests, overlay.run)
    assert found.smallest == ("cul-guilty",)
    assert found.tests == (("test_answers.py::test_answer", "poll"),)


@pytest.mark.parametrize("hubs", ["poll", "poll,selects"])
def test_a_mixture_with_which_a_module_cannot_be_imported_is_not_taken_for_the_culprit(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, packages: Path, hubs: str
) -> None:
    make_wheel(packages, "cul_guilty", "2", "answer, added = 43, True")
    make_wheel(packages, "cul_innocent", "2", "from cul_guilty import added; version = 2")
    for version, name in (("1", "before"), ("2", "after")):
        monkeypatch.setenv("PYTHONPATH", install(packages, version))
        pytester.runpytest(f"--eventlet-hub={hubs}", f"--eventlet-save={name}.json")
    old = saved_run.read(pytester.path / "before.json")
    new = saved_run.read(pytester.path / "after.json")
    overlay = culprit.Overlay(pytester.mkdir("overlay"), old, new)
    assert overlay.run(["cul-innocent"]) == {}
    found = search(["cul-innocent", "cul-guilty"], overlay.tests, overlay.run)
    assert found.smallest == ("cul-guilty",)


def test_where_nothing_can_be_collected_any_more_that_is_said() -> None:
    with pytest.raises(CulpritError, match="cannot be collected with every distribution upgraded"):
        search("ab", [ONE], lambda upgraded: {})


def test_what_the_tests_print_need_not_be_text(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="import os\ndef test(): assert not os.write(1, bytes([255]))",
    )
    pluggy = Distribution(metadata.version("pluggy"))
    old = run(case("test_x.py::test", hub="poll"), distributions={"pluggy": Distribution("0")})
    new = run(case("test_x.py::test", "failed", hub="poll"), distributions={"pluggy": pluggy})
    overlay = culprit.Overlay(pytester.mkdir("overlay"), old, new, ["-s"])
    assert overlay.run(["pluggy"]) == {("test_x.py::test", "poll"): "failed"}


def test_more_tests_can_have_got_worse_than_a_command_line_has_room_for(
    pytester: pytest.Pytester,
) -> None:
    count = os.sysconf("SC_ARG_MAX") // 10_000 + 1
    pytester.makepyfile(
        test_x=f"""
        import pytest

        names = [f"{{number}} " + "x" * 10_000 for number in range({count})]

        @pytest.mark.parametrize("name", names, ids=names)
        def test(name): assert name.startswith("0")
        """
    )
    names = [f"test_x.py::test[{number} {'x' * 10_000}]" for number in range(count)]
    pluggy = Distribution(metadata.version("pluggy"))
    old = run(
        *(case(name, hub="poll") for name in names), distributions={"pluggy": Distribution("0")}
    )
    new = run(
        *(case(name, "failed", hub="poll") for name in names), distributions={"pluggy": pluggy}
    )
    overlay = culprit.Overlay(pytester.mkdir("overlay"), old, new)
    ended = overlay.run(["pluggy"])
    assert [ended[name, "poll"] for name in names] == ["passed", *["failed"] * (count - 1)]


@pytest.fixture
def search_that_waits(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return a command that looks for a culprit; its test calls a function ``wait()``."""
    hubs = getattr(request, "param", ["poll"])
    pytester.makepyfile(test_x="from waiting import wait\ndef test(): wait()")
    pluggy = Distribution(metadata.version("pluggy"))
    passed = [case("test_x.py::test", hub=hub) for hub in hubs]
    failed = [case("test_x.py::test", "failed", hub=hub) for hub in hubs]
    old = run(*passed, distributions={"pluggy": Distribution("0")})
    new = run(*failed, distributions={"pluggy": pluggy})
    saved_run.write(pytester.path / "old.json", old)
    saved_run.write(pytester.path / "new.json", new)
    return (sys.executable, "-m", "pytest_eventlet_debug", "culprit", "old.json", "new.json")


def test_ctrl_c_ends_the_search_in_one_line(
    pytester: pytest.Pytester, search_that_waits: tuple[str, ...]
) -> None:
    pytester.makepyfile(
        waiting="""
        import os, signal, time

        def wait():
            os.kill(os.getppid(), signal.SIGINT)
            time.sleep(60)
        """
    )
    result = pytester.run(*search_that_waits)
    assert result.ret == 130
    assert result.stderr.lines == ["pytest-eventlet-debug: Ctrl-C"]


@pytest.mark.fault("command-told-to-end")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_no_process_and_no_directory_is_left_when_the_search_is_told_to_end(
    pytester: pytest.Pytester,
    search_that_waits: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    pytester.makepyfile(
        waiting="""
        import signal, subprocess, time

        def wait():
            signal.signal(signal.SIGTERM, lambda *_: None)
            alive = open("alive", "w")
            subprocess.Popen(["sleep", "60"], pass_fds=[alive.fileno()])
            alive.write("x")
            alive.flush()
            time.sleep(60)
        """
    )
    monkeypatch.setenv("TMPDIR", str(pytester.mkdir("scratch")))
    os.mkfifo("alive")
    process = subprocess.Popen(
        search_that_waits,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    with open("alive", "rb", buffering=0) as alive:
        assert alive.read(1) == b"x"
        process.send_signal(number)
        process.send_signal(number)  # as timeout(1) does, to its child and to its group
        assert process.communicate(timeout=60) == (None, b"")
        assert process.returncode == -number
        os.set_blocking(alive.fileno(), False)
        assert alive.read(1) == b""
    assert not list(Path("scratch").iterdir())


@pytest.mark.fault("command-killed")
@pytest.mark.parametrize("search_that_waits", [["poll"], ["poll", "selects"]], indirect=True)
def test_no_process_is_left_when_the_search_is_killed(
    pytester: pytest.Pytester, search_that_waits: tuple[str, ...]
) -> None:
    pytester.makepyfile(
        waiting="""
        import subprocess, sys

        def wait():
            sleeper = "import os, time; os.write(1, b'x'); time.sleep(60)"
            subprocess.run([sys.executable, "-c", sleeper], stdout=open("alive", "w"))
        """
    )
    os.mkfifo("alive")
    process = subprocess.Popen(search_that_waits)
    with open("alive", "rb", buffering=0) as alive:
        assert alive.read(1) == b"x"
        process.kill()
        process.wait()
        assert select.select([alive], [], [], 30)[0], "something is left that has it open"
        assert alive.read() == b""


def test_the_command_prints_the_culprit_and_its_exit_status_says_whether_there_is_one(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, packages: Path
) -> None:
    for version, name in (("1", "before"), ("2", "after")):
        monkeypatch.setenv("PYTHONPATH", install(packages, version))
        pytester.runpytest("--eventlet-hub=poll", f"--eventlet-save={name}.json")
    command = (sys.executable, "-m", "pytest_eventlet_debug", "culprit")
    result = pytester.run(*command, "before.json", "after.json", "--", "-p", "no:cacheprovider")
    assert result.ret == 0
    assert result.outlines[0].startswith("what makes 1 test fail (")
    assert result.outlines[1:] == ["  cul-guilty  1 -> 2"]

    result = pytester.run(*command, "before.json", "before.json")
    assert result.ret == 1
    assert "no test that passed before fails now" in result.stderr.str()

    result = pytester.run(*command, "before.json", "missing.json")
    assert result.ret == 2
    assert "there is no file missing.json" in result.stderr.str()
