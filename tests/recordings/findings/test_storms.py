"""Storms in the traces of real programs, and in hand-made ones for the borders."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
import re
import subprocess
import sys
import textwrap
import time

from needs import needs_strace
import pytest
from speed import depends_on_speed

from pytest_eventlet_debug.recordings.findings import storms
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.protocol import ANY_CALL
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.findings.storm_text import Storm
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Syscall

Find = Callable[..., list[Finding]]
Storms = Callable[..., list[Storm]]

PREAMBLE = """
import eventlet, eventlet.hubs, greenlet, posix
numbers = {}
def label(event, args):
    name = "hub" if args[1] is eventlet.hubs.get_hub().greenlet else "serve"
    number = numbers.setdefault(args[1], len(numbers))
    posix.access(f"/.eventlet-debug/greenlet/{number}/{name}", 0)
"""


def find_storms(events: Iterable[Event]) -> list[Storm]:
    """Return the storms among events, the longest first."""
    trace = Trace(About())
    detector = storms.Storms(trace)
    handlers, followers = detector.handlers(), trace.handlers()
    for event in events:
        if type(event) is Syscall:
            handlers[ANY_CALL](event)
            if event.name in followers:
                followers[event.name](event)
        else:
            handlers[ANY_OTHER](event)
    return detector.storms()


@pytest.fixture
def storms_of(tmp_path: Path) -> Storms:
    """Run a program under strace and return the storms of its trace."""

    def run(program: str, hub: str = "epolls") -> list[Storm]:
        script = tmp_path / "program.py"
        script.write_text(PREAMBLE + textwrap.dedent(program))
        log = tmp_path / "strace.txt"
        strace = ["strace", "-f", "-ttt", "-T", "-yy", "-s", "256", "-o", str(log)]
        subprocess.run(
            [*strace, "env", f"EVENTLET_HUB={hub}", sys.executable, str(script)],
            check=True,
            timeout=120,
        )
        with open_log(log) as lines:
            return find_storms(parse(lines))

    return run


ACCEPT_LOOP = """
import errno, os, socket
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
listener.close()
def serve():
    while serving:
        try:
            listener.accept()
        except OSError as error:
            assert error.errno == errno.EBADF
        eventlet.sleep(0)
serving = True
def stop():
    global serving
    serving = False
eventlet.spawn_after(1, stop)
server = eventlet.spawn(serve)
greenlet.settrace(label)
server.wait()
"""


@depends_on_speed
@needs_strace
def test_accepting_on_a_closed_listener_is_a_storm_of_ebadf_on_the_asyncio_hub(
    storms_of: Storms,
) -> None:
    (storm,) = storms_of(ACCEPT_LOOP, hub="asyncio")
    assert storm.syscall == "accept4(-1) = -1 EBADF"
    assert "epoll_wait = 0" in storm.pattern
    assert storm.greenthread is not None
    assert storm.greenthread.endswith(":serve")
    assert storm.count >= 60
    assert 0.1 < storm.duration < 10


@depends_on_speed
@needs_strace
def test_accepting_on_a_closed_listener_is_a_storm_of_ebadf_on_the_epolls_hub(
    storms_of: Storms,
) -> None:
    (storm,) = storms_of(ACCEPT_LOOP, hub="epolls")
    assert storm.syscall == "accept4(-1) = -1 EBADF"


SLEEP_ZERO = """
listener = eventlet.listen(("127.0.0.1", 0))
eventlet.spawn(listener.accept)
def wait():
    for _ in range(TURNS):
        eventlet.sleep(0)
