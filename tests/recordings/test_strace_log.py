"""Every form of line that strace writes, and any that it doesn't."""

from __future__ import annotations

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings import packing
from pytest_eventlet_debug.recordings.strace_log import StraceLogError
from pytest_eventlet_debug.recordings.strace_log import ends
from pytest_eventlet_debug.recordings.strace_log import is_traced
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.strace_log import unescape
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Gap
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Signal
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import Unparsed


def events(*lines: str) -> list[Event]:
    return list(parse(f"{line}\n" for line in lines))


def only(*lines: str) -> Syscall:
    (event,) = events(*lines)
    assert isinstance(event, Syscall)
    return event


@pytest.mark.parametrize(
    ("text", "name", "args", "value", "errno", "duration_ns"),
    [
        ("close(3) = 0 <0.000009>", "close", "3", 0, None, 9_000),
        ("close(3)                    = 0", "close", "3", 0, None, None),
        ("getpid() = 9295 <0.000009>", "getpid", "", 9295, None, 9_000),
        ("brk(NULL)       = 0x55584e80e000 <0.1>", "brk", "NULL", 0x55584E80E000, None, 10**8),
        ("umask(022) = 022 <0.000001>", "umask", "022", 0o22, None, 1_000),
        (
            "accept4(-1, NULL, NULL, SOCK_CLOEXEC) = -1 EBADF (Bad file descriptor) <0.000010>",
            "accept4",
            "-1, NULL, NULL, SOCK_CLOEXEC",
            -1,
            "EBADF",
            10_000,
        ),
        ("ioctl(3, 0x1) = -1 ENOTSUPP (errno 524) <0.1>", "ioctl", "3, 0x1", -1, "ENOTSUPP", 10**8),
        ("close(3) = -1 EIO (Input/output error) (INJECTED)", "close", "3", -1, "EIO", None),
        ("exit_group(0) = ?", "exit_group", "0", None, None, None),
        ("exit(0 <unfinished ...>) = ?", "exit", "0", None, None, None),
        ("read(3, \"\", 5) = ? <unavailable>", "read", '3, "", 5', None, None, None),
        (
            "poll([], 0, 9) = ? ERESTART_RESTARTBLOCK (Interrupted by signal) <0.284569>",
            "poll",
            "[], 0, 9",
            None,
            "ERESTART_RESTARTBLOCK",
            284_569_000,
        ),
        (
            "pause() = ? ERESTARTNOHAND (To be restarted if no handler) <1.5>",
            "pause",
            "",
            None,
            "ERESTARTNOHAND",
            1_500_000_000,
        ),
        ("select(4, [3], NULL, NULL, {}) = 0 (Timeout)", "select", "4, [3], NULL, NULL, {}",
         0, None, None),
        (
            "poll([{fd=5<TCP:[1.1.1.1:1->2.2.2.2:2]>, events=POLLIN}], 1, 9) = 1"
            " ([{fd=5<TCP:[1.1.1.1:1->2.2.2.2:2]>, revents=POLLIN}]) <0.000123>",
            "poll",
            "[{fd=5<TCP:[1.1.1.1:1->2.2.2.2:2]>, events=POLLIN}], 1, 9",
            1,
            None,
            123_000,
        ),
        ('open("/a", 0) = 3</a> <0.000001>', "open", '"/a", 0', 3, None, 1_000),
        ('open("/a", 0) = 3</a>(deleted) <0.000001>', "open", '"/a", 0', 3, None, 1_000),
        ('open("/a", 0) = 3</a (deleted)> <0.000001>', "open", '"/a", 0', 3, None, 1_000),
        ('open("/dev/null", 0) = 3</dev/null<char 1:3>>', "open", '"/dev/null", 0', 3, None, None),
        (
            'open("/a) = 4 <0.5>", 0) = 3</a) = 4 \\740.5\\76> <0.000001>',
            "open",
            '"/a) = 4 <0.5>", 0',
            3,
            None,
            1_000,
        ),
        ('write(1, ") = 5 <0.1>", 11) = 11 <0.2>', "write", '1, ") = 5 <0.1>", 11', 11, None,
         200_000_000),
        ("fcntl(3, F_GETFL) = 0x802 (flags O_RDWR|O_NONBLOCK)", "fcntl", "3, F_GETFL", 0x802, None,
         None),
        ("syscall_0x1b3(0x1, 0x2) = -1 ENOSYS (Function not implemented)", "syscall_0x1b3",
         "0x1, 0x2", -1, "ENOSYS", None),
        ("restart_syscall(<... resuming interrupted poll ...>) = 0 <0.1>", "restart_syscall",
         "<... resuming interrupted poll ...>", 0, None, 10**8),
    ],
)  # fmt: skip
def test_a_whole_call_is_read_from_one_line(
    text: str, name: str, args: str, value: int | None, errno: str | None, duration_ns: int | None
) -> None:
    call = only(f"12345 1795404910.587778 {text}")
    assert call.pid == 12345
    assert call.start_ns == 1_795_404_910_587_778_000
    assert (call.line, call.state, call.greenthread) == (1, "returned", None)
    assert (call.name, call.args) == (name, args)
    assert (call.value, call.errno, call.duration_ns) == (value, errno, duration_ns)
    assert call.ret is not None
    assert "<0." not in call.ret


