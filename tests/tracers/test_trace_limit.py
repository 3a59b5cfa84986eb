"""A trace that is too long: its beginning, its end, and a line that says what is missing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from needs import needs_strace
import pytest

from pytest_eventlet_debug.helper import trace_limit
from pytest_eventlet_debug.helper.trace_limit import TraceLimit
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Gap
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import Unparsed

LIMIT = 100_000


def line(number: int) -> str:
    return f"7 1.{number:06} lseek(3</tmp/x>, {number}, SEEK_SET) = {number} <0.000010>\n"


def test_the_middle_of_a_growing_file_is_freed_and_closed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "strace.txt"
    path.touch()
    limit = TraceLimit(str(path), LIMIT)
    with open(path, "w") as file:
        for number in range(20_000):
            file.write(line(number))
            if number % 500 == 0:
                file.flush()
                limit.look()
                assert path.stat().st_blocks * 512 < 1.3 * LIMIT + 500 * len(line(number))
    written = path.stat().st_size
    assert written > 10 * LIMIT
    limit.close()

    assert 0.9 * LIMIT < path.stat().st_size < 1.1 * LIMIT
    with open_log(path) as log:
        events = list(parse(log))
    (at,) = [place for place, event in enumerate(events) if type(event) is Gap]
    gap = events[at]
    assert isinstance(gap, Gap)
    assert not [event for event in events if type(event) is Unparsed]
    before = [event.value for event in events[:at] if type(event) is Syscall]
    after = [event.value for event in events[at + 1 :] if type(event) is Syscall]
    assert before == list(range(len(before)))
    assert after == list(range(20_000 - len(after), 20_000))
    missing = range(len(before), 20_000 - len(after))
    assert gap.size == sum(len(line(number)) for number in missing)


def test_a_file_within_the_limit_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "strace.txt"
    path.write_text("".join(map(line, range(1000))))
    before = path.read_bytes()
    path.touch()
    limit = TraceLimit(str(path), LIMIT)
    limit.look()
    limit.close()
    assert path.read_bytes() == before


def test_a_link_that_took_the_files_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"x" * 3 * LIMIT)
    (tmp_path / "strace.txt").symlink_to("other")
    with pytest.raises(OSError, match="symbolic link"):
        TraceLimit(str(tmp_path / "strace.txt"), LIMIT).look()
    assert (tmp_path / "other").read_bytes() == b"x" * 3 * LIMIT


def test_a_call_does_not_go_on_behind_a_gap_and_no_greenthread_is_claimed() -> None:
    lines = [
        '7 1.0 access("/.eventlet-debug/greenlet/2/serve", F_OK) = -1 ENOENT (No) <0.1>\n',
        "7 1.1 poll([{fd=3}], 1, -1 <unfinished ...>\n",
        "--- 5000 bytes are left out here: the trace is longer than its limit ---\n",
        "7 9.1 <... poll resumed>) = 1 <0.1>\n",
        "7 9.2 getpid() = 7 <0.1>\n",
    ]
    _, poll, gap, resumed, getpid = parse(lines)
    assert isinstance(poll, Syscall)
    assert (poll.state, poll.greenthread) == ("unfinished", "2:serve")
    assert gap == Gap(3, 5000)
    assert isinstance(resumed, Syscall)
    assert resumed.state == "resumed"
    assert isinstance(getpid, Syscall)
    assert getpid.greenthread is None


@pytest.mark.fault("storm")
@needs_strace
def test_a_storm_fills_no_disk_and_the_summary_says_what_is_left_out(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        f"""
        import os
        from pathlib import Path

        def test_storm(eventlet_artifacts):
            trace = eventlet_artifacts / "strace.txt"
            os.access("/first", 0)
            # Until the middle has been freed: the file is longer than what it occupies.
            while trace.stat().st_blocks * 512 + {LIMIT} > trace.stat().st_size:
                for _ in range(1000):
                    os.access("/storm", 0)
            os.access("/last", 0)
        """
    )
    done = pytester.runpytest("--strace", "--strace-limit=200K", "--eventlet-hub=poll")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["*MB in the middle of the trace are left out*--strace-limit*"])
    (path,) = (pytester.path / "eventlet-debug").glob("*/strace.txt")
    text = path.read_text()
    assert text.count('access("/first"') == text.count('access("/last"') == 1
    assert "bytes are left out here" in text
    found = findings_file.read(path.parent)
    assert found is not None
    assert {each.kind: each.certainty for each in found.findings} == {
        "storm": "cut trace",
        "long trace": "cut trace",
    }


def test_a_file_system_without_holes_is_named_as_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(trace_limit, "punch", refuse)
    path = tmp_path / "strace.txt"
    path.write_bytes(bytes(4 * LIMIT))
    with pytest.raises(OSError, match="--strace-limit is reached, and holes are not supported"):
        TraceLimit(str(path), LIMIT).look()
