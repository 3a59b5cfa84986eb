"""What the report of a failing test says of what was alive as it failed."""

from __future__ import annotations

import json
import os
from pathlib import Path
import re
import subprocess
import sys
import textwrap

from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings.timeline import read_timeline

HUBS = ("epolls", "asyncio")

SUITE = """
import asyncio
import functools
import socket
import sys
import threading
import time
import unittest

import eventlet
from eventlet import tpool
from eventlet.event import Event
from eventlet.semaphore import Semaphore
import pytest


def server(listener):
    while True:
        connection, _ = listener.accept()
        eventlet.spawn(handler, connection)


def handler(connection):
    handled.send()
    connection.recv(10)


handled = Event()


def test_sockets():
    listener = eventlet.listen(("127.0.0.1", 0))
    eventlet.spawn(server, listener)
    client = eventlet.connect(listener.getsockname())
    handled.wait()
    # The server goes on to wait.
    eventlet.sleep(0)
    assert client is None


def test_primitives():
    event, semaphore, queue = Event(), Semaphore(0), eventlet.Queue()

    def on_event():
        event.wait()

    def on_semaphore():
        with semaphore:
            pass

    def on_queue():
        queue.get()

    def with_timeout():
        with eventlet.Timeout(5):
            eventlet.sleep(20)

    def blocks():
        started.set()
        stop.wait(20)

    def in_pool():
        tpool.execute(functools.partial(blocks))

    # Not of the patched kind.
    started, stop = tpool.threading.Event(), tpool.threading.Event()
    for _ in range(4):
        eventlet.spawn(on_event)
    eventlet.spawn(on_semaphore)
    eventlet.spawn_n(on_queue)
    sleeper = eventlet.spawn(with_timeout)
    eventlet.spawn(sleeper.wait)
    eventlet.spawn_after(50, on_event)
    eventlet.GreenPool().spawn_n(on_event)
    eventlet.spawn(in_pool)
    while not started.is_set():
        eventlet.sleep(0.01)
    try:
        raise ValueError
    finally:
        stop.set()


def test_circle():
    greenthreads = {}

    def first():
        greenthreads["second"].wait()

    def second():
        greenthreads["first"].wait()

    greenthreads["first"] = eventlet.spawn(first)
    greenthreads["second"] = eventlet.spawn(second)
    eventlet.sleep(0.01)
    assert False


class TestOld(unittest.TestCase):
    def setUp(self):
        self.sleeper = eventlet.spawn(eventlet.sleep, 100)
        eventlet.sleep(0)

    def tearDown(self):
        self.sleeper.kill()

    def test_teardown_comes_later(self):
        self.fail()

    def test_skipped(self):
        self.skipTest("no")


async def wait():
    await asyncio.sleep(60)


def blocks(started, stop):
    started.set()
    stop.wait(20)


async def waits_for_work(started):
    stop = threading.Event()
    try:
        await asyncio.get_running_loop().run_in_executor(None, blocks, started, stop)
    finally:
        stop.set()


def test_snapshot():
    async def main():
        shielded = asyncio.create_task(wait(), name="shielded")

        async def gatherer():
            await asyncio.gather(wait(), asyncio.shield(shielded))

        asyncio.create_task(gatherer(), name="gatherer")
        started = threading.Event()
        asyncio.create_task(waits_for_work(started), name="worker")
        while not started.is_set():
            await asyncio.sleep(0.001)
        raise ZeroDivisionError

    asyncio.run(main())


def test_handled_exceptions_come_last():
    async def main(error):
        task = asyncio.create_task(wait(), name=f"before-{error.__name__}")
        await asyncio.sleep(0)
        raise error

    with pytest.raises(KeyError):
        asyncio.run(main(KeyError))
    try:
        asyncio.run(main(ValueError))
    except ValueError as error:
        raise RuntimeError("later") from error


@pytest.mark.skipif(not hasattr(asyncio, "TaskGroup"), reason="new in Python 3.11")
def test_group():
    async def fails():
        await asyncio.sleep(0.01)
        raise KeyError("member")

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(wait(), name="sibling")
            group.create_task(fails(), name="failing")

    asyncio.run(main())


def test_anyio_group():
    anyio = pytest.importorskip("anyio")

    async def fails():
        await anyio.sleep(0.01)
        raise KeyError("member")

    async def main():
        async with anyio.create_task_group() as group:
            group.start_soon(wait, name="sibling")
            group.start_soon(fails)

    anyio.run(main)


def test_waits():
    async def numbers():
        await asyncio.sleep(60)
        yield 1

    async def handle(reader, writer):
        await reader.readline()

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        reader, _ = await asyncio.open_connection(*server.sockets[0].getsockname())
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        inner = asyncio.create_task(wait(), name="inner")

        async def generator():
            async for _ in numbers():
                pass

        async def process():
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1)
            started.set()
            await child.wait()

        started = asyncio.Event()

        for name, coroutine in {
            "a stream": reader.readexactly(1),
            "a socket": asyncio.get_running_loop().sock_recv(ours, 1),
            "a process": process(),
            "a generator": generator(),
            "one of some": asyncio.wait([inner], timeout=20),
            "something limited": asyncio.wait_for(inner, 30),
        }.items():
            asyncio.ensure_future(coroutine).set_name(name)
        await started.wait()
        raise ValueError

    asyncio.run(main())


@pytest.mark.xfail
def test_expected():
    assert False


def test_passes():
    asyncio.run(asyncio.sleep(0))
"""