def test_the_return_text_is_kept_without_the_time_spent() -> None:
    assert only("7 1.5 accept4(5) = 6<TCP:[1]> <0.1>").ret == "6<TCP:[1]>"
    assert only("7 1.5 read(5) = -1 EIO (Bad) <0.1>").ret == "-1 EIO (Bad)"


@pytest.mark.parametrize("pid_column", ["7 ", "7     ", "7       "])
@pytest.mark.parametrize(
    ("stamp", "nanoseconds"),
    [("1.000002", 1_000_002_000), ("1.000000002", 1_000_000_002), ("1.002", 1_002_000_000)],
)
def test_time_may_have_any_precision_and_the_pid_any_padding(
    pid_column: str, stamp: str, nanoseconds: int
) -> None:
    assert only(f"{pid_column}{stamp} close(3) = 0").start_ns == nanoseconds


@pytest.mark.parametrize(
    ("begun", "resumed", "args"),
    [
        ("read(3,  <unfinished ...>", '<... read resumed>"ab", 9) = 2 <0.5>', '3, "ab", 9'),
        ("read(3, <unfinished ...>", '<... read resumed> "ab", 9) = 2 <0.5>', '3,"ab", 9'),
        ("read( <unfinished ...>", '<... read resumed>3, "ab", 9)   = 2 <0.5>', '3, "ab", 9'),
        ("read(3, 0x1, 9 <unfinished ...>", "<... read resumed>) = 2 <0.5>", "3, 0x1, 9"),
    ],
)
def test_an_interrupted_call_is_one_event_with_the_time_and_line_of_its_start(
    begun: str, resumed: str, args: str
) -> None:
    other, call = events(f"7 1.5 {begun}", "8 1.6 close(3) = 0", f"7 2.5 {resumed}")
    assert isinstance(call, Syscall)
    assert isinstance(other, Syscall)
    assert other.pid == 8
    assert (call.line, call.start_ns, call.state) == (1, 1_500_000_000, "returned")
    assert (call.name, call.args.replace(", ", ","), call.value) == (
        "read",
        args.replace(", ", ","),
        2,
    )
    assert call.duration_ns == 500_000_000


def test_a_call_that_began_before_strace_attached_is_called_resumed() -> None:
    call = only("7 2.5 <... epoll_wait resumed>[], 1, 9) = 0 <0.5>")
    assert (call.name, call.args, call.value, call.state) == (
        "epoll_wait",
        "[], 1, 9",
        0,
        "resumed",
    )


def test_a_call_whose_thread_ends_is_unfinished_and_comes_before_the_end() -> None:
    call, end = events(
        "7 1.5 futex(0x1, FUTEX_WAIT <unfinished ...>", "7 1.6 +++ exited with 3 +++"
    )
    assert isinstance(call, Syscall)
    assert (call.name, call.args, call.state) == ("futex", "0x1, FUTEX_WAIT", "unfinished")
    assert (call.value, call.ret, call.duration_ns) == (None, None, None)
    assert end == Exit(2, 7, 1_600_000_000, 3, None, None)


