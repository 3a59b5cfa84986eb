"""A full disk, a limit of file sizes, no descriptors left: said once, and nothing else breaks."""

from __future__ import annotations

import json
from pathlib import Path
import re
import resource
import subprocess
import sys

from needs import needs_root
from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings import packing
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.finisher import finish

BUSY = """
    import select
    import pytest

    @pytest.mark.parametrize("number", range(3))
    def test_polls(number):
        poll = select.poll()
        for _ in range(3000):
            poll.poll(0)
"""

#: Something that a trace shows, and then as much as is cut off.
CLOSED = """
    import os
    import select

    import eventlet
    import pytest

    def test_reads_what_another_closed():
        reader, writer = os.pipe()
        eventlet.spawn(os.close, reader).wait()
        with pytest.raises(OSError):
            os.read(reader, 1)
        os.close(writer)
        for _ in range(100):
            select.poll().poll(0)
"""

LIMIT = 1 << 16


def cut_lines(text: str) -> list[str]:
    """Return what a run's output says of recordings that are cut."""
    return [line for line in text.splitlines() if " cut " in line or "No space left" in line]


@pytest.mark.fault("trace-cut")
@needs_strace
def test_a_trace_that_a_limit_cuts_is_said_in_its_test_and_once_for_all(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(BUSY)
    result = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", "--strace", "-v"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT)),
    )
    assert "3 passed" in result.stdout
    (line,) = cut_lines(result.stdout)
    assert line.startswith("recordings of 3 tests are cut or missing since ")
    assert line.endswith(
        "(no room): strace (first test_a_trace_that_a_limit_cuts_is_said_in_its_"
        "test_and_once_for_all.py::test_polls[0])"
    )
    for record in (
        json.loads(path.read_text()) for path in Path().glob("eventlet-debug/*/test.json")
    ):
        assert record["errors"] == ["strace: strace.txt is cut: there was no room for all of it"]


@pytest.mark.fault("trace-cut")
@needs_strace
def test_what_is_found_in_a_cut_trace_is_no_certainty(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(CLOSED)
    pytester.runpytest("--strace").assert_outcomes(passed=1)
    (directory,) = (path.parent for path in Path().glob("eventlet-debug/*/test.json"))
    whole = findings_file.read(directory)
    assert whole is not None
    assert [each.certainty for each in whole.findings] == ["certain"]
    trace = directory / "strace.txt"
    with packing.open_to_read(trace) as file:
        trace.write_bytes(file.read()[:-1000].rstrip(b"\n"))
    finish(directory)
    cut = findings_file.read(directory)
    assert cut is not None
    assert [each.certainty for each in cut.findings] == ["cut trace"]


@needs_strace
@pytest.mark.fault("no-descriptors")
def test_a_test_that_has_every_descriptor_open_passes_and_so_do_those_after_it(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import os

        held = []

        def test_takes_all():
            try:
                while True: held.append(os.dup(1))
            except OSError: pass

        def test_next(): pass

        def test_gives_back():
            for number in held: os.close(number)

        def test_after(): pass
        """
    )
    result = pytester.runpytest("--strace", "--cprofile")
    result.assert_outcomes(passed=4)
    # The helper has descriptors, and strace stays from test to test.
    records = [json.loads(path.read_text()) for path in Path().glob("eventlet-debug/*/test.json")]
    assert [record["errors"] for record in records] == [[]] * 4
    assert all("profile.cprof" in record["artifacts"] for record in records)


@pytest.mark.fault("disk-full", "disk-full-no-directory")
@needs_strace
@needs_root
def test_a_full_disk_is_one_line_and_leaves_no_directory_behind(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(BUSY)
    Path("disk").mkdir()
    command = (
        "mount -t tmpfs -o size=200k none disk && "
        f"{sys.executable} -m pytest -v --strace --cprofile --pcap --eventlet-artifacts=disk/here; "
        "find disk/here -mindepth 1 -maxdepth 1 -type d | while read each; do "
        'test -s "$each/test.json" || echo stray "$each"; done; cat disk/here/*/test.json; '
        "ls disk/here/*/profile.cprof 2>/dev/null | wc -l >&2; "
        "ls -d disk/here/test_* 2>/dev/null | wc -l >&2"
    )
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True
    )
    assert "3 passed" in result.stdout, result.stderr
    assert "stray" not in result.stdout
    recordings, _, records = result.stdout.partition(" recordings ==")[2].partition("3 passed")
    cut, report = cut_lines(recordings)
    assert cut.startswith("recordings of ")
    *_, profiles, directories = result.stderr.split()
    assert ("cprofile" in cut) == (int(profiles) < 3)
    told = re.search(r"^artifacts of (\d+) tests?: ", recordings, re.MULTILINE)
    assert int(told[1] if told else 0) == int(directories)
    assert "No space left on device" in cut or "(no room)" in cut
    assert report.startswith("the report is not written: ")
    # Whoever is first to have no room says so: strace, or who copies what it writes, be it when
    # the test is over.
    assert "strace" in cut
    for error in re.findall(r"strace: .*(?=\")", records):
        assert re.search("cut: (there was no room for all of it|No space left on device)", error)


@pytest.mark.fault("disk-full")
@needs_root
def test_a_disk_that_is_full_when_a_test_is_over_is_the_same_line(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        from pathlib import Path
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_fills_the_disk(number):
            with pytest.raises(OSError), open(f"disk/{number}", "wb", buffering=0) as file:
                while file.write(bytes(1 << 12)):
                    pass
        """
    )
    Path("disk").mkdir()
    command = (
        "mount -t tmpfs -o size=200k none disk && "
        f"{sys.executable} -m pytest --eventlet-hub=selects,poll --cprofile "
        "--eventlet-artifacts=disk/here"
    )
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True
    )
    assert "4 passed" in result.stdout, result.stderr
    (line,) = (each for each in result.stdout.splitlines() if each.startswith("recordings of "))
    assert re.search(r"of 4 tests are cut or missing.* \(No space left.*\): cprofile \(first", line)