class Reports:
    """What one run of the suite printed and wrote."""

    def __init__(self, directory: Path) -> None:
        suite = directory / "test_suite.py"
        suite.write_text(SUITE)
        command = [
            *(sys.executable, "-m", "pytest", "--color=no", "-p", "no:cacheprovider"),
            *("-p", "pytest_eventlet_debug.plugin"),
            *(f"--eventlet-hub={','.join(HUBS)}", "--dump-asyncio-tasks", "-W", "ignore"),
            str(suite),
        ]
        environment = {**os.environ, "COLUMNS": "80", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        run = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, check=False
        )
        self.text = run.stdout
        self.artifacts = directory / "eventlet-debug"

    def of(self, test: str) -> str:
        """Return the report of a failure."""
        parts = re.split(rf"^_+ {re.escape(test)} _+$", self.text, flags=re.MULTILINE)
        assert len(parts) == 2, self.text
        return re.split(r"^_{5,} \S+ _{5,}$|^={5,} ", parts[1], flags=re.MULTILINE)[0]

    def section(self, test: str, name: str) -> str:
        """Return one section of it."""
        parts = re.split(rf"^-+ {name} -+$", self.of(test), flags=re.MULTILINE)
        assert len(parts) == 2, self.of(test)
        return re.split(r"^-{5,} .* -{5,}$", parts[1], flags=re.MULTILINE)[0]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    return Reports(tmp_path_factory.mktemp("dump"))


