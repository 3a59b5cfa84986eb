"""One row after the other: phases, calls, packets, signals, threads."""

from __future__ import annotations

from collections.abc import Callable
import gzip
import json
import os
from pathlib import Path
import resource
import shutil
import subprocess
import sys
from typing import Any

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from pytest_eventlet_debug import cli
from pytest_eventlet_debug.recordings import packets
from pytest_eventlet_debug.recordings import pcapng
from pytest_eventlet_debug.recordings import perfetto
from pytest_eventlet_debug.recordings import timeline_text as text
from pytest_eventlet_debug.recordings.attribution import Attribution
from pytest_eventlet_debug.recordings.attribution import Call
from pytest_eventlet_debug.recordings.packets import Dissected
from pytest_eventlet_debug.recordings.pcapng import Packet
from pytest_eventlet_debug.recordings.rows import Row
from pytest_eventlet_debug.recordings.rows import Timeline
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.timeline import Trace
from pytest_eventlet_debug.recordings.timeline import explain
from pytest_eventlet_debug.recordings.timeline import in_order
from pytest_eventlet_debug.recordings.timeline import read_timeline

CLIENT = "5<TCP:[127.0.0.1:1000->127.0.0.1:2000]>"
TRACE = f"""\
10 1.000100 access("/.eventlet-debug/phase/1000000000/call/a::b", F_OK) = -1 ENOENT (No) <0.000009>
10 1.000200 access("/.eventlet-debug/greenlet/2/client", F_OK) = -1 ENOENT (No) <0.000009>
10 1.000300 write({CLIENT}, "ab", 2) = 2 <0.000010>
10 1.000400 clone3({{flags=CLONE_VM|CLONE_THREAD}}, 88) = 11 <0.000010>
11 1.000450 close(-1) = -1 EBADF (Bad file descriptor) <0.000010>
10 1.000500 vfork( <unfinished ...>
12 1.000550 execve("/bin/true", ["true"], 0x1) = 0 <0.000010>
12 1.000600 +++ exited with 3 +++
10 1.000650 <... vfork resumed>) = 12 <0.000150>
10 1.000700 --- SIGCHLD {{si_signo=SIGCHLD}} ---
10 1.000800 access("/.eventlet-debug/greenlet/1/hub", F_OK) = -1 ENOENT (No) <0.000009>
11 1.000900 accept4(3<TCP:[127.0.0.1:2000]>,  <unfinished ...>
"""