greenlet.settrace(label)
eventlet.spawn(wait).wait()
"""


@depends_on_speed
@needs_strace
@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_sleeping_zero_ten_thousand_times_is_a_spin_of_that_greenthread(
    storms_of: Storms, hub: str
) -> None:
    # Without a listener the epolls hub makes no syscall at all in such a loop.
    (storm,) = storms_of(SLEEP_ZERO.replace("TURNS", "10_500"), hub=hub)
    assert storm.kind == "spin"
    assert storm.pattern == ("epoll_wait = 0",)
    assert storm.describe().startswith(f"greenthread {storm.greenthread} yielded ")


ALONE = SLEEP_ZERO.replace("eventlet.spawn(listener.accept)", "")


@needs_strace
@pytest.mark.parametrize("hub", ["epolls", "poll", "selects"])
def test_sleeping_zero_is_a_spin_where_the_hub_need_not_poll(storms_of: Storms, hub: str) -> None:
    (storm,) = storms_of(ALONE.replace("TURNS", "10_500"), hub=hub)
    assert storm.kind == "spin"
    assert 10_000 <= storm.count <= 10_600
    assert storm.describe().startswith(f"greenthread {storm.greenthread} yielded 10,5")


@needs_strace
def test_sleeping_zero_less_often_or_by_turns_is_none(storms_of: Storms) -> None:
    assert storms_of(ALONE.replace("TURNS", "9_500")) == []
    in_turns = ALONE.replace("eventlet.spawn(wait).wait()", "eventlet.spawn(wait); wait()")
    assert storms_of(in_turns.replace("TURNS", "10_500")) == []


@needs_strace
@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_sleeping_zero_two_thousand_times_is_progress(storms_of: Storms, hub: str) -> None:
    assert storms_of(SLEEP_ZERO.replace("TURNS", "2_000"), hub=hub) == []


@needs_strace
def test_tasks_that_give_way_nine_thousand_times_are_progress(storms_of: Storms) -> None:
    program = """
    import asyncio
    async def give_way():
        for _ in range(9_000):
            await asyncio.sleep(0)
    greenlet.settrace(label)
    eventlet.spawn(asyncio.run, give_way()).wait()
    """
    assert storms_of(program) == []


@depends_on_speed
@needs_strace
@pytest.mark.parametrize("hub", ["epolls", "asyncio", "poll", "selects"])
@pytest.mark.parametrize("afterwards", ["", "os.close(reader)"])
@pytest.mark.usefixtures("unmeasured")  # coverage.py's file would get the number
def test_a_hub_that_wakes_nobody_names_the_event_and_who_registered_it(
    storms_of: Storms, hub: str, afterwards: str
) -> None:
    program = f"""
    import os
    reader, writer = os.pipe()
    os.write(writer, b"x")
    def register():
        eventlet.sleep(0.05)  # the hub polls, and runs nobody else after it
        # As a listener that forgets to take the byte.
        eventlet.hubs.get_hub().add("read", reader, lambda fd: None, lambda: None, lambda: None)
    greenlet.settrace(label)
    eventlet.spawn(eventlet.hubs.trampoline, os.pipe()[0], read=True)
    eventlet.spawn(register)
    eventlet.sleep(0.45)
    {afterwards}
    """
    (storm,) = storms_of(program, hub=hub)
    assert storm.kind == "hub busy"
    (caught,) = storm.caught
    assert not caught.served
    if hub in ("poll", "selects"):  # the kernel is told of nothing before they wait
        assert re.search(
            rf"woke nobody: (POLLIN|in) on {caught.fd}<pipe:\[\d+\]>, polled for since line "
            rf"{caught.line}, after greenthread \d+:serve had run, nobody acts on it$",
            storm.describe(),
        )
        return
    assert caught.events == "EPOLLIN"
    assert caught.registration is not None
    assert caught.registration.greenthread is not None
    assert caught.registration.greenthread.endswith(":serve")
    assert "and woke nobody: EPOLLIN on " in storm.describe()
    assert storm.describe().endswith(f"line {caught.registration.line}, nobody acts on it")


@depends_on_speed
@needs_strace
@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
@pytest.mark.parametrize(
    "afterwards",
    ["", "os.lseek(os.open('/dev/null', 0), 0, 0)"],
    ids=["closed", "number-reused"],
)
def test_what_was_closed_while_the_hub_watched_it_and_has_a_duplicate_is_told(
    storms_of: Storms, hub: str, afterwards: str
) -> None:
    program = f"""
    import os
    reader, writer = os.pipe()
    eventlet.spawn(eventlet.hubs.trampoline, os.pipe()[0], read=True)
    watcher = eventlet.spawn(eventlet.hubs.trampoline, reader, read=True)
    greenlet.settrace(label)
    eventlet.sleep(0.01)
    duplicate = os.dup(reader)
    os.close(reader)
    watcher.kill()
    os.write(writer, b"x")
    eventlet.sleep(0.45)
    {afterwards}
    """
    (storm,) = storms_of(program, hub=hub)
    assert storm.kind == "hub busy"
    (caught,) = storm.caught
    assert caught.ended is not None
    assert re.search(
        rf"woke nobody: EPOLLIN on {caught.fd}<pipe:\[\d+\]>, which was closed by greenthread "
        rf"\d:serve \(line {caught.ended.line}\) while the hub watched it, and is still open under "
        r"another number or in another process$",
        storm.describe(),
    )


@depends_on_speed
@needs_strace
def test_connecting_again_and_again_to_a_closed_port_is_a_storm_on_changing_descriptors(
    storms_of: Storms,
) -> None:
    program = """
    import socket
    from eventlet.green import socket as green
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    def fetch():
        while True:
            other = green.socket()
            try:
                other.connect(closed.getsockname())
            except ConnectionRefusedError:
                pass
    greenlet.settrace(label)
    eventlet.spawn(fetch)
    with eventlet.Timeout(2, False):
        while True: eventlet.sleep(0.01)
    """
    (storm,) = storms_of(program)
    assert storm.syscall.startswith("getsockopt(")
    assert storm.syscall.endswith(" gives ECONNREFUSED")
    assert storm.greenthread is not None
    assert storm.greenthread.endswith(":serve")


@depends_on_speed
@needs_strace
def test_a_storm_of_a_child_names_the_child_and_its_program(storms_of: Storms) -> None:
    program = """
    import subprocess, sys
    loop = "import os, time; end = time.time() + 0.4\\nwhile time.time() < end: os.lseek(0, 0, 0)"
    subprocess.run([sys.executable, "-c", loop], stdin=open(__file__))
    """
    (storm,) = storms_of(program)
    assert storm.who.startswith("child process ")
    assert f"({sys.executable} -c import os, time" in storm.who
    assert storm.greenthread is None


@needs_strace
@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_echo_round_trips_are_no_storm(storms_of: Storms, hub: str) -> None:
    program = """
    listener = eventlet.listen(("127.0.0.1", 0))
    def serve():
        connection, _ = listener.accept()
        while data := connection.recv(100):
            connection.sendall(data)
    eventlet.spawn(serve)
    client = eventlet.connect(listener.getsockname())
    for _ in range(1500):
        client.sendall(b"ping")
        assert client.recv(100) == b"ping"
    client.close()
    """
    assert storms_of(program, hub=hub) == []


@needs_strace
def test_reading_many_small_files_is_no_storm(storms_of: Storms) -> None:
    assert storms_of("for _ in range(3000): open(__file__).read(20)") == []


@needs_strace
def test_creating_and_removing_many_empty_files_is_no_storm(storms_of: Storms) -> None:
    program = """
    import os, shutil, tempfile
    directory = tempfile.mkdtemp()
    for number in range(500):
        open(os.path.join(directory, str(number)), "w").close()
        open(os.path.join(directory, str(number))).read()
    shutil.rmtree(directory)
    """
    assert storms_of(program) == []


@needs_strace
def test_creating_many_sockets_pipes_and_random_bytes_is_no_storm(storms_of: Storms) -> None:
    program = """
    import os, socket
    sockets = [socket.socket() for _ in range(200)]
    pipes = [os.pipe() for _ in range(200)]
    for _ in range(200): os.urandom(8)
    """
    assert storms_of(program) == []


def test_the_shortest_sleeps_in_a_row_are_no_storm() -> None:
    lines = [
        f"7 100.{n * 500:06d} clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, {{}}, NULL) = 0 "
        f"<0.000060>\n"
        for n in range(250)
    ]
    assert find_storms(parse(lines)) == []


@needs_strace
@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_sleeping_again_and_again_is_no_storm(storms_of: Storms, hub: str) -> None:
    program = """
    listener = eventlet.listen(("127.0.0.1", 0))
    eventlet.spawn(listener.accept)
    for _ in range(200): eventlet.sleep(0.002)
    """
    assert storms_of(program, hub=hub) == []


@depends_on_speed
@needs_strace
def test_reading_again_and_again_at_end_of_file_is_a_storm(storms_of: Storms) -> None:
    program = """
    import os, socket
    ours, theirs = socket.socketpair()
    theirs.close()
    for _ in range(10000): os.read(ours.fileno(), 10)
    """
    (storm,) = storms_of(program)
    assert storm.syscall.startswith("read(")
    assert storm.syscall.endswith(") = 0")


def call(
    number: int,
    name: str,
    args: str,
    result: int | str,
    *,
    pid: int = 7,
    step_us: int = 40,
    took_us: int = 5,
    greenthread: str | None = None,
) -> Syscall:
    errno = result if isinstance(result, str) else None
    value = result if isinstance(result, int) else -1
    return Syscall(
        number,
        pid,
        1_700_000_000_000_000_000 + number * step_us * 1000,
        name,
        args,
        str(result),
        value,
        errno,
        took_us * 1000,
        greenthread,
        "returned",
    )


def accepts(count: int, step_us: int = 40) -> list[Syscall]:
    return [call(n, "accept4", "-1, NULL", "EBADF", step_us=step_us) for n in range(count)]


def test_a_storm_has_the_line_of_the_first_such_call() -> None:
    before = call(0, "close", "3", 0)
    polls_and_accepts = [
        call(n, *(("accept4", "-1", "EBADF") if n % 2 == 0 else ("epoll_wait", "5, [], 1, 0", 0)))
        for n in range(1, 3000)
    ]
    (storm,) = find_storms([before, *polls_and_accepts])
    assert (storm.syscall, storm.line) == ("accept4(-1) = -1 EBADF", 2)


def test_a_tenth_of_a_second_is_a_storm_and_less_is_not() -> None:
    (storm,) = find_storms(accepts(2501))
    assert (storm.count, storm.line) == (2501, 0)
    assert find_storms(accepts(2490)) == []


def test_a_storm_says_all_there_is_to_know_in_one_line() -> None:
    storm = Storm(
        "storm",
        "accept4(-1) = -1 EBADF",
        ("accept4(-1) = -1 EBADF", "epoll_wait = 0"),
        2916,
        0.2,
        7,
        "3:serve",
        812,
        who="greenthread 3:serve",
    )
    assert storm.describe() == (
        "accept4(-1) = -1 EBADF x 2,916 in 0.20 s (with epoll_wait = 0) by greenthread 3:serve"
    )


def test_a_storm_of_a_thread_without_greenthreads_names_the_thread() -> None:
    (storm,) = find_storms(accepts(3000))
    assert storm.describe().endswith(" by thread 7")


@pytest.mark.parametrize("name", ["epoll_wait", "epoll_pwait", "poll", "ppoll", "pselect6"])
def test_any_kind_of_wait_between_the_calls_keeps_the_loop_a_loop(name: str) -> None:
    events = [
        event
        for turn in range(2000)
        for event in (
            call(2 * turn, "accept4", "-1, NULL", "EBADF", greenthread="3:serve"),
            call(2 * turn + 1, name if turn % 2 else "select", "5, []", 0, greenthread="0:hub"),
        )
    ]
    (storm,) = find_storms(events)
    assert storm.syscall == "accept4(-1) = -1 EBADF"
    assert storm.count == 2000
    assert storm.greenthread == "3:serve"


def test_calls_slower_than_two_hundred_a_second_are_no_storm() -> None:
    assert find_storms(accepts(500, step_us=5100)) == []
    assert len(find_storms(accepts(500, step_us=4900))) == 1


def test_a_thread_that_is_blocked_half_of_the_time_is_waiting() -> None:
    assert find_storms([call(n, "epoll_wait", "5", 0, took_us=30) for n in range(5000)]) == []
    assert len(find_storms([call(n, "epoll_wait", "5", 0, took_us=10) for n in range(10000)])) == 1


def test_moving_a_byte_in_each_turn_is_progress() -> None:
    assert find_storms([call(n, "sendto", "5<TCP:[1->2]>, ...", 1) for n in range(5000)]) == []


def test_memory_futex_stat_signal_and_clock_calls_do_not_break_a_pattern() -> None:
    noise = ["mmap", "futex", "newfstatat", "rt_sigprocmask", "clock_gettime"]
    events = [
        event
        for number in range(5000)
        for event in (
            call(number, "accept4", "-1, NULL", "EBADF"),
            call(number, noise[number * number % 7 % 5], str(number), 0, took_us=0),
        )
    ]
    (storm,) = find_storms(events)
    assert storm.count == 5000


@pytest.mark.parametrize("period", [1, 2, 12, 16, 24])
def test_a_pattern_of_up_to_twenty_four_calls_is_found_whole(period: int) -> None:
    events = [call(n, "ioctl", str(3 + n % period), "ENOTTY") for n in range(period * 100 + 2500)]
    (storm,) = find_storms([call(0, "write", "5, x", 1), *events, call(0, "write", "5, x", 1)])
    assert len(storm.pattern) == period
    assert storm.count >= 100


def test_a_loop_over_more_than_twenty_four_descriptors_is_no_storm() -> None:
    assert find_storms([call(n, "ioctl", str(3 + n % 25), "ENOTTY") for n in range(5000)]) == []


def test_to_ask_for_the_size_of_the_terminal_again_and_again_is_no_storm() -> None:
    assert find_storms([call(n, "ioctl", "1", "ENOTTY") for n in range(5000)]) == []


def test_threads_are_looked_at_apart() -> None:
    ours = accepts(3000)
    theirs = [call(n, "write", "5, x", 5, pid=8) for n in range(3000)]
    mixed = [event for pair in zip(ours, theirs, strict=True) for event in pair]
    (storm,) = find_storms([*mixed, Exit(0, 7, 0, 0, None, None)])
    assert (storm.pid, storm.count) == (7, 3000)


def test_two_runs_of_one_pattern_are_added_up() -> None:
    other = call(2000, "write", "5, x", 1)
    assert find_storms(accepts(2000)) == []
    (storm,) = find_storms([*accepts(2000), other, *accepts(2000)])
    assert storm.count == 4000


def test_what_a_loop_prints_about_its_trouble_is_no_progress() -> None:
    events = [
        event
        for number in range(5000)
        for event in (
            call(number, "accept4", "-1", "EBADF"),
            call(number, "write", '2</dev/null>, "x"', 1),
        )
    ]
    (storm,) = find_storms(events)
    assert storm.pattern == ("accept4(-1) = -1 EBADF",)


def test_the_same_call_on_changing_descriptors_is_no_exact_repetition() -> None:
    assert find_storms([call(n, "close", str(n), "EBADF") for n in range(5000)]) == []


def test_fifty_thousand_calls_take_well_under_a_second() -> None:
    def calls() -> Iterator[Syscall]:
        for number in range(50_000):
            yield call(number, "ioctl", str(number * number % 101), "ENOTTY")

    events = list(calls())
    start = time.process_time()
    find_storms(events)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(("numbers", "count"), [([5] * 1000, 1), (range(5, 1005), 0)])
def test_to_open_one_more_each_time_is_progress(
    detect: Find, numbers: Iterable[int], count: int
) -> None:
    calls = (f'1:test openat(AT_FDCWD, "/a", O_RDONLY) = {fd}</a>' for fd in numbers)
    assert len(detect(storms.Storms, *calls, apart=0.001)) == count