@pytest.fixture(params=HUBS)
def hub(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_servers_and_handlers_are_shown_with_their_sockets(reports: Reports, hub: str) -> None:
    text = reports.section(f"test_sockets[{hub}]", "Greenthreads")
    assert re.search(
        r"^  server  suspended\n"
        r"    spawned at test_suite.py:\d+ in test_sockets\n    test_suite.py:\d+ in server\n"
        r"        connection, _ = listener.accept\(\)\n"
        r"    waits on read on fd \d+, TCP 127.0.0.1:\d+, listening$",
        text,
        re.MULTILINE,
    ), text
    assert re.search(r"waits on read on fd \d+, TCP 127\S+ -> 127\S+$", text, re.MULTILINE)
    listeners = reports.section(f"test_sockets[{hub}]", "Hub")
    assert f"hub {hub}, running: 2 listeners, no timers\n" in listeners
    assert re.search(r"^  read on fd \d+, TCP 127\S+, listening: wakes server$", listeners, re.M)


@pytest.mark.parametrize(
    "lines",
    [
        r"  test_primitives.<locals>.on_event  suspended  x [45]\n    spawned at .*\n.*\n.*\n"
        r"    waits on Event, 5 waiting",
        r"  test_primitives.<locals>.on_semaphore  suspended\n"
        r"    spawned at .*\n.*\n        with semaphore:\n"
        r"    waits on Semaphore, value 0, 1 waiting",
        r"  (test_primitives.<locals>.)?on_queue  suspended\n"
        r"    spawned at .*\n.*\n        queue.get\(\)\n"
        r"    waits on Queue.get, 0 items",
        r"  test_primitives.<locals>.with_timeout  suspended\n    spawned at .*\n.*\n.*\n"
        r"    waits on sleep, 1\d.\d+ s left\n    a Timeout is raised in it in [0-4].\d+ s",
        r"  GreenThread.wait  suspended\n(.*\n)+?"
        r"    waits on the end of greenthread test_primitives.<locals>.with_timeout",
        r"  test_primitives.<locals>.on_event  not started\n"
        r"    spawned at .*\n    waits on its start, 4\d.\d+ s left",
        r"  test_primitives.<locals>.in_pool  suspended\n    spawned at .*\n.*\n.*\n"
        r"    waits on tpool, which executes test_primitives.<locals>.blocks",
    ],
)
def test_what_a_greenthread_waits_on_is_named(reports: Reports, hub: str, lines: str) -> None:
    text = reports.section(f"test_primitives[{hub}]", "Greenthreads")
    assert re.search(f"^{lines}$", text, re.MULTILINE), text


def test_timers_say_what_they_will_do(reports: Reports, hub: str) -> None:
    text = reports.section(f"test_primitives[{hub}]", "Hub")
    for words in (
        # Up to Python 3.10, code does not know the function that it was defined in.
        r"in [0-4]\.\d+ s: raise Timeout\(5\) in greenthread test_primitives.<locals>.with_timeout"
        r", started at test_suite\.py:\d+ in (?:test_primitives.<locals>.)?with_timeout",
        r"in 1\d\.\d+ s: wake greenthread test_primitives.<locals>.with_timeout",
        r"in 4\d\.\d+ s: start greenthread test_primitives.<locals>.on_event",
    ):
        assert re.search(f"^  {words}$", text, re.MULTILINE), text


def test_threads_of_tpool_are_shown_with_what_they_execute(reports: Reports, hub: str) -> None:
    text = reports.section(f"test_primitives[{hub}]", "Greenthreads")
    assert re.search(r"^  \d+ of tpool, idle$", text, re.MULTILINE), text


def test_greenthreads_that_wait_for_each_other_are_a_deadlock(reports: Reports, hub: str) -> None:
    text = reports.section(f"test_circle[{hub}]", "Greenthreads")
    assert re.search(r"^  DEADLOCK: each waits for the end of the next: ", text, re.MULTILINE)


def test_what_a_unittest_tears_down_is_shown_as_it_was(reports: Reports, hub: str) -> None:
    text = reports.section(f"TestOld.test_teardown_comes_later[{hub}]", "Greenthreads")
    assert re.search(r"^  sleep  suspended\n(.*\n)+?    waits on sleep, 9\d\.", text, re.MULTILINE)


def test_tasks_that_were_cancelled_are_shown_as_a_tree(reports: Reports) -> None:
    text = reports.section("test_snapshot[epolls]", "Asyncio tasks")
    assert "no asyncio tasks are left\n" in text
    assert "4 tasks were cancelled when ZeroDivisionError left run_until_complete()" in text
    below = text.partition("  gatherer  waiting  ")[2]
    assert below.index("    waits on gather of 2\n") < below.index("  -> ")
    assert "  -> shielded  waiting  wait()\n" in below
    assert "waits on run_in_executor of blocks, running\n" in text
    assert re.search(r"created at test_suite.py:\d+ in (test_snapshot.<locals>.)?main\n", text)
    # What runs inside of asyncio says less than what it waits on.
    assert "in sleep\n" not in text


def test_tasks_are_shown_of_the_exception_that_failed_the_test(reports: Reports) -> None:
    text = reports.section("test_handled_exceptions_come_last[epolls]", "Asyncio tasks")
    assert "when ValueError left" in text
    assert "before-ValueError  waiting" in text
    assert "KeyError" not in text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is new in Python 3.11")
def test_siblings_in_a_task_group_are_shown_with_the_reason(reports: Reports) -> None:
    text = reports.section("test_group[epolls]", "Asyncio tasks")
    assert "1 task was cancelled when KeyError aborted a TaskGroup; until then:\n" in text
    assert "  sibling  waiting  wait()\n" in text


def test_siblings_in_a_task_group_of_anyio_are_shown(reports: Reports) -> None:
    pytest.importorskip("anyio")
    text = reports.section("test_anyio_group[epolls]", "Asyncio tasks")
    assert "1 task was cancelled when KeyError cancelled a task group of anyio; until" in text
    assert "  sibling  waiting  " in text


@pytest.mark.parametrize(
    ("name", "waits"),
    [
        ("a stream", r"StreamReader._wait_for_data, fd \d+, TCP 127\S+ -> 127\S+"),
        ("a socket", r"read on fd \d+, unix \(no name\) -> \(no name\)"),
        ("a process", r"the end of child process \d+"),
        ("a generator", r"sleep, \d+\.\d+ s left"),
        ("one of some", r"asyncio.wait of 1, \d+\.\d+ s left"),
        ("something limited", r"(asyncio.wait_for of )?task inner(, \d+\.\d+ s left)?"),
    ],
)
def test_what_a_task_waits_on_is_named(reports: Reports, name: str, waits: str) -> None:
    text = reports.section("test_waits[epolls]", "Asyncio tasks")
    block = re.search(rf"^  {name}  waiting  .*\n(?:    .*\n)+", text, re.MULTILINE)
    assert block is not None, text
    assert re.search(f"^    waits on {waits}$", block[0], re.MULTILINE), text


def test_where_the_task_of_the_asyncio_hub_is_the_only_one_it_is_not_shown(
    reports: Reports,
) -> None:
    assert "Asyncio tasks" not in reports.of("test_sockets[asyncio]")


def test_a_test_without_anything_alive_has_no_section(reports: Reports) -> None:
    assert "Asyncio tasks" not in reports.of("TestOld.test_teardown_comes_later[epolls]")


@pytest.mark.parametrize("test", ["test_snapshot", "TestOld.test_teardown_comes_later"])
def test_our_own_frames_are_not_in_the_tracebacks(reports: Reports, hub: str, test: str) -> None:
    assert "pytest_eventlet_debug" not in reports.of(f"{test}[{hub}]")


def test_the_same_is_among_the_artifacts_of_failing_tests_alone(reports: Reports) -> None:
    written = {}
    for facts in reports.artifacts.glob("*/test.json"):
        content = json.loads(facts.read_text())
        assert content["artifacts"] == ["tasks.txt"]
        written[content["nodeid"].partition("::")[2]] = facts.with_name("tasks.txt").read_text()
    assert "test_sockets[epolls]" in written
    others = {"test_expected[epolls]", "TestOld::test_skipped[epolls]", "test_passes[epolls]"}
    assert others.isdisjoint(written)
    text = written["test_sockets[epolls]"]
    for line in reports.section("test_sockets[epolls]", "Greenthreads").strip().splitlines():
        assert line in text


def failures(pytester: pytest.Pytester, *arguments: str) -> str:
    """Run the inner suite on its own pytest and return what it printed."""
    return pytester.runpytest(*arguments).stdout.str()


def test_without_the_option_nothing_is_watched(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio, unittest
        def test_nothing():
            assert "wrapped" not in str(vars(asyncio.BaseEventLoop.create_task))
            assert not hasattr(unittest.TestCase._callTestMethod, "__wrapped__")
        """
    )
    pytester.runpytest("--eventlet-hub=epolls").assert_outcomes(passed=1)


def test_asyncio_is_watched_from_its_first_import_and_left_as_it_was(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest(
        """
        import sys
        def pytest_unconfigure():
            import asyncio
            watched = [f for f in vars(asyncio.BaseEventLoop).values() if hasattr(f, "__wrapped__")]
            print("left:", watched, asyncio.__spec__.loader.exec_module.__qualname__)
        """
    )
    pytester.makepyfile(
        """
        import sys
        def test_first_import():
            # From Python 3.14 on, pdb imports it, and pytest pdb.
            assert "asyncio" not in sys.modules or sys.version_info >= (3, 14)
            import asyncio
            async def wait():
                await asyncio.sleep(60)
            async def main():
                asyncio.create_task(wait(), name="early")
                await asyncio.sleep(0)
                raise ValueError
            asyncio.run(main())
        """
    )
    arguments = ("-p", "pytest_eventlet_debug.plugin", "--dump-asyncio-tasks", "-s")
    text = failures(pytester, *arguments)
    assert "  early  waiting" in text
    assert "left: [] _LoaderBasics.exec_module" in text


def test_a_user_in_debug_mode_sees_the_right_place_of_creation(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio
        def test_debug():
            async def main():
                task = asyncio.create_task(asyncio.sleep(0))
                assert "test_a_user_in_debug_mode" in repr(task), repr(task)
                assert task._source_traceback[-1].filename.endswith("tasks.py")
                await task
            asyncio.run(main(), debug=True)
        """
    )
    plain = pytester.runpytest(
        "-p", "no:eventlet-debug", "-W", "ignore::pytest.PytestConfigWarning"
    )
    watched = pytester.runpytest("--dump-asyncio-tasks")
    assert plain.parseoutcomes() == watched.parseoutcomes()


def test_a_dump_that_fails_is_a_line_of_the_report(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from pytest_eventlet_debug.alive import dump
        def broken(*arguments):
            raise SystemExit("broken")
        def test_fails(monkeypatch):
            monkeypatch.setattr(dump, "take", broken)
            assert False
        """
    )
    text = failures(pytester, "--dump-asyncio-tasks")
    assert "\ncould not be listed: SystemExit\n" in text
    assert "1 failed" in text


@pytest.mark.fault("hostile-repr")
def test_objects_that_cannot_be_read_harm_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        textwrap.dedent(
            """
            import asyncio, gc
            import eventlet
            class Hostile:
                def __repr__(self):
                    raise ZeroDivisionError
                __getattribute__ = __class__ = __hash__ = property(__repr__)
            class Meta(type):
                def __hash__(self):
                    raise ZeroDivisionError
                def __instancecheck__(self, instance):
                    raise ZeroDivisionError
            class Long(metaclass=Meta):
                def __repr__(self):
                    return "x" * 1_000_000
                def __call__(self):
                    eventlet.sleep(60)
            def test_fails():
                things = [Hostile(), Long()]
                loop = asyncio.new_event_loop()
                class Future(asyncio.Future):
                    def __repr__(self):
                        return "x" * 1_000_000
                future = Future(loop=loop)
                async def wait():
                    await future
                task = loop.create_task(wait(), name="x" * 10)
                loop.call_soon(loop.stop)
                loop.run_forever()
                loop.close()
                eventlet.spawn(things[1])
                eventlet.sleep(0)
                gc.freeze()
                assert False
            """
        )
    )
    text = failures(pytester, "--dump-asyncio-tasks", "--eventlet-hub=epolls")
    if sys.version_info < (3, 14):  # since then a task is found by its loop, which is frozen
        assert "waits on xxxx" in text
    assert "gc.freeze() was called: greenthreads made before it may be missing" in text
    assert "  Long object  suspended" in text
    assert len(text) < 10_000


@needs_strace
def test_what_a_dump_does_is_none_of_the_tests_system_calls(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import unittest
        import eventlet
        from eventlet.green import socket

        class Test(unittest.TestCase):
            def test_fails(self):
                listener = eventlet.listen(("127.0.0.1", 0))
                eventlet.spawn(listener.accept)
                eventlet.sleep(0)
                assert 0

        def test_fails_too():
            Test("test_fails").test_fails()

        def test_times_out():
            with eventlet.Timeout(0.01):
                eventlet.sleep(1)
        """
    )
    pytester.runpytest("--strace", "--dump-asyncio-tasks").assert_outcomes(failed=3)
    whole = ""
    for trace in Path("eventlet-debug").glob("test_x*/strace.txt"):
        whole += trace.read_text()
        rows = [row.text for row in read_timeline(trace.parent).rows if row.kind == "syscall"]
        assert any("dup2" in row for row in rows)
        assert not [row for row in rows if "fdinfo" in row or "tasks.txt" in row or "own/" in row]
    assert "/proc/self/fdinfo" in whole
    assert "tasks.txt" in whole
