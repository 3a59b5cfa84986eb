"""The next child, which starts while one runs."""

from __future__ import annotations

import os
from types import ModuleType
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from runs import run

from pytest_eventlet_debug.children.start import has_installed_plugins

HUBS = "--eventlet-hub=epolls,poll,selects"

TESTS = """
    import json, os, time
    from pathlib import Path
    import psutil

    def note(**facts):
        with open("notes", "a") as file:
            print(json.dumps(facts), file=file)

    def waiting():
        others = psutil.Process(os.getppid()).children()
        return [each.pid for each in others if each.pid != os.getpid()]

    def loaded():
        return [int(pid) for pid in Path("plugins").read_text().split()]

    def test_it(eventlet_hub):
        deadline = time.monotonic() + 20
        while eventlet_hub != "selects" and not {*waiting()}.intersection(loaded()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        note(pid=os.getpid(), waiting=waiting(), told=os.environ.get("TOLD"))
"""

#: The controller hears of the test on poll when the one on selects waits.
CONFTEST = """
    import os
    with open("imports", "a") as file:
        print(os.getpid(), file=file)

    def pytest_runtest_logreport(report):
        if "[poll]" in report.nodeid and report.when == "teardown":
            os.environ["TOLD"] = "yes"
"""


PLUGIN = """
    import os
    with open("plugins", "a") as file:
        print(os.getpid(), file=file)
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a CPU to spare")
def test_it_has_loaded_plugins_alone_and_is_started_anew_for_another_environment(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(TESTS)
    pytester.makeconftest(CONFTEST)
    monkeypatch.setenv("PYTHONPATH", str(pytester.mkdir("site-packages")), prepend=os.pathsep)
    pytester.makepyfile(**{"site-packages/installed": PLUGIN})
    result = run(pytester, HUBS, "-p", "installed")
    result.assert_outcomes(passed=3)
    lines = pytester.path.joinpath("notes").read_text().splitlines()
    epolls, poll, selects = (msgspec.json.decode(line) for line in lines)
    assert epolls["waiting"] == [poll["pid"]]
    assert poll["waiting"] != [selects["pid"]]
    assert (poll["told"], selects["told"]) == (None, "yes")
    assert selects["waiting"] == []
    imports = pytester.path.joinpath("imports").read_text().split()
    assert [int(pid) for pid in imports[1:]] == [each["pid"] for each in (epolls, poll, selects)]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("/usr/lib/python3/dist-packages/pytest_x.py", True),
        ("/home/me/project/.venv/lib/python3.12/site-packages/pytest_x/plugin.py", True),
        (None, True),
        ("/home/me/project/pytest_own.py", False),
    ],
)
def test_plugins_in_development_are_code_of_the_users(file: str | None, expected: bool) -> None:
    plugin = ModuleType("plugin")
    plugin.__file__ = file
    found = [pytest, object(), plugin]
    config: Any = SimpleNamespace(pluginmanager=SimpleNamespace(get_plugins=lambda: found))
    assert has_installed_plugins(config) is expected