@pytest.mark.parametrize(
    "end",
    [
        [],
        ["7 2.0 close(1) = 0"],
        ["7 2.0 write(1 <unfinished ...>"],
        ["7 2.0 <... write resumed>) = 1"],
    ],
)
def test_a_call_that_never_returns_in_the_log_is_unfinished(end: list[str]) -> None:
    call = events("7 1.5 read(3,  <unfinished ...>", *end)[0]
    assert isinstance(call, Syscall)
    assert (call.line, call.name, call.state) == (1, "read", "unfinished")


@pytest.mark.parametrize(
    "lines",
    [
        ["7 1.5 kill(9, SIGINT <detached ...>"],
        ["7 1.5 kill( <unfinished ...>", "7 1.6 <... kill resumed>9, SIGINT <detached ...>"],
    ],
)
def test_the_call_in_which_strace_let_go_is_detached(lines: list[str]) -> None:
    call = only(*lines)
    assert (call.line, call.name, call.args, call.state) == (1, "kill", "9, SIGINT", "detached")


def test_a_call_that_strace_could_not_follow_is_unfinished() -> None:
    assert only("7 1.5 read(3, <ptrace(SYSCALL):No such process>").state == "unfinished"


@pytest.mark.parametrize(
    ("cut", "args"),
    [
        ("7 1.6 kill(123, SIGKILL", "123, SIGKILL"),
        ('7 1.6 kill("a) = 5 <0.1>', '"a) = 5 <0.1>'),
        ("7 1.6 kill(1) = 5", "1) = 5"),
        ("7 1.6 kill(", ""),
    ],
)
def test_a_last_line_without_its_end_is_a_truncated_call(cut: str, args: str) -> None:
    _, call = parse(["7 1.5 close(3) = 0\n", cut])
    assert isinstance(call, Syscall)
    assert (call.line, call.name, call.args, call.state) == (2, "kill", args, "truncated")
    assert call.value is None


def test_a_truncated_resumed_line_is_joined_to_its_start() -> None:
    (call,) = parse(["7 1.5 read(3,  <unfinished ...>\n", '7 1.6 <... read resumed>"ab'])
    assert isinstance(call, Syscall)
    assert (call.line, call.args, call.state) == (1, '3, "ab', "truncated")


def test_lines_without_newlines_are_read_alike() -> None:
    lines = ["7 1.5 close(3) = 0", "7 1.6 +++ exited with 0 +++"]
    assert list(parse(lines)) == events(*lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "--- SIGCHLD {si_signo=SIGCHLD, si_pid=1} ---",
            Signal(1, 7, 1_500_000_000, "SIGCHLD", "{si_signo=SIGCHLD, si_pid=1}"),
        ),
        ("--- stopped by SIGSTOP ---", Signal(1, 7, 1_500_000_000, "SIGSTOP", "stopped")),
        ("+++ exited with 255 +++", Exit(1, 7, 1_500_000_000, 255, None, None)),
        ("+++ killed by SIGKILL +++", Exit(1, 7, 1_500_000_000, None, "SIGKILL", None)),
        (
            "+++ killed by SIGSEGV (core dumped) +++",
            Exit(1, 7, 1_500_000_000, None, "SIGSEGV", None),
        ),
        (
            "+++ superseded by execve in pid 9 +++",
            Exit(1, 7, 1_500_000_000, None, None, 9),
        ),
    ],
)
def test_signals_and_ends_are_events(text: str, expected: Event) -> None:
    assert events(f"7 1.5 {text}") == [expected]


def test_an_execve_of_another_thread_returns_under_the_id_of_the_process() -> None:
    end, call = events(
        '9 1.5 execve("/bin/true", [],  <unfinished ...>',
        "7 1.6 +++ superseded by execve in pid 9 +++",
        "7 1.7 <... execve resumed>0x1) = 0 <0.2>",
    )
    assert isinstance(end, Exit)
    assert isinstance(call, Syscall)
    assert (call.line, call.pid, call.value, call.state) == (1, 7, 0, "returned")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "strace: Process 7 attached",
        "7 1.5",
        "7 close(3) = 0",
        "1.5 close(3) = 0",
        "7 1.5 close(3) = zero",
        "7 1.5 close(3) = 3> <0.1>",
        "7 1.5 --- nothing",
        "7 1.5 +++ vanished +++",
        "7 1.5 close(3) = " + "9" * 5000,
    ],
)
def test_a_line_of_unknown_form_is_kept_as_unparsed(text: str) -> None:
    first, bad, last = events("7 1.0 close(3) = 0", text, "7 2.0 close(3) = 0")
    assert bad == Unparsed(2, text)
    assert isinstance(first, Syscall)
    assert isinstance(last, Syscall)


