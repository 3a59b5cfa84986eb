"""A timeline told so that one can read it."""

from __future__ import annotations

from pytest_eventlet_debug.recordings import story
from pytest_eventlet_debug.recordings import timeline_text as text
from pytest_eventlet_debug.recordings.rows import Timeline
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.timeline import Trace

RUNNER = "_pytest/capture.py:5 in suspend, from pytest"
SERVE = "socket.py:294 in accept, from test_x.py:7 in serve"
HUB = "eventlet/hubs/epolls.py:31 in do_poll"


def told(*calls: tuple[str, str], raw: bool = False) -> list[str]:
    """Return the story of calls, each with its line of Python, without times."""
    trace = Trace()
    lines = []
    for number, (call, at) in enumerate(calls):
        function = "import" if " (import)" in at else FUNCTIONS.get(call.partition("(")[0])
        mark = f"/.eventlet-debug/line/{function}/{at.replace(' (import)', '')}"
        if at:
            lines.append(f'7 1.{number:04} access("{mark}", F_OK) = -1 ENOENT (No) <0.000001>\n')
        lines.append(f"7 1.{number:04} {call} <0.000010>\n")
    trace.take(parse(lines))
    shown = text.lines(Timeline("", trace.rows(), []), raw=raw)
    return [line.strip().partition(" <0.000010>")[0].partition(" 7 ")[2] or line for line in shown]


FUNCTIONS = {
    "accept4": "_socket.socket._accept",
    "close": "_socket.socket.close",
    "dup2": "posix.dup2",
    "epoll_wait": "select.epoll.poll",
    "write": "posix.write",
}


def test_what_pytest_the_plugin_and_the_allocator_do_is_left_out() -> None:
    calls = [
        ("dup2(5, 1) = 1", RUNNER),
        ("mmap(NULL, 16384) = 0x7f00", ""),
        ("clock_gettime(CLOCK_THREAD_CPUTIME_ID, {tv_sec=0, tv_nsec=7}) = 0", ""),
        ('sendto(500<UNIX:[1->2]>, "[6]", 3, 0, NULL, 0) = 3', ""),
        ('memfd_create("eventlet-debug", MFD_CLOEXEC) = 15</memfd:eventlet-debug>(deleted)', ""),
        ('write(15</memfd:eventlet-debug>(deleted), "{\\332", 2) = 2', ""),
        ("close(14<TCP:[127.0.0.1:80]>) = 0", "socket.py:497 in _real_close, from pytest"),
        ('write(1, "x", 1) = 1', "test_x.py:3 in test_x"),
    ]
    assert told(*calls)[:2] == ["close(14<TCP:[127.0.0.1:80]>) = 0", 'write(1, "x", 1) = 1']
    assert told(*calls)[2] == (
        "not shown: 4 calls of pytest and of this plugin and 2 of the memory allocator, of clocks "
        "and of locks; --raw shows all"
    )
    assert len(told(*calls, raw=True)) == 8


def test_an_import_is_one_line_with_the_modules_it_read() -> None:
    at = "test_x.py:3 in <module> (import)"
    lib = "/usr/lib/python3.11"
    rows = told(
        (f'newfstatat(AT_FDCWD, "{lib}", {{st_mode=S_IFDIR|0755}}, 0) = 0', at),
        (f'openat(AT_FDCWD, "{lib}/__pycache__/wave.cpython-311.pyc", O_RDONLY) = 3<w>', at),
        (f'read(3<{lib}/__pycache__/wave.cpython-311.pyc>, "x", 9) = 1', at),
        # Where nothing is marked the paths tell.
        (f'openat(AT_FDCWD, "{lib}/lib-dynload/_x.cpython-311-x86_64-linux-gnu.so", 0) = 3', ""),
        ('write(1, "x", 1) = 1', "test_x.py:4 in <module>"),
    )
    assert rows[0].startswith("import of wave, _x: 4 calls")
    assert rows[1:] == ['write(1, "x", 1) = 1']


def test_what_repeats_is_told_once_with_its_count() -> None:
    turn = [
        ("epoll_wait(5, [], 1, 0) = 0", HUB),
        ("accept4(-1, 0x1, [16], 0) = -1 EBADF (Bad file descriptor)", SERVE),
    ]
    rows = told(*turn * 50, ('write(1, "x", 1) = 1', "test_x.py:4 in test"))
    assert rows[0].startswith("epoll_wait(5, [], 1, 0) = 0")
    assert rows[1].startswith("accept4(-1, 0x1, [16], 0) = -1 EBADF (Bad file descriptor)")
    assert rows[2].startswith("             ^ these 2 rows 50 times, until ")
    assert len(rows) == 4
    again = told(*turn[1:] * 3)
    assert len(again) == 1


def test_long_data_is_cut_and_addresses_are_written_as_usual() -> None:
    sockaddr = '{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}'
    assert (
        story.shortened(f"connect(5, {sockaddr}, 16) = 0") == "connect(5, {127.0.0.1:80}, 16) = 0"
    )
    data = "x" * 63 + r"\r\n" + "y" * 40
    assert story.shortened(f'write(1, "{data}", 105) = 105') == (
        'write(1, "' + "x" * 63 + r"\r" + '"..., 105) = 105'
    )