def segment(sequence: int, payload: bytes, flags: int = 0x10) -> bytes:
    tcp = b"\x03\xe8\x07\xd0" + sequence.to_bytes(4, "big") + bytes(4)
    tcp += bytes([0x50, flags]) + bytes(6) + payload
    ip = b"\x45\0" + (20 + len(tcp)).to_bytes(2, "big") + bytes(5) + b"\6\0\0" + b"\x7f\0\0\1" * 2
    return bytes(12) + b"\x08\0" + ip + tcp


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return the directory of a test that sent two bytes."""
    (tmp_path / "strace.txt").write_text(TRACE)
    packets = [(1_000_320_000, segment(7, b"ab")), (1_000_330_000, bytes(20))]
    (tmp_path / "capture.pcapng").write_bytes(
        pcapng.section("a::b", "us")
        + pcapng.interface("lo")
        + b"".join(pcapng.packet(time_ns, data, len(data)) for time_ns, data in packets)
    )
    facts = {
        "format": "pytest-eventlet-debug",
        "nodeid": "a::b",
        "directory": tmp_path.name,
        "outcomes": {"setup": "passed", "call": "failed"},
        "phases": {"setup": [1_000_000_000, 1_000_090_000], "call": [1_000_095_000, 1_002_000_000]},
    }
    (tmp_path / "test.json").write_text(json.dumps(facts))
    (tmp_path / "tasks.txt").write_text("Task-1")
    os.utime(tmp_path / "tasks.txt", ns=(1_001_000_000, 1_001_000_000))
    return tmp_path


def test_all_that_was_recorded_stands_in_time_order(directory: Path) -> None:
    assert list(text.lines(read_timeline(directory), raw=True)) == [
        "a::b",
        "    0.000000 phase   setup: passed (0.090 ms)",
        "    0.000095 phase   call: failed (1.905 ms)",
        "    0.000200 switch  10 greenthread 2:client runs",
        f'    0.000300 syscall 10 [2:client] write({CLIENT}, "ab", 2) = 2 <0.000010>',
        "    0.000320 packet  tcp 127.0.0.1:1000 -> 127.0.0.1:2000 ACK 2 bytes "
        "<- [2:client] write(fd 5), trace line 3, 20 us before",
        "    0.000330 packet  20 bytes, not TCP or UDP",
        "    0.000400 syscall 10 [2:client] clone3({flags=CLONE_VM|CLONE_THREAD}, 88) = 11 "
        "<0.000010>",
        "    0.000450 syscall 11 close(-1) = -1 EBADF (Bad file descriptor) <0.000010>",
        "    0.000500 syscall 10 [2:client] vfork() = 12 <0.000150>",
        '    0.000550 syscall 12 execve("/bin/true", ["true"], 0x1) = 0 <0.000010>',
        "    0.000600 thread  12 thread 12 exited with 3",
        "    0.000700 signal  10 SIGCHLD {si_signo=SIGCHLD}",
        "    0.000800 switch  10 greenthread 1:hub runs",
        "    0.000900 syscall 11 accept4(3<TCP:[127.0.0.1:2000]> <unfinished>",
        "    0.001000 dump    tasks.txt",
    ]


@pytest.mark.parametrize(
    ("later_ns", "shown"), [(20_000, "20 us"), (1_250_000, "1.25 ms"), (3_410_000_000, "3.41 s")]
)
def test_how_long_a_packet_left_after_its_call_is_told_in_a_unit_that_fits(
    later_ns: int, shown: str
) -> None:
    sent = Call(3, 1_000_300_000, 10, "write", 5, None)
    packet = Packet(1, sent.start_ns + later_ns, segment(7, b"ab"), 56, 1, None)
    [found] = packets.dissected([packet])
    comment = explain(found, sent, Attribution())
    assert comment == f"sent by {sent.name}(fd 5), trace line 3, {shown} before"
    row = Row(packet.time_ns, "packet", "tcp", cause=sent)
    [_, line] = text.lines(Timeline("a::b", [row], []), raw=True)
    assert line.endswith(f"trace line 3, {shown} before")


def test_a_thread_belongs_to_the_process_that_made_it(directory: Path) -> None:
    rows = read_timeline(directory).rows
    processes = {row.pid: row.process for row in rows if row.process is not None}
    assert processes == {10: 10, 11: 10, 12: 12}


def test_a_long_trace_keeps_its_beginning_and_end() -> None:
    trace = Trace(limit=4)
    trace.take(parse(f"7 {second}.000000 getpid() = 7 <0.1>\n" for second in range(10)))
    assert [row.time_ns // 10**9 for row in trace.rows()] == [0, 1, 8, 9]
    assert trace.left_out == 6


def test_what_is_missing_or_broken_is_mentioned(tmp_path: Path) -> None:
    assert read_timeline(tmp_path) == Timeline("", [], [])
    (tmp_path / "capture.pcapng").write_bytes(pcapng.section("", "") + b"abc")
    (tmp_path / "strace.txt").mkdir()
    trouble = read_timeline(tmp_path)
    assert trouble.begin_ns == 0
    unreadable, broken = text.lines(trouble)
    assert unreadable == "not complete: strace.txt: cannot be read: Is a directory"
    assert broken.startswith("not complete: capture.pcapng: The capture breaks off")


def test_lines_of_a_trace_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    trace = tmp_path / "strace.txt"
    call = "7 1000.000000 getpid() = 7 <0.1>\n"
    trace.write_text(f"{call} > /lib/libc.so.6(getpid+0xb) [0xe6a7b]\n{call}garbage\n{call}")
    *rows, problem = text.lines(read_timeline(tmp_path), raw=True)
    assert len(rows) == 3
    assert problem == ("not complete: strace.txt: line 4 is not in strace's format and is left out")
    trace.write_text("garbage\n" * 1500 + call)
    _, problem = text.lines(read_timeline(tmp_path), raw=True)
    assert problem == (
        "not complete: strace.txt: 1,500 lines are not in strace's format and are left out; "
        "the first is line 1"
    )


@given(st.lists(st.integers(0, 20), max_size=60))
def test_packets_are_put_in_order(times: list[int]) -> None:
    source = [
        Dissected(Packet(number, time, b"", 0, 1, None), None) for number, time in enumerate(times)
    ]
    assert [found.packet.time_ns for found in in_order(source)] == sorted(times)


@settings(max_examples=100)
@given(
    st.lists(
        st.one_of(st.sampled_from(TRACE.splitlines(keepends=True)), st.text(max_size=40)),
        max_size=12,
    )
)
def test_no_trace_is_too_strange_to_be_shown(lines: list[str]) -> None:
    trace = Trace()
    trace.take(parse(lines))
    timeline = Timeline("", trace.rows(), [])
    assert len(list(text.lines(timeline, raw=True))) == len(timeline.rows)
    assert len(list(text.lines(timeline))) <= 2 * len(timeline.rows)
    json.dumps(list(perfetto.events(timeline)))


def test_a_chrome_trace_has_what_its_format_demands(directory: Path) -> None:
    with open(directory / "timeline.json", "w") as file:
        perfetto.write(read_timeline(directory), file)
    whole = json.loads((directory / "timeline.json").read_text())
    assert whole["otherData"]["nodeid"] == "a::b"
    assert whole["otherData"]["begin_unix_ns"] == 1_000_000_000
    assert_is_a_chrome_trace(whole)
    named = {
        (event["name"], event["pid"]): event["args"]["name"]
        for event in whole["traceEvents"]
        if event["ph"] == "M" and "name" in event["args"]
    }
    assert {name for name, pid in named if pid == 0} == set()
    assert set(named.values()) >= {"test", "pytest", "true", "packets", "thread"}
    # They are shown.
    assert all(pid < 20 for _, pid in named)
    assert all(event["tid"] < 20 for event in whole["traceEvents"])
    slices = {event["name"]: event for event in whole["traceEvents"] if event["ph"] == "X"}
    assert (slices["call"]["ts"], slices["call"]["dur"]) == (95.0, 1905.0)
    assert slices["write"]["args"]["greenthread"] == "2:client"
    assert slices["2:client"]["dur"] == 600.0
    assert slices["close (failed)"]["tid"] == 11
    (start,) = (event for event in whole["traceEvents"] if event["ph"] == "s")
    (end,) = (event for event in whole["traceEvents"] if event["ph"] == "f")
    write = slices["write"]
    assert (start["pid"], start["tid"], start["ts"]) == (write["pid"], write["tid"], write["ts"])
    packet = slices["tcp 127.0.0.1:1000 -> 127.0.0.1:2000 ACK 2 bytes"]
    assert (end["pid"], end["tid"], end["ts"]) == (packet["pid"], packet["tid"], packet["ts"])


def assert_is_a_chrome_trace(whole: dict[str, Any]) -> None:
    """Check what the Trace Event Format demands and Perfetto's importer looks at."""
    assert whole["displayTimeUnit"] in ("ms", "ns")
    arrows: dict[int, list[str]] = {}
    for event in whole["traceEvents"]:
        assert event["ph"] in "XMisf"
        assert isinstance(event["name"], str)
        assert type(event["pid"]) is int
        assert type(event["tid"]) is int
        if event["ph"] == "M":
            if event["name"] == "process_sort_index":
                assert type(event["args"]["sort_index"]) is int
                continue
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            continue
        assert isinstance(event["ts"], (int, float))
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
        elif event["ph"] == "i":
            assert event["s"] in "gpt"
        else:
            arrows.setdefault(event["id"], []).append(event["ph"])
            assert event["ph"] == "s" or event["bp"] == "e"
    assert all(each == ["s", "f"] for each in arrows.values())