def test_a_phase_mark_is_a_phase_with_the_node_id_unescaped() -> None:
    (event,) = events(
        '7 1.5 access("/.eventlet-debug/phase/1499999000/call/tests/a.py::x[\\"\\303\\251\\n\\\\]",'
        " F_OK) = -1 ENOENT (No such file or directory) <0.1>"
    )
    assert event == Phase(1, 7, 1_500_000_000, "call", 'tests/a.py::x["é\n\\]')


ENOENT = "F_OK) = -1 ENOENT (No such file or directory) <0.000009>"


@pytest.mark.parametrize(
    "mark",
    [
        'access("/.eventlet-debug/greenlet/3/serve", ',
        'faccessat(AT_FDCWD, "/.eventlet-debug/greenlet/3/serve", ',
        'faccessat2(AT_FDCWD</home/x>, "/.eventlet-debug/greenlet/3/serve", ',
    ],
)
def test_calls_after_a_greenlet_mark_carry_its_label_in_that_thread_only(mark: str) -> None:
    seen = events(
        "7 1.0 close(3) = 0",
        f"7 1.1 {mark}{ENOENT}",
        "7 1.2 close(3) = 0",
        "8 1.3 close(3) = 0",
        "7 1.4 read(3 <unfinished ...>",
        "7 1.5 <... read resumed>) = 0",
    )
    assert seen[1] == Switch(2, 7, 1_100_000_000, "3:serve")
    assert [e.greenthread for e in seen if isinstance(e, Syscall)] == [
        None,
        "3:serve",
        None,
        "3:serve",
    ]


def test_a_call_carries_the_line_of_python_that_made_it() -> None:
    line = "/.eventlet-debug/line/"
    events = list(
        parse(
            [
                mark("7", "/.eventlet-debug/greenlet/1/hub"),
                mark("7", f"{line}select.epoll.poll/a/epolls.py:31 in wait"),
                "7 1.000001 epoll_wait(5, [], 9, 0) = 0 <0.000009>\n",
                "7 1.000002 close(6) = 0 <0.000009>\n",
                mark("7", "/.eventlet-debug/greenlet/2/serve"),
                "7 1.000003 epoll_wait(5, [], 9, 0) = 0 <0.000009>\n",
                mark("7", f"{line}_socket.socket.send/socket.py:3 in send, from x.py:1 in f"),
                "7 1.000004 sendto(6, <unfinished ...>\n",
                "8 1.000005 sendto(6) = 1 <0.000009>\n",
                '7 1.000006 <... sendto resumed>"x", 1) = 1 <0.000009>\n',
                mark("7", "/.eventlet-debug/greenlet/1/hub"),
                "7 1.000007 epoll_wait(5, [], 9, 0) = 0 <0.000009>\n",
                mark("7", f"{line}not.of.this.version/x.py:1 in f"),
                "7 1.000008 epoll_wait(5, [], 9, 0) = 0 <0.000009>\n",
            ]
        )
    )
    hub, sent = "a/epolls.py:31 in wait", "socket.py:3 in send, from x.py:1 in f"
    calls = [(event.name, event.at) for event in events if isinstance(event, Syscall)]
    assert calls == [
        ("epoll_wait", hub),
        ("close", None),
        ("epoll_wait", None),
        ("sendto", None),
        ("sendto", sent),
        ("epoll_wait", hub),
        ("epoll_wait", None),
    ]
    assert len(events) == len(calls) + 3


def mark(pid: str, path: str) -> str:
    return f'{pid} 1.000000 access("{path}", F_OK) = -1 ENOENT (No) <0.000009>\n'


def test_an_interrupted_mark_is_a_mark() -> None:
    switch, call = events(
        '7 1.0 access("/.eventlet-debug/greenlet/0/hub",  <unfinished ...>',
        f"7 1.1 <... access resumed>{ENOENT}",
        "7 1.2 close(3) = 0",
    )
    assert switch == Switch(1, 7, 1_000_000_000, "0:hub")
    assert isinstance(call, Syscall)
    assert call.greenthread == "0:hub"


