"""What tests are said to have left behind, and what they are not."""

from __future__ import annotations

import os
from pathlib import Path
import re
import subprocess
import sys

from programs import others_on
import pytest

HUBS = ("epolls", "asyncio")

SUITE = """
import asyncio
import gc
import logging.handlers
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time

import eventlet
from eventlet import tpool
from eventlet.event import Event
from eventlet.hubs import get_hub
import greenlet
import pytest

kept = []


def serve(listener):
    while True:
        listener.accept()


def test_greenthread():
    kept.append(eventlet.listen(("127.0.0.1", 0)))
    kept.append(eventlet.spawn(serve, kept[-1]))
    eventlet.sleep(0)


def test_equal_greenthreads():
    event = Event()
    kept.extend(eventlet.spawn(event.wait) for _ in range(5))
    eventlet.sleep(0)


def test_spinning_greenthread():
    def spin():
        while not kept[-1].ready():
            eventlet.sleep(0)

    kept.append(Event())
    eventlet.spawn(spin)


def test_after_the_spinning_one():
    eventlet.sleep(0.01)


def test_timer():
    get_hub().schedule_call_global(60, print)


def test_cancelled():
    eventlet.spawn_after(60, print).cancel()


def test_timeout():
    eventlet.Timeout(60)


def test_thread():
    go_on = tpool.threading.Event()
    kept.append(go_on)
    tpool.threading.Thread(target=go_on.wait, name="waits", daemon=True).start()


def test_child():
    command = [sys.executable, "-c", "input()"]
    kept.append(subprocess.Popen(command, stdin=subprocess.PIPE))


def test_zombie():
    kept.append(subprocess.Popen(["true"]))
    # Neither poll() nor wait() has been called.
    os.waitid(os.P_PID, kept[-1].pid, os.WEXITED | os.WNOWAIT)


def test_socket():
    kept.append(socket.socket())


def test_log():
    kept.append(logging.handlers.SysLogHandler(("127.0.0.1", 9)))


def test_file(tmp_path):
    kept.append(open(tmp_path / "left", "w"))


def test_loop():
    loop = asyncio.new_event_loop()
    kept.append(loop)

    async def orphan():
        await asyncio.sleep(60)

    kept.append(loop.create_task(orphan(), name="orphan"))


# What follows leaves nothing.


def test_clean_greenthreads():
    pool = eventlet.GreenPool()
    for _ in range(5):
        pool.spawn(eventlet.sleep, 0.01)
    pool.waitall()


def test_clean_about_to_end():
    a, b = eventlet.green.socket.socketpair()

    def reads():
        with a:
            a.recv(1)

    eventlet.spawn(reads)
    eventlet.sleep(0)
    b.close()
    eventlet.spawn(len, "")


def test_clean_in_the_midst_of_a_turn():
    a, b = eventlet.green.socket.socketpair()
    a.settimeout(0.01)
    with pytest.raises(OSError):
        a.recv(1)


def test_clean_cycle():
    class Node:
        pass

    node = Node()
    node.itself, node.socket = node, socket.socket()
    node.socket.close()
    node.file = os.fdopen(os.dup(1))


def test_clean_thread_that_ends():
    threading.Thread(target=time.sleep, args=(0.05,)).start()


def test_clean_tpool():
    tpool.execute(time.sleep, 0.01)


def test_clean_multiprocessing():
    process = multiprocessing.get_context("forkserver").Process(target=print)
    process.start()
    process.join()

def test_clean_asyncio():
    if type(get_hub()).__module__ != "eventlet.hubs.asyncio":
        asyncio.run(asyncio.sleep(0.01))


def test_clean_captured(capfd, tmp_path):
    print("captured")
    os.write(1, b"too")


@pytest.fixture(scope="module")
def server():
    listener = eventlet.listen(("127.0.0.1", 0))
    greenthread = eventlet.spawn(serve, listener)
    eventlet.sleep(0)
    yield listener.getsockname()
    greenthread.kill()
    listener.close()


@pytest.fixture
def client(server):
    client = eventlet.connect(server)
    yield client
    client.close()


@pytest.fixture(scope="module")
def sleeper():
    def sleep():
        eventlet.sleep(0.001)
        eventlet.sleep(60)

    greenthread = eventlet.spawn(sleep)
    eventlet.sleep(0)
    yield
    greenthread.kill()


def test_clean_greenthread_of_a_fixture_that_sleeps_anew(sleeper):
    eventlet.sleep(0.01)


def test_clean_call_that_is_due():
    get_hub().schedule_call_global(0, print)


def test_clean_call_that_ended_with_its_greenthread():
    eventlet.spawn(get_hub().schedule_call_local, 60, print).wait()


def test_clean_greenlet_that_never_began():
    kept.append(greenlet.greenlet(print))


def test_clean_fixtures(client):
    pass


def test_clean_fixtures_again(client):
    eventlet.sleep(0.01)


@pytest.fixture(scope="module")
def connections():
    opened = []
    yield opened
    for greenthread, listener in opened:
        greenthread.kill()
        listener.close()


def test_clean_fixture_that_is_added_to(connections):
    listener = eventlet.listen(("127.0.0.1", 0))
    connections.append((eventlet.spawn(serve, listener), listener))
    eventlet.sleep(0)


def test_fails():
    kept.append(socket.socket())
    assert False


def test_timer_of_a_failure():
    kept.append(socket.socket())
    get_hub().schedule_call_global(60, print)
    assert False


def test_hub_of_a_thread():
    def sleeps():
        eventlet.sleep(0)
        kept.append(get_hub())

    # Where eventlet is not patched, the thread has a hub of its own.
    thread = threading.Thread(target=sleeps)
    thread.start()
    thread.join()
    # A thread that is joined has yet to take down what greenlet keeps of it.
    while not kept[-1].greenlet.dead:
        time.sleep(0.001)


def test_clean_after_failure():
    pass


def test_clean_trace(eventlet_trace, eventlet_artifacts):
    with eventlet_trace("cprofile"):
        pass


def test_end():
    for thing in kept:
        if hasattr(thing, "kill"):
            thing.kill()
    kept[:] = [thing for thing in kept if isinstance(thing, Event)]
"""