def test_the_command_prints_a_test_or_a_whole_run(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["timeline", str(directory), "--only", "phase", "--only=dump"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in printed[1:]] == ["phase", "phase", "dump"]
    (directory.parent / "run.json").write_text("{}")
    assert cli.main(["timeline", str(directory.parent)]) == 0
    assert capsys.readouterr().out.startswith("a::b\n    0.000000 phase   setup")


@pytest.mark.parametrize(("name", "open_file"), [("a.json", open), ("a.json.gz", gzip.open)])
def test_the_command_writes_one_test_for_perfetto(
    directory: Path, name: str, open_file: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = directory / name
    assert cli.main(["timeline", "--perfetto", str(directory), "-o", str(path)]) == 0
    with open_file(path, "rt") as file:
        text = file.read()
    assert cli.main(["timeline", "--perfetto", str(directory)]) == 0
    assert capsys.readouterr().out == text
    whole = json.loads(text)
    assert whole["otherData"]["nodeid"] == "a::b"
    assert [event["name"] for event in whole["traceEvents"] if event.get("cat") == "phase"]


def test_perfetto_shows_one_test_and_no_run(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = directory / "run"
    for name in ("one", "another"):
        (run / name).mkdir(parents=True)
        shutil.copy(directory / "test.json", run / name)
    (run / "run.json").write_text("{}")
    assert cli.main(["timeline", "--perfetto", str(run)]) == 2
    assert "--perfetto shows one test, but there are 2 here" in capsys.readouterr().err


def test_perfetto_says_where_it_cannot_write(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(directory / "missing" / "a.json")
    assert cli.main(["timeline", "--perfetto", str(directory), "-o", output]) == 2
    assert f"cannot write {output}: No such file or directory" in capsys.readouterr().err


@pytest.mark.usefixtures("unmeasured")  # coverage.py's file would be too large, too
@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_perfetto_leaves_no_part_of_a_file(directory: Path, tmp_path: Path, name: str) -> None:
    command = ["timeline", "--perfetto", directory, "-o", tmp_path / name]
    done = subprocess.run(
        # Without -B, Python may cache a part of a module, and fail to load that ever after.
        [sys.executable, "-B", "-m", "pytest_eventlet_debug", *command],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50)),
    )
    assert done.returncode == 2
    assert done.stderr == f"pytest-eventlet-debug: cannot write {tmp_path / name}: File too large\n"
    assert not (tmp_path / name).exists()


def test_a_file_to_write_to_is_refused_without_what_is_written(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["timeline", str(directory), "-o", str(tmp_path / "a.json")]) == 2
    assert capsys.readouterr() == ("", "pytest-eventlet-debug: -o FILE requires --perfetto\n")


def test_the_command_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["timeline", str(tmp_path)]) == 2
    assert f"{tmp_path} holds neither run.json nor a recording" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([])
    assert "COMMAND" in capsys.readouterr().err


def test_a_reader_may_stop_early(directory: Path) -> None:
    command = f"{sys.executable} -m pytest_eventlet_debug.cli timeline {directory} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("a::b\n", "")


@pytest.mark.usefixtures("unmeasured")
def test_reading_a_recording_needs_neither_pytest_nor_eventlet(directory: Path) -> None:
    code = (
        "import sys, pytest_eventlet_debug.cli, pytest_eventlet_debug.recordings.finisher\n"
        "import pytest_eventlet_debug.recordings.recorded\n"
        "pytest_eventlet_debug.cli.main(['timeline', sys.argv[1]])\n"
        "print({'pytest', 'eventlet', 'greenlet', 'psutil'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, directory]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("set()", "")


def test_a_row_before_the_first_phase_has_a_negative_time() -> None:
    rows = [Row(999_999_500, "dump", "x"), Row(1_000_000_000, "phase", "setup")]
    lines = list(text.lines(Timeline("", rows, [])))
    assert lines[0].split() == ["-0.000000", "dump", "x"]