@pytest.mark.parametrize(
    "line",
    ['7 1.1 execve("/bin/true", [], []) = 0', "7 1.1 +++ exited with 0 +++"],
)
def test_a_label_ends_with_its_program_or_thread(line: str) -> None:
    mark = f'7 1.0 access("/.eventlet-debug/greenlet/0/hub", {ENOENT}'
    call = events(mark, line, "7 1.2 close(3) = 0")[-1]
    assert isinstance(call, Syscall)
    assert call.greenthread is None


@pytest.mark.parametrize(
    "path", ["/etc/ld.so.preload", "/.eventlet-debug/other/1", "/x/.eventlet-debug/greenlet/1/a"]
)
def test_other_access_calls_stay_calls(path: str) -> None:
    assert only(f'7 1.0 access("{path}", {ENOENT}').errno == "ENOENT"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        (r"\303\251", "é"),
        (r"\t\n\r\v\f\a\b", "\t\n\r\v\f\a\b"),
        (r"\"\\", '"\\'),
        (r"\0a\1", "\0a\1"),
        (r"\x41\x7a", "Az"),
        (r"\377", "\udcff"),
    ],
)
def test_strings_are_unescaped_as_strace_escapes_them(text: str, expected: str) -> None:
    assert unescape(text) == expected


def test_a_log_that_cannot_be_opened_is_a_strace_log_error(tmp_path: Path) -> None:
    with pytest.raises(StraceLogError, match="cannot be read: No such file"):
        open_log(tmp_path / "missing.txt")
    with pytest.raises(StraceLogError, match="directory"):
        open_log(tmp_path)


def test_a_log_with_any_bytes_can_be_read(tmp_path: Path) -> None:
    log = tmp_path / "strace.txt"
    log.write_bytes(b"\xff\xfe\r\n7 1.5 close(3) = 0\n\x00\xe9")
    with open_log(log) as lines:
        bad, call, cut = parse(lines)
    assert (bad, cut) == (Unparsed(1, "\udcff\udcfe\r"), Unparsed(3, "\x00\udce9"))
    assert isinstance(call, Syscall)


def test_a_closed_log_is_a_strace_log_error(tmp_path: Path) -> None:
    (tmp_path / "strace.txt").write_text("")
    lines = open_log(tmp_path / "strace.txt")
    lines.close()
    with pytest.raises(StraceLogError):
        list(parse(lines))


FRAGMENTS = st.sampled_from(
    [
        "7 ", "8 ", "1.5 ", "1795404910.587778 ", "read(", "access(", "execve(", "3", ", ", '"',
        "\\", "\\303", ")", ") = ", " = ", "0", "-1", "?", "0x", " EBADF", " (Timeout)", " <0.1>",
        " <unfinished ...>", " <detached ...>", "<... read resumed>", "<... access resumed>",
        "--- ", " ---", "+++ ", " +++", "exited with 3", "superseded by execve in pid 8",
        '"/.eventlet-debug/greenlet/3/serve"', '"/.eventlet-debug/phase/1/call/a"', "\n", "\r",
        "<TCP:[1->2]>", "٣", "\udcff",
    ]
)  # fmt: skip
LINES = st.lists(
    st.one_of(st.text(max_size=40), st.lists(FRAGMENTS, max_size=14).map("".join)), max_size=12
)


@settings(max_examples=400)
@given(LINES, st.booleans())
def test_no_line_makes_the_parser_raise_or_disappears(lines: list[str], newlines: bool) -> None:
    log = [line.replace("\n", "") + "\n" * newlines for line in lines]
    seen = list(parse(log))
    assert len(seen) <= len(log)
    numbers = [event.line for event in seen]
    assert sorted(set(numbers)) == sorted(numbers)
    joined = sum("resumed" in line or "superseded" in line for line in log)
    assert len(seen) + joined >= len(log)


def strace(log: Path, program: str, *options: str) -> list[Event]:
    base = ["strace", "-f", "-T", "-yy", "-s", "256", "-o", str(log), *(options or ["-ttt"])]
    subprocess.run([*base, sys.executable, "-c", program], timeout=60, check=False)
    with open_log(log) as lines:
        return list(parse(lines))