def run(directory: Path, *arguments: str) -> str:
    (directory / "test_suite.py").write_text(SUITE)
    command = [
        *(sys.executable, "-m", "pytest", "--color=no", "-p", "no:cacheprovider"),
        *("-p", "pytest_eventlet_debug.plugin", "test_suite.py"),
        *("-W", "ignore::DeprecationWarning", *arguments),
    ]
    environment = {**os.environ, "COLUMNS": "200", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    return result.stdout + result.stderr


def opened(test: str) -> str:
    return rf", opened in {test} \(test_suite\.py:\d+\)"


@pytest.fixture(scope="module")
def warned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what is said of each test, by its name with the hub."""
    text = run(
        tmp_path_factory.mktemp("leaks"),
        "--eventlet-leaks=warn",
        f"--eventlet-hub={','.join(HUBS)}",
    )
    assert "4 failed, " in text, text
    found: dict[str, str] = {}
    summary = text.partition("= warnings summary =")[2].partition("\n-- Docs:")[0]
    for block in re.split(r"\n\n(?=test_suite.py::)", summary):
        heads = re.findall(r"^test_suite.py::(\S+)$", block, re.MULTILINE)
        if "EventletLeakWarning" in block:
            for head in heads:
                found[head] = block.partition("EventletLeakWarning: ")[2]
    return found


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize(
    ("test", "lines"),
    [
        (
            "test_greenthread",
            r"The test left behind:\n"
            r"    greenthread serve \(test_suite.py:\d+\), "
            r"waits on read on fd \d+, TCP 127\S+, listening, "
            r"spawned at test_suite.py:\d+\n"
            rf"    fd \d+, TCP 127\S+, listening{opened('test_greenthread')}\n",
        ),
        ("test_equal_greenthreads", r"    greenthread (Event.)?wait .*waits on Event.* x 5\n"),
        ("test_timer", r"    timer to call print in (60|5\d)\.\d+ s\n"),
        (
            "test_cancelled",
            r"    timer to wake a greenthread that has ended in (60|5\d)\.\d+ s\n",
        ),
        (
            "test_timeout",
            r"    timer to raise Timeout\(60\) in the main greenlet in (60|5\d)\.\d+ s, started at "
            r"test_suite\.py:\d+ in test_timeout\n",
        ),
        (
            "test_timer_of_a_failure",
            r"The test, which failed, left behind:\n    timer to call print in (60|5\d)\.\d+ s\n",
        ),
        ("test_thread", r"    daemon thread waits\n"),
        ("test_child", r"    child process \d+, .*python.* -c input\(\)\n    fd \d+, pipe:.*\n"),
        ("test_zombie", r"    child process \d+, true, which ended and was not waited for\n"),
        ("test_socket", rf"    fd \d+, TCP 0.0.0.0:0, not connected{opened('test_socket')}\n"),
        ("test_log", rf"    fd \d+, UDP 0.0.0.0:0, not connected{opened('test_log')}\n"),
        ("test_file", rf"    fd \d+, /\S+/left( \(deleted\))?{opened('test_file')}\n"),
        (
            "test_loop",
            r"    task orphan, test_loop.<locals>.orphan\(\)( \(\S+:\d+\))?, ready\n"
            r"    an asyncio loop that is not closed, _UnixSelectorEventLoop\n",
        ),
    ],
)
def test_what_is_left_is_named(warned: dict[str, str], hub: str, test: str, lines: str) -> None:
    said = warned[f"{test}[{hub}]"]
    assert re.search(lines, said), said
    leftovers = re.findall(r"^    (?!def |@)\S.*$", said, re.MULTILINE)
    assert len(leftovers) == len(re.findall("^    ", lines.replace(r"\n", "\n"), re.MULTILINE)), (
        said
    )


@pytest.mark.parametrize("hub", HUBS)
def test_what_spins_is_told_after_its_next_turn(warned: dict[str, str], hub: str) -> None:
    assert f"test_spinning_greenthread[{hub}]" not in warned
    said = warned[f"test_after_the_spinning_one[{hub}]"]
    assert f"test_suite.py::test_spinning_greenthread[{hub}], an earlier test, left" in said
    assert "    greenthread test_spinning_greenthread.<locals>.spin (" in said


@pytest.mark.parametrize(
    ("hub", "line"),
    [
        ("epolls", r"    fd \d+, anon_inode:\[eventpoll\]\n"),
        ("asyncio", r"    fd \d+, unix \(no name\) -> \(no name\)(, opened in sleeps .*)?\n"),
    ],
)
def test_what_the_hub_of_an_ended_thread_has_open_is_told(
    warned: dict[str, str], hub: str, line: str
) -> None:
    said = warned[f"test_hub_of_a_thread[{hub}]"]
    assert re.search(line, said), said


FIRST = """
def test_imports():
    import eventlet
    eventlet.sleep(0)
    try:
        eventlet.hubs.get_hub().greenlet.throw(KeyboardInterrupt)
    except KeyboardInterrupt:
        pass  # the hub goes on as soon as somebody waits
"""


def test_the_thread_that_runs_the_tests_is_no_leak_nor_is_its_hub(tmp_path: Path) -> None:
    (tmp_path / "test_first.py").write_text(FIRST)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_first.py"),
            *("-p", "pytest_eventlet_debug.plugin", "--eventlet-leaks=fail"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in result.stdout
    assert "error" not in result.stdout


def test_nothing_else_is_said(warned: dict[str, str]) -> None:
    false = [name for name in warned if "clean" in name or "end" in name or "fails" in name]
    assert false == []


def test_what_several_earlier_tests_left_alike_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]")
    below = tmp_path / "below"
    below.mkdir()
    (below / "test_pings.py").write_text(
        "import eventlet, pytest\n"
        "def ping():\n"
        "    eventlet.sleep(60)\n"
        "@pytest.mark.parametrize('n', range(3))\n"
        "def test_spawns(n):\n"
        "    eventlet.spawn(ping)\n"
        "def test_sleeps():\n"
        "    eventlet.sleep(0.01)\n"
    )
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_pings.py"),
            *("-p", "pytest_eventlet_debug.plugin", "--eventlet-leaks=warn"),
        ],
        cwd=below,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.count("greenthread ping (") == 1, result.stdout
    assert (
        ": test_pings.py::test_spawns[0] and 2 others, earlier tests, each left behind:"
        in result.stdout
    )


def test_a_test_that_leaves_something_can_fail_for_it(tmp_path: Path) -> None:
    text = run(tmp_path, "--eventlet-leaks=fail", "-k", "test_timer or clean_asyncio")
    assert "1 error" in text
    assert "2 passed" in text
    assert "_ ERROR at teardown of test_timer _" in text
    assert re.search(r"\nThe test left behind:\n  timer to call print in \S+ s\n", text), text


def test_our_own_descriptors_and_processes_are_not_reported(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("needs Linux's strace and sockets")
    arguments = ("--eventlet-leaks=fail", "--strace", "--pcap", "--cprofile", "-k", "clean_tpool")
    text = run(tmp_path, *arguments)
    if "may not" in text or "not found" in text or "No right" in text:
        pytest.skip(text.strip().splitlines()[-1])
    assert "1 passed" in text, text
    assert "error" not in text.partition("= short test")[2]


def test_a_value_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "ERROR: --eventlet-leaks: 'all' is not valid; use warn or fail" in run(
        tmp_path, "--eventlet-leaks=all"
    )


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not tell")
def test_a_thread_that_others_keep_from_its_end_is_no_leak(pytester: pytest.Pytester) -> None:
    cpu = max(os.sched_getaffinity(0))
    pytester.makepyfile(
        f"""
        import os, threading, time

        def work():
            while time.thread_time() < 0.08:
                pass

        def test_leaves_a_thread():
            os.sched_setaffinity(0, {{{cpu}}})
            threading.Thread(target=work).start()
        """
    )
    with others_on(cpu):
        result = pytester.runpytest("--eventlet-leaks=fail")
    result.assert_outcomes(passed=1)


def test_a_test_that_counts_objects_counts_none_of_ours(pytester: pytest.Pytester) -> None:
    """As eventlet's test_leakage_from_tracebacks does, between rounds of the same work."""
    pytester.makepyfile("""
        import gc
        import socket

        import eventlet
        from eventlet import tpool

        def fail():
            raise RuntimeError

        def work(times):
            for _ in range(times):
                try:
                    tpool.execute(fail)
                except RuntimeError:
                    pass
                eventlet.spawn(eventlet.sleep, 0).wait()
                waiting = eventlet.spawn(eventlet.sleep, 9)
                eventlet.sleep(0)
                waiting.kill()
                one, other = socket.socketpair()
                one.close()
                other.close()
                open("/dev/null").close()

        def count():
            gc.collect()
            return len(gc.get_objects())

        def test_first():
            work(3)
            tpool.killall()

        def test_count():
            work(1)
            counts = [count()]
            for times in (10, 100):
                work(times)
                counts.append(count())
            assert max(counts) - min(counts) < 10, counts
            tpool.killall()
    """)
    watching = ("--eventlet-leaks=warn", "--dump-asyncio-tasks", "--cprofile")
    pytester.runpytest("--eventlet-hub=epolls", *watching).assert_outcomes(passed=2)
