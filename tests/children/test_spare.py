"""The next child, which starts while one runs."""

from __future__ import annotations

import os

import msgspec
import pytest
from runs import run

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

    def test_it(eventlet_hub):
        while eventlet_hub != "selects" and not waiting():
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


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a CPU to spare")
def test_it_has_run_no_code_of_the_users_and_is_started_anew_for_another_environment(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(TESTS)
    pytester.makeconftest(CONFTEST)
    result = run(pytester, HUBS)
    result.assert_outcomes(passed=3)
    lines = pytester.path.joinpath("notes").read_text().splitlines()
    epolls, poll, selects = (msgspec.json.decode(line) for line in lines)
    assert epolls["waiting"] == [poll["pid"]]
    assert poll["waiting"] != [selects["pid"]]
    assert (poll["told"], selects["told"]) == (None, "yes")
    assert selects["waiting"] == []
    imports = pytester.path.joinpath("imports").read_text().split()
    assert [int(pid) for pid in imports[1:]] == [each["pid"] for each in (epolls, poll, selects)]