THREADS = """
import os, subprocess, sys, threading, time
def work():
    for _ in range(50):
        os.sched_yield(); time.sleep(0.0001)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
subprocess.run([sys.executable, "-c", "pass"])
os.write(os.open(os.devnull, os.O_WRONLY), b") = 5 <0.1>\\n\\xff")
for thread in threads: thread.join()
"""


@needs_strace
@pytest.mark.parametrize(
    "options", [("-ttt",), ("--absolute-timestamps=format:unix,precision:ns",)]
)
def test_a_real_trace_of_threads_and_children_has_no_unparsed_line(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    seen = strace(tmp_path / "strace.txt", THREADS, *options)
    assert [event for event in seen if isinstance(event, Unparsed)] == []
    calls = [event for event in seen if isinstance(event, Syscall)]
    assert len({call.pid for call in calls}) >= 10
    yields = [call for call in calls if call.name == "sched_yield"]
    assert len(yields) == 400
    assert any(r") = 5 <0.1>\n\377" in call.args and call.value == 13 for call in calls)
    assert {call.state for call in calls} <= {"returned", "unfinished"}


@needs_strace
def test_a_real_trace_of_a_process_that_is_killed_ends_with_the_signal(tmp_path: Path) -> None:
    seen = strace(tmp_path / "strace.txt", "import os; os.kill(os.getpid(), 11)")
    assert isinstance(seen[-1], Exit)
    assert seen[-1].signal == "SIGSEGV"
    assert isinstance(seen[-2], Signal)


@needs_strace
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_real_trace_that_is_cut_short_has_no_unparsed_line(
    tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "strace.txt"
    program = "import os\nprint(flush=True)\nwhile True: os.getppid()"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    tracer = None
    try:
        assert process.stdout is not None
        process.stdout.readline()
        command = ["strace", "-f", "-ttt", "-T", "-yy", "-o", str(log), "-p", str(process.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert tracer.stderr is not None
        assert b" attached" in tracer.stderr.readline()
        give_up = time.monotonic() + 30
        while log.stat().st_size < 10_000 and time.monotonic() < give_up:
            os.sched_yield()
        tracer.send_signal(number)
        tracer.wait(timeout=30)
        tracer.stderr.close()
    finally:
        for started in filter(None, (process, tracer)):
            started.kill()
            started.wait()
        if process.stdout is not None:
            process.stdout.close()
    with open_log(log) as lines:
        seen = list(parse(lines))
    assert len(seen) > 50
    assert [event for event in seen if isinstance(event, Unparsed)] == []


def test_a_long_log_is_packed_and_read_as_before(tmp_path: Path) -> None:
    log = tmp_path / "strace.txt"
    line = "7 1.000000 close(3) = 0 <0.000001>\n"
    log.write_text(line * 100)
    packing.pack(log, 10_000)
    assert log.exists()
    log.write_text(line * 10_000)
    packing.pack(log, 10_000)
    assert [path.name for path in tmp_path.iterdir()] == ["strace.txt.gz"]
    packed = tmp_path / "strace.txt.gz"
    assert packed.stat().st_size < 10_000
    assert is_traced(tmp_path)
    assert packing.size(log) == len(line) * 10_000
    with open_log(log) as lines:
        assert sum(1 for _ in parse(lines)) == 10_000
    assert "".join(ends(log, 100)) == line * 10_000
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(StraceLogError, match="cannot be read"), open_log(log) as lines:
        list(parse(lines))


def test_of_a_long_log_the_ends_are_read_and_the_middle_is_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "strace.txt"
    lines = [f"7 1000.{number:06} close({number}) = 0 <0.000001>\n" for number in range(1000)]
    path.write_text("".join(lines))
    assert list(ends(path, 1 << 20)) == lines
    first, last = lines[0], lines[-1]
    for hole in (b"", bytes(20_000)):
        text = path.read_bytes()
        path.write_bytes(text[:9000] + hole + text[9000:])
        read = list(ends(path, 30_000))
        events = list(parse(read))
        (gap,) = [event for event in events if type(event) is Gap]
        assert (read[0], read[-1]) == (first, last)
        assert {type(event) for event in events} == {Syscall, Gap}
        kept = sum(len(line) for line in read if "left out" not in line)
        assert gap.size == path.stat().st_size - kept
