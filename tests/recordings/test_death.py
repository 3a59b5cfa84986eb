"""A test that ends pytest itself: the helper is the only one left to tell of it."""

from __future__ import annotations

import contextlib
from pathlib import Path
import time

from needs import needs_root
from needs import needs_strace
from programs import wait_until_gone
import psutil
import pytest

from pytest_eventlet_debug.artifact_records import TestRecord
from pytest_eventlet_debug.artifact_records import read_test
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.report.data import read_run

pytestmark = [
    pytest.mark.fault("crash-alone"),
    needs_root,
    needs_strace,
]

DIES = """
    import os, subprocess, sys
    import eventlet, pytest

    @pytest.fixture
    def dies():
        yield
        os._exit(3)

    def test_passes():
        {passes}

    def test_ends(dies):
        global kept
        kept = [eventlet.listen(("127.0.0.1", 0))]
        for path in (b"closed", b"kept"):
            client = eventlet.connect(kept[0].getsockname())
            client.sendall(b"GET /" + path + b" HTTP/1.0\\r\\n\\r\\n")
            server, _ = kept[0].accept()
            kept += client, server
            if path == b"closed":
                server.close()
"""


def die(pytester: pytest.Pytester, option: str, passes: str = "pass") -> tuple[Path, TestRecord]:
    """Run the tests; return the directory of the one that ends pytest, and what it says."""
    pytester.makepyfile(test_x=DIES.format(passes=passes))
    pytester.runpytest_subprocess("--eventlet-hub=poll", option)
    (directory,) = Path("eventlet-debug").glob("*test_ends*")
    until = time.monotonic() + 30
    while (record := read_test(directory)) is None:  # the helper has yet to write it
        assert time.monotonic() < until
        time.sleep(0.01)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            if str(record.pid) in process.cmdline():
                wait_until_gone(process.pid)
    record = read_test(directory)
    assert record is not None
    return directory, record


def test_its_trace_tells_in_which_phase_it_ended(pytester: pytest.Pytester) -> None:
    _, record = die(pytester, "--strace")
    assert record.outcomes == {"teardown": "crashed"}
    assert list(record.phases) == ["setup", "call", "teardown"]
    begins, ends = zip(*record.phases.values(), strict=True)
    assert list(begins[1:]) == list(ends[:-1])
    assert all(end > begin for begin, end in record.phases.values())
    cell = read_run(Path("eventlet-debug")).cells["test_x.py::test_ends"]["poll"]
    assert cell.result.outcome == "crashed"
    assert cell.result.reason == "the process ended in its teardown"


def test_without_a_trace_it_has_ended_and_the_kernels_resets_are_not_told(
    pytester: pytest.Pytester,
) -> None:
    # Nor has a test ended, while the run goes on, that still runs.
    list_runs = """
        command = [sys.executable, "-m", "pytest_eventlet_debug", "list"]
        listed = subprocess.run(command, capture_output=True, text=True).stdout
        assert "  poll  no tests  " in listed"""
    directory, record = die(pytester, "--pcap", list_runs)
    assert (record.outcomes, record.phases) == ({"call": "crashed"}, {})
    (before,) = Path("eventlet-debug").glob("*test_passes*/test.json")
    assert '"call": "passed"' in before.read_text()
    found = findings_file.read(directory)
    assert found is not None
    (told,) = (each.title for each in found.findings)
    assert told.endswith("GET /closed unanswered")
