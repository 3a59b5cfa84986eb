"""What a failing test is told of its hub: whose loop runs, which mock it met, what ended it."""

from __future__ import annotations

import json
import re
import sys

import pytest

REFUSED = """
    import asyncio

    import eventlet


    async def nothing():
        pass


    def look_up():
        coroutine = nothing()
        try:
            asyncio.run(coroutine)
        finally:
            coroutine.close()


    def test_runs_a_loop():
        eventlet.spawn(look_up).wait()


    def test_runs_a_loop_in_a_loop():
        async def outer():
            look_up()

        eventlet.asyncio.spawn_for_awaitable(outer()).wait()


    def test_has_no_loop():
        eventlet.sleep(0)
        eventlet.tpool.execute(asyncio.get_running_loop)


    class Service:
        is_running = False

        def stop(self):
            self.loop = asyncio.get_running_loop()
            if not self.is_running:
                raise RuntimeError("the service is not running")


    def test_is_about_something_else():
        eventlet.spawn(Service().stop).wait()
"""

MOCKED = """
    import os
    from unittest import mock

    import eventlet
    from eventlet.green import socket


    def test_waits():
        ours, theirs = socket.socketpair()
        eventlet.spawn_after(0, theirs.send, b"x")
        with mock.patch("os.fstat", side_effect=OSError("gone")):
            ours.recv(1)


    def test_calls_it_itself():
        with mock.patch("os.fstat", side_effect=OSError("gone")):
            os.fstat(0)
"""

REPLACED = """
    import os

    import eventlet
    from eventlet.green import socket


    def no_files(descriptor):
        raise OSError("no such file")


    def raises():
        raise OSError("of its own")


    def test_waits(monkeypatch):
        ours, theirs = socket.socketpair()
        monkeypatch.setattr(os, "fstat", no_files)
        ours.recv(1)


    def test_calls_it_itself(monkeypatch):
        monkeypatch.setattr(os, "fstat", no_files)
        os.fstat(0)


    def test_a_callback_raises():
        eventlet.hubs.get_hub().loop.call_soon(raises)
        eventlet.spawn(raises).wait()
"""

FOREIGN_LOOP = """
    import asyncio

    import eventlet
    from eventlet.green import socket
    import pytest


    class Loop(asyncio.SelectorEventLoop):
        def add_reader(self, descriptor, callback, *args):
            raise NotImplementedError


    def test_waits():
        ours, theirs = socket.socketpair()
        ours.recv(1)


    def test_uses_it_itself():
        eventlet.hubs.get_hub().loop.add_reader(0, print)


    def test_fails_by_itself():
        ours, theirs = socket.socketpair()
        ours.close()
        eventlet.hubs.trampoline(ours, read=True)
"""

FOREIGN_POLICY = """
    import asyncio


    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self):
            from test_who_made_the_loop_that_the_hub_fails_at_is_told import Loop

            return Loop()


    asyncio.set_event_loop_policy(Policy())
"""

HAS_A_TASK = """
    import asyncio

    import eventlet
    import pytest


    async def version():
        return "1.2"


    def run(coroutine):
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(coroutine)
        return loop.create_task(coroutine)


    def major():
        return run(version()).split(".")[0]


    def test_calls_a_method():
        assert eventlet.spawn(major).wait() == "1"


    def test_takes_an_item():
        eventlet.sleep(0)
        found = run(version())
        assert found[0] == "1"


    def test_takes_an_item_of_one_of_two():
        eventlet.sleep(0)
        found, other = run(version()), run(version())
        assert found[0] == "1"


    def test_forgets_to_await():
        async def forget():
            return run(version()).split(".")

        eventlet.asyncio.spawn_for_awaitable(forget()).wait()


    def test_has_one_of_another_loop():
        eventlet.sleep(0)
        loop = asyncio.new_event_loop()
        task = loop.create_task(version())
        task.split(".")
"""

NESTED = """
    import asyncio

    import eventlet
    from eventlet import hubs


    def pause():
        eventlet.sleep(0.01)


    async def handle():
        pause()


    def test_waits_in_a_coroutine():
        asyncio.run(handle())


    def test_waits_in_a_coroutine_of_the_hub():
        from eventlet.asyncio import spawn_for_awaitable

        spawn_for_awaitable(handle()).wait()


    def test_waits_in_the_hub():
        hubs.get_hub().schedule_call_global(0, pause)
        eventlet.sleep(0.01)
        assert False


    def test_replaces_the_hub():
        eventlet.sleep(0)
        hubs.use_hub()
        eventlet.sleep(0)
"""

LOOP_IN_HUB = """
    import asyncio

    import eventlet
    from eventlet import hubs


    async def handle():
        eventlet.sleep(0.01)


    def test_waits(eventlet_hub):
        errors = []
        def run():
            try:
                asyncio.run(handle())
            except RuntimeError as error:
                errors.append(error)
        hubs.get_hub().schedule_call_global(0, run)
        eventlet.sleep(0.01)
        raise errors[0]
"""

CLOSED = """
    import asyncio

    import eventlet
    import pytest


    @pytest.fixture
    def loop():
        yield eventlet.hubs.get_hub().loop
        eventlet.hubs.get_hub().loop.close()


    def test_has_a_loop(loop):
        assert not loop.is_closed()


    def test_waits():
        eventlet.sleep(0)


    def test_fails_for_another_reason():
        assert False
"""

EXITS = """
    import sys

    import eventlet
    import pytest
    from eventlet.green import socket


    def serve(connection, status):
        connection.recv(10)
        sys.exit(status)


    def test_exits():
        first, quits = socket.socketpair()
        eventlet.spawn(serve, first, 3)
        second, quits_too = socket.socketpair()
        eventlet.spawn(serve, second, 4)
        eventlet.spawn_after(0, quits.send, b"quit")
        with pytest.raises(SystemExit):
            eventlet.sleep(60)
        quits_too.send(b"quit")
        with pytest.raises(SystemExit):  # the loop goes on for a while
            eventlet.sleep(60)
        eventlet.sleep(0.01)
"""

AFTER_IT = """
    import sys

    import eventlet
    import pytest
    from eventlet.green import socket


    def serve(connection):
        connection.recv(10)
        sys.exit()


    def test_exits():
        connection, quits = socket.socketpair()
        eventlet.spawn(serve, connection)
        eventlet.spawn_after(0.1, quits.send, b"quit")
        with pytest.raises(SystemExit):
            eventlet.sleep(2)
        eventlet.sleep(0.1)


    def fails(value):
        raise KeyError(value)


    def test_fails_by_itself():
        list(eventlet.GreenPool(1).imap(fails, [5]))
"""

DIES = """
    import asyncio

    import eventlet
    from eventlet import hubs

    kept = []


    async def listen(message):
        await asyncio.sleep(0)
        return message["data"]


    def wait_for(message):
        kept.append(hubs.get_hub().loop.create_task(listen(message)))
        eventlet.sleep(0.01)
        eventlet.sleep(0.01)


    def test_waits_in_vain():
        wait_for({})
        assert False


    def test_fails_after_it():
        wait_for({"data": 1})
        assert False


    def test_asks():
        wait_for({})
        assert isinstance(kept[-1].exception(), KeyError)
        assert False
"""


OTHER_THREAD = """
    import eventlet
    from eventlet import event
    from eventlet import patcher

    threading = patcher.original("threading")
    end = threading.Event()


    def send(done):
        done.send()
        end.wait()


    def test_waits_for_another_thread():
        done = event.Event()
        # The one that waits is known to it by then.
        eventlet.spawn_after(0.01, lambda: threading.Thread(target=send, args=[done]).start())
        with eventlet.Timeout(1):
            done.wait()


    def test_waits_for_nobody():
        try:
            with eventlet.Timeout(0.6):
                event.Event().wait()
        finally:
            end.set()
"""


SECOND = """
    import os

    import eventlet
    from eventlet import hubs


    def drain(fd):
        hubs.trampoline(fd, read=True)


    def ask(fd):
        hubs.trampoline(fd, read=True)


    def test_reads_twice():
        reader, writer = os.pipe()
        eventlet.spawn(drain, reader)
        eventlet.sleep(0)
        ask(reader)


    def test_reads_what_nobody_waits_for():
        reader, writer = os.pipe()
        hubs.get_hub().add("read", reader, print, print, print)
        ask(reader)


    def test_says_so_itself():
        raise RuntimeError("Second simultaneous read on fileno 5 detected.")
"""

REGULAR = """
    from eventlet import hubs
    import pytest


    def test_waits(tmp_path):
        with open(tmp_path / "file", "w") as file:
            hubs.trampoline(file.fileno(), write=True, timeout=5)


    def test_may_not():
        raise PermissionError(1, "Operation not permitted")
"""

CALLED = """
    import signal

    import eventlet


    def handler(number, frame):
        waits()


    def waits():
        eventlet.sleep(0.01)


    class Callable:
        def __call__(self, number, frame):
            waits()


    def handle_by(call):
        eventlet.sleep(0)
        for number in signal.SIGALRM, signal.SIGUSR1:
            signal.signal(number, call)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            eventlet.sleep(0.5)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)  # or it may strike pytest


    def test_handles():
        handle_by(handler)


    def test_handles_by_an_object():
        handle_by(Callable())


    def test_fails_by_itself():
        raise AssertionError("Cannot switch to MAINLOOP from MAINLOOP")
"""

LET_GO = """
    import eventlet

    CLOSED = []


    async def rows():
        try:
            yield 1
        finally:
            CLOSED.append(1)


    def first():
        try:
            rows().__anext__().send(None)
        except StopIteration as error:
            return error.value


    def test_passes():
        eventlet.sleep(0)
        assert first() == 1


    def test_fails_before_any_turn_of_the_hub():
        assert False


    def test_expects_it_to_be_closed():
        eventlet.sleep(0.01)
        CLOSED.clear()
        assert first() == 1
        assert CLOSED


    def test_fails_after_it_was_closed():
        assert first() == 1
        eventlet.sleep(0.01)
        assert False
"""

IGNORED = """
    import gc

    import eventlet
    from eventlet.semaphore import Semaphore

    LOCK = Semaphore(0)


    class Connection:
        def __init__(self):
            self.own = self

        def __del__(self):
            LOCK.acquire()


    class Other:
        def __init__(self):
            self.own = self

        def __del__(self):
            raise ValueError("no matter of eventlet's")


    def collects(kind):
        eventlet.sleep(0)
        kind()
        eventlet.hubs.get_hub().schedule_call_global(0, gc.collect)
        eventlet.sleep(0.01)
        assert False


    def test_collects():
        collects(Connection)


    def test_collects_another():
        collects(Other)
"""


STOPS = """
    import asyncio

    from eventlet import hubs
    import eventlet


    def shut_down():
        asyncio.get_running_loop().stop()


    def test_stops():
        eventlet.sleep(0)
        shut_down()
        eventlet.sleep(0.1)


    def test_waits():
        eventlet.sleep(0.1)


    def test_says_so_itself():
        raise RuntimeError("Event loop stopped before Future completed.")


    def test_stops_another():
        def run():
            loop = asyncio.new_event_loop()
            loop.call_soon(loop.stop)
            loop.run_until_complete(asyncio.sleep(1))

        eventlet.tpool.execute(run)
"""

STOPS_LATER = """
    import eventlet
    from eventlet import hubs


    def test_stops():
        loop = hubs.get_hub().loop
        loop.call_later(0.05, loop.stop)
        eventlet.sleep(0.2)
"""

CANCELS = """
    import asyncio

    import eventlet
    from eventlet.asyncio import spawn_for_awaitable


    async def shut_down():
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.1)


    def test_shuts_down():
        spawn_for_awaitable(shut_down()).wait()


    def test_is_cancelled_itself():
        async def cancels():
            asyncio.current_task().cancel()
            await asyncio.sleep(0.1)

        spawn_for_awaitable(cancels()).wait()
"""

SENDS_TWICE = """
    from eventlet import event


    def worker(done, result):
        done.send(result)


    def test_sends_twice():
        done = event.Event()
        worker(done, 1)
        done.send(2)


    def test_sends_after_an_exception():
        done = event.Event()
        done.send_exception(ValueError())
        worker(done, 2)


    def test_resets():
        done = event.Event()
        worker(done, 1)
        done.reset()
        done.send(2)
        assert False
"""


DEAF = """
    import asyncio
    import os
    import signal

    import eventlet
    from eventlet import hubs
    import pytest


    @pytest.fixture
    def got():
        found = []
        loop = hubs.get_hub().loop
        loop.add_signal_handler(signal.SIGUSR1, found.append, 1)
        yield found
        loop.remove_signal_handler(signal.SIGUSR1)


    def another_loop():
        loop = asyncio.new_event_loop()
        loop.add_signal_handler(signal.SIGUSR2, print)
        loop.close()


    def waits(got):
        eventlet.sleep(0)
        os.kill(os.getpid(), signal.SIGUSR1)
        with eventlet.Timeout(0.2, False):
            while not got:
                eventlet.sleep(0.01)
        assert got


    def test_another_loop_takes_it(got):
        another_loop()
        waits(got)


    def test_a_library_takes_it(got):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        waits(got)


    def test_a_library_gives_it_back(got):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(signal.set_wakeup_fd(writer))
        waits(got)
        assert False


    def test_handles_no_signal():
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        signal.set_wakeup_fd(-1)
        assert False
"""

BEYOND = """
    import os
    import resource

    import eventlet
    from eventlet import hubs


    def test_waits():
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (2048, most))
        reader, writer = os.pipe()
        os.dup2(reader, 1500)
        os.write(writer, b"x")
        eventlet.spawn(hubs.trampoline, 1500, read=True).wait()


    def test_says_so_itself():
        raise ValueError("filedescriptor out of range in select()")
"""


def _of(result: pytest.RunResult, test: str) -> list[str]:
    """Return what the section of findings tells of a test."""
    lines = result.outlines
    lines = lines[next(n for n, line in enumerate(lines) if "= findings =" in line) :]
    begin = next(
        (n for n, line in enumerate(lines) if line.startswith("  ") and f"::{test}[" in line), None
    )
    if begin is None:
        return []
    told = []
    for line in lines[begin + 1 :]:
        if not line.startswith("    "):
            break
        told.append(line.strip())
    return told


def _run(pytester: pytest.Pytester, source: str, hub: str = "asyncio") -> pytest.RunResult:
    pytester.makepyfile(source)
    return pytester.runpytest(f"--eventlet-hub={hub}", "--dump-asyncio-tasks", "-W", "ignore")


def test_what_refuses_to_run_in_a_loop_learns_that_it_is_the_hubs(
    pytester: pytest.Pytester,
) -> None:
    result = _run(pytester, REFUSED)
    result.assert_outcomes(failed=4)
    (line,) = _of(result, "test_runs_a_loop")
    file = "test_what_refuses_to_run_in_a_loop_learns_that_it_is_the_hubs.py"
    assert line.startswith("asyncio/runners.py:")
    assert f" refuses to run while an event loop runs in its thread, called at {file}:13" in line
    assert line.endswith("as the loop is the hub's own")
    # In a coroutine, that would be so under any loop.
    for test in ("test_runs_a_loop_in_a_loop", "test_has_no_loop", "test_is_about_something_else"):
        assert not [line for line in _of(result, test) if "refuses" in line]


def test_a_mock_that_the_hub_calls_is_told(pytester: pytest.Pytester) -> None:
    result = _run(pytester, MOCKED)
    result.assert_outcomes(failed=2)
    (line,) = _of(result, "test_waits")
    assert line.startswith(
        "fstat(), which is mocked, raised OSError in the hub, at eventlet/hubs/asyncio.py:"
    )
    assert not _of(result, "test_calls_it_itself")


def test_a_function_that_is_replaced_and_called_by_the_hub_is_told(
    pytester: pytest.Pytester,
) -> None:
    result = _run(pytester, REPLACED)
    result.assert_outcomes(failed=3)
    (line,) = _of(result, "test_waits")
    file = "test_a_function_that_is_replaced_and_called_by_the_hub_is_told.py"
    assert line.startswith(
        f"fstat(), which is replaced by {file}:8 in no_files, raised OSError in the hub, at "
        "eventlet/hubs/asyncio.py:"
    )
    assert not _of(result, "test_calls_it_itself")
    assert not _of(result, "test_a_callback_raises")


def test_who_made_the_loop_that_the_hub_fails_at_is_told(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(FOREIGN_POLICY)
    result = _run(pytester, FOREIGN_LOOP)
    result.assert_outcomes(failed=3)
    file = "test_who_made_the_loop_that_the_hub_fails_at_is_told"
    (line,) = _of(result, "test_waits")
    assert line.startswith(
        f"the hub's event loop is a {file}.Loop, not one of asyncio's own: {file}.py:10 in "
        "add_reader raised NotImplementedError in the hub, at eventlet/hubs/asyncio.py:"
    )
    assert not _of(result, "test_uses_it_itself")
    assert not _of(result, "test_fails_by_itself")


def test_who_has_a_task_of_the_hubs_loop_in_place_of_a_result_is_told_so(
    pytester: pytest.Pytester,
) -> None:
    result = _run(pytester, HAS_A_TASK)
    result.assert_outcomes(failed=5)
    file = "test_who_has_a_task_of_the_hubs_loop_in_place_of_a_result_is_told_so.py"
    told = (
        "is a task of version() in the hub's own event loop: under asyncio that loop runs in the "
        "thread for all code, once the hub has run"
    )
    assert _of(result, "test_calls_a_method") == [
        f"what has no 'split' at {file}:20 in major {told}"
    ]
    assert _of(result, "test_takes_an_item") == [f"found at {file}:30 in test_takes_an_item {told}"]
    assert not _of(result, "test_takes_an_item_of_one_of_two")
    assert not _of(result, "test_forgets_to_await")
    assert not _of(result, "test_has_one_of_another_loop")


def test_what_keeps_the_hub_from_running_its_loop_is_told(pytester: pytest.Pytester) -> None:
    result = _run(pytester, NESTED)
    result.assert_outcomes(failed=4)
    file = "test_what_keeps_the_hub_from_running_its_loop_is_told.py"
    assert _of(result, "test_waits_in_a_coroutine") == [
        "the asyncio hub is an event loop itself and cannot run inside of another one, where "
        f"{file}:8 in pause, called by coroutine {file}:12 in handle, waits for eventlet"
    ]
    (line,) = _of(result, "test_waits_in_a_coroutine_of_the_hub")
    assert line.startswith(
        f"{file}:8 in pause, called by coroutine {file}:12 in handle, waits for eventlet "
        "(eventlet/greenthread.py:"
    )
    assert " in sleep), which no coroutine can: " in line
    assert not [line for line in _of(result, "test_waits_in_the_hub") if "coroutine" in line]
    (line,) = _of(result, "test_replaces_the_hub")
    assert line.endswith("such as that of a hub that use_hub() has replaced")


def test_a_coroutine_in_another_hub_is_not_told_to_be_run_by_that(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(LOOP_IN_HUB)
    result = pytester.runpytest("--eventlet-hub=epolls")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * do not call blocking functions from the mainloop"])
    result.stdout.no_fnmatch_line("*which no coroutine can*")


@pytest.mark.fault("loop-closed")
def test_who_waits_after_the_hubs_loop_was_closed_learns_in_which_test(
    pytester: pytest.Pytester,
) -> None:
    result = _run(pytester, CLOSED)
    result.assert_outcomes(passed=1, failed=2)
    file = "test_who_waits_after_the_hubs_loop_was_closed_learns_in_which_test.py"
    assert _of(result, "test_waits") == [
        f"the hub's event loop was closed in the teardown of {file}::test_has_a_loop[asyncio]; "
        "every wait fails with RuntimeError: Event loop is closed"
    ]
    assert not _of(result, "test_fails_for_another_reason")
    results = json.loads((pytester.path / "eventlet-debug" / "results.json").read_text())
    told = [each.get("printed", "") for each in results["tests"]]
    assert [line.startswith("the hub's event loop was closed") for line in told] == [0, 1, 0]


@pytest.mark.fault("hub-ended")
def test_the_exception_that_ended_the_hub_is_told(pytester: pytest.Pytester) -> None:
    result = _run(pytester, EXITS)
    result.assert_outcomes(failed=1)
    file = "test_the_exception_that_ended_the_hub_is_told.py"
    (line,) = _of(result, "test_exits")
    assert line.startswith(
        f"SystemExit: 3, raised at {file}:10 in serve, ended the hub in this test; "
    )


def test_that_the_hub_does_not_start_again_is_no_reason_of_other_failures(
    pytester: pytest.Pytester,
) -> None:
    """What it runs as is a task, too, which ends with an error at each try."""
    result = _run(pytester, AFTER_IT)
    result.assert_outcomes(failed=2)
    assert _of(result, "test_exits")
    result.stdout.fnmatch_lines(["E * KeyError: 5"])
    assert not _of(result, "test_fails_by_itself")


def test_a_task_that_died_unheard_is_told_of_the_test_that_made_it(
    pytester: pytest.Pytester,
) -> None:
    result = _run(pytester, DIES)
    result.assert_outcomes(failed=3)
    file = "test_a_task_that_died_unheard_is_told_of_the_test_that_made_it.py"
    (line,) = _of(result, "test_waits_in_vain")
    assert line.endswith(
        f", listen(), ended with KeyError: 'data', raised at {file}:11 in listen; "
        "nobody has asked for its result"
    )
    # Tests of which the same is told stand in one line.
    result.stdout.no_fnmatch_line("*::test_waits_in_vain* and *")
    assert not _of(result, "test_fails_after_it")
    assert not _of(result, "test_asks")


def test_what_wakes_nobody_in_the_hub_of_another_thread_is_told(
    pytester: pytest.Pytester,
) -> None:
    result = _run(pytester, OTHER_THREAD)
    result.assert_outcomes(failed=2)
    (line,) = _of(result, "test_waits_for_another_thread")
    assert re.fullmatch(
        r"a timer in the hub of another thread has been due for \d+\.\d s and is not called, as "
        r"that thread does not run its hub: call Event\._do_send; an event, lock or queue of "
        r"eventlet's wakes nobody in another thread",
        line,
    )
    # That timer is an earlier test's.
    result.stdout.no_fnmatch_line("*::test_waits_for_another_thread* and 1 more")
    assert not _of(result, "test_waits_for_nobody")


@pytest.mark.parametrize("hub", ["epolls", "poll", "selects", "asyncio"])
def test_who_waits_for_a_descriptor_already_is_told(pytester: pytest.Pytester, hub: str) -> None:
    result = _run(pytester, SECOND, hub)
    result.assert_outcomes(failed=3)
    file = "test_who_waits_for_a_descriptor_already_is_told.py"
    (line,) = _of(result, "test_reads_twice")
    assert re.fullmatch(
        rf"greenthread drain, at {file}:8 in drain, already waits to read on descriptor \d+, which "
        rf"{file}:12 in ask wants to wait for, too; a hub wakes only one greenthread for each",
        line,
    )
    (line,) = _of(result, "test_reads_what_nobody_waits_for")
    assert re.match(r"the hub still has a read listener on descriptor \d+, which ", line)
    assert _of(result, "test_says_so_itself") == []


def test_that_epoll_refuses_a_regular_file_is_told(pytester: pytest.Pytester) -> None:
    file = "test_that_epoll_refuses_a_regular_file_is_told.py"
    for hub in ("epolls", "asyncio"):
        result = _run(pytester, REGULAR, hub)
        result.assert_outcomes(failed=2)
        (line,) = _of(result, "test_waits")
        assert re.match(
            rf"{file}:7 in test_waits waits for descriptor \d+, which epoll refuses \(EPERM\)", line
        )
        assert _of(result, "test_may_not") == []
    for hub in ("poll", "selects"):
        _run(pytester, REGULAR, hub).assert_outcomes(passed=1, failed=1)


def test_a_signal_handler_that_waits_in_the_hub_is_told(pytester: pytest.Pytester) -> None:
    file = "test_a_signal_handler_that_waits_in_the_hub_is_told.py"
    result = _run(pytester, CALLED)
    result.assert_outcomes(failed=3)
    (line,) = _of(result, "test_handles")
    assert re.fullmatch(
        rf"{file}:7 in handler, the handler of SIGUSR1 and SIGALRM, waits for eventlet "
        r"\(eventlet/greenthread\.py:\d+ in sleep\) in the hub itself, and only greenthreads can",
        line,
    )
    # An asyncio hub does not start again, and which error ended it is the hub's own, too.
    (line,) = _of(result, "test_handles_by_an_object")
    assert re.match(
        rf"RuntimeError: .*, raised at {file}:11 in waits, ended the hub in "
        rf"{file}::test_handles\[asyncio\];",
        line,
    )
    assert _of(result, "test_fails_by_itself") == []
    result = _run(pytester, CALLED, "epolls")
    result.assert_outcomes(failed=3)
    (line,) = _of(result, "test_handles_by_an_object")
    assert re.match(
        rf"{file}:16 in __call__, which is called by eventlet/hubs/poll\.py:\d+ in wait, waits ",
        line,
    )


def test_who_stops_the_loop_of_the_hub_is_told(pytester: pytest.Pytester) -> None:
    file = "test_who_stops_the_loop_of_the_hub_is_told.py"
    result = _run(pytester, STOPS)
    result.assert_outcomes(failed=4)
    (line,) = _of(result, "test_stops")
    stopped = f"stop() of the event loop was called at {file}:8 in shut_down"
    assert line.startswith(f"{stopped}, which ends the hub: ")
    (line,) = _of(result, "test_waits")
    assert f" in run_until_complete ({stopped}), ended the hub in {file}::test_stops[" in line
    for test in ("test_says_so_itself", "test_stops_another"):
        assert not [line for line in _of(result, test) if "which ends the hub" in line]


def test_that_a_callback_stops_the_loop_of_the_hub_is_told(pytester: pytest.Pytester) -> None:
    result = _run(pytester, STOPS_LATER)
    result.assert_outcomes(failed=1)
    (line,) = _of(result, "test_stops")
    assert line.startswith("stop() of the event loop was called by a callback of it, which ends ")
    result = pytester.runpytest("--eventlet-hub=asyncio", "-W", "ignore")
    (line,) = _of(result, "test_stops")
    assert line.startswith("stop() of the event loop was called, which ends the hub: ")


def test_who_cancels_the_task_of_the_hub_is_told(pytester: pytest.Pytester) -> None:
    result = _run(pytester, CANCELS)
    result.assert_outcomes(failed=2)
    assert _of(result, "test_shuts_down") == [
        "the asyncio hub runs as a task, which was cancelled at "
        "test_who_cancels_the_task_of_the_hub_is_told.py:9 in shut_down: asyncio.all_tasks() "
        "returns that one, too"
    ]
    assert "runs as a task" not in "".join(_of(result, "test_is_cancelled_itself"))


def test_who_keeps_the_loop_of_the_hub_from_hearing_signals_is_told(
    pytester: pytest.Pytester,
) -> None:
    file = "test_who_keeps_the_loop_of_the_hub_from_hearing_signals_is_told.py"
    result = _run(pytester, DEAF)
    result.assert_outcomes(failed=4)
    told = (
        "the hub's loop, whose add_signal_handler() is to handle SIGUSR1, has heard of no signal "
        "since "
    )
    (line,) = _of(result, "test_another_loop_takes_it")
    assert re.match(
        re.escape(told) + rf"signal\.set_wakeup_fd\(\d+\) at {file}:21 in another_loop: ", line
    )
    (line,) = _of(result, "test_a_library_takes_it")
    assert re.match(re.escape(told) + rf"signal\.set_wakeup_fd\(\d+\) at {file}:42 in test", line)
    assert _of(result, "test_a_library_gives_it_back") == []
    assert _of(result, "test_handles_no_signal") == []


def test_that_select_refuses_a_descriptor_is_told(pytester: pytest.Pytester) -> None:
    result = _run(pytester, BEYOND, "selects")
    result.assert_outcomes(failed=2)
    (line,) = _of(result, "test_waits")
    assert line == (
        "the hub selects cannot wait for descriptor 1500: select() takes only those below "
        "1024; the other hubs do not use it"
    )
    assert _of(result, "test_says_so_itself") == []
    _run(pytester, BEYOND, "epolls").assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_who_has_sent_an_event_before_is_told(pytester: pytest.Pytester, hub: str) -> None:
    result = _run(pytester, SENDS_TWICE, hub)
    result.assert_outcomes(failed=3)
    file = "test_who_has_sent_an_event_before_is_told.py"
    until = "; it can be sent once until it is reset"
    assert _of(result, "test_sends_twice") == [
        f"the event had already been sent at {file}:5 in worker{until}"
    ]
    assert _of(result, "test_sends_after_an_exception") == [
        f"the event had already been sent at {file}:16 in test_sends_after_an_exception{until}"
    ]
    assert _of(result, "test_resets") == []


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_what_python_ignores_of_eventlets_is_told(pytester: pytest.Pytester, hub: str) -> None:
    pytester.makepyfile(IGNORED)
    result = pytester.runpytest(f"--eventlet-hub={hub}")
    result.assert_outcomes(failed=2)
    (line,) = _of(result, "test_collects")
    assert re.fullmatch(
        r"ignored by Python: AssertionError: Cannot switch to MAINLOOP from MAINLOOP "
        r"\(\S+:14 in __del__\), called in the hub itself, where nothing can wait",
        line,
    )
    assert _of(result, "test_collects_another") == []


def test_an_asynchronous_generator_that_is_closed_late_is_told(pytester: pytest.Pytester) -> None:
    result = _run(pytester, LET_GO)
    result.assert_outcomes(passed=1, failed=3)
    (line,) = _of(result, "test_expects_it_to_be_closed")
    file = "test_an_asynchronous_generator_that_is_closed_late_is_told.py"
    assert line == (
        f"rows(), an asynchronous generator ({file}:6), was let go and is not closed yet: the "
        "hub's loop closes it in a task, once the hub runs again"
    )
    assert _of(result, "test_fails_before_any_turn_of_the_hub") == []
    assert _of(result, "test_fails_after_it_was_closed") == []
    _run(pytester, LET_GO, "epolls").assert_outcomes(passed=2, failed=2)


OF_ANOTHER_THREAD = """
import asyncio
import eventlet
from eventlet.asyncio import spawn_for_awaitable
from eventlet.patcher import original

threading = original("threading")

def complete(future):
    future.set_result(1)

async def call(deliver):
    future = asyncio.get_running_loop().create_future()
    threading.Timer(0.05, deliver, (future,)).start()
    return await future

def test_unheard():
    with eventlet.Timeout(0.5):
        spawn_for_awaitable(call(complete)).wait()

def deliver(future):
    future.get_loop().call_soon_threadsafe(complete, future)

def test_heard():
    assert spawn_for_awaitable(call(deliver)).wait() == 2

def test_nothing_of_earlier_tests():
    assert False
"""


def test_what_another_thread_has_a_loop_do_without_waking_it_is_told(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x=OF_ANOTHER_THREAD)
    result = pytester.runpytest("--eventlet-hub=asyncio", "--dump-asyncio-tasks", "-W", "ignore")
    result.assert_outcomes(failed=3)
    told = [line.strip() for line in result.outlines if "which does not wake" in line]
    assert len(told) == 1, told
    assert re.fullmatch(
        r"thread Thread-\d+ had the event loop run task Task-\d+, at test_x\.py:9 in complete, "
        r"which does not wake that loop: from another thread only call_soon_threadsafe\(\) does",
        told[0],
    )


WITHOUT_END = """
    from ssl import PROTOCOL_TLS_CLIENT, SSLContext, TLSVersion

    import eventlet
    from eventlet import pools

    eventlet.monkey_patch()


    def test_context():
        SSLContext(PROTOCOL_TLS_CLIENT).minimum_version = TLSVersion.TLSv1_2


    class Connections(pools.Pool):
        def create(self):
            return self.get()


    def test_pool():
        Connections(max_size=10**6).get()


    def count(number):
        return count(number + 1)


    def test_without_eventlet():
        count(0)
"""


@pytest.mark.parametrize("hubs", ["asyncio", "epolls,poll"])
def test_what_comes_back_to_itself_without_end_is_told(
    pytester: pytest.Pytester, hubs: str
) -> None:
    result = _run(pytester, WITHOUT_END, hubs)
    name = r"test_what_comes_back_to_itself_without_end_is_told\.py"
    assert re.fullmatch(
        rf"{name}:10 in test_context uses the ssl\.SSLContext from before monkey_patch\(\), which "
        r"has put eventlet\.green\.ssl\.GreenSSLContext in its place: ssl\.py:\d+ in "
        r"minimum_version looks for the methods of that one's base, and calls itself",
        _of(result, "test_context")[0],
    )
    assert re.fullmatch(
        rf"calls recurse without end, begun at {name}:19 in test_pool: "
        rf"eventlet/pools\.py:\d+ in get, {name}:15 in create, and so on",
        _of(result, "test_pool")[0],
    )
    assert _of(result, "test_without_eventlet") == []


OF_SLEEP = """
    from unittest import mock
    import eventlet

    def read_soon(times):
        reader, writer = eventlet.green.socket.socketpair()
        got = []
        eventlet.spawn(lambda: got.append(reader.recv(1)))
        eventlet.sleep(0)
        writer.sendall(b"x")
        for _ in range(times):
            eventlet.sleep(0)
        return got


    def test_mocked():
        with mock.patch("asyncio.sleep", mock.AsyncMock()):
            got = read_soon(1000)
        assert got


    async def quick(seconds):
        pass


    def test_replaced():
        with mock.patch("asyncio.sleep", quick):
            got = read_soon(1000)
        assert got


    def test_fails_otherwise():
        assert not read_soon(1000)
"""


def test_what_is_replaced_of_that_in_which_the_asyncio_hub_waits_is_told(
    pytester: pytest.Pytester,
) -> None:
    result = _run(pytester, OF_SLEEP)
    told = "asyncio.sleep(), in which the asyncio hub waits, was replaced by"
    only = "the hub sees events only if that waits, too"
    assert _of(result, "test_mocked") == [f"{told} AsyncMock: {only}"]
    assert _of(result, "test_replaced") == [f"{told} quick: {only}"]
    assert _of(result, "test_fails_otherwise") == []


OF_ASYNCIO = """
import asyncio
import concurrent.futures
import eventlet
from eventlet.asyncio import spawn_for_awaitable

class Executor(concurrent.futures.ThreadPoolExecutor):
    def submit(self, *args):
        eventlet.sleep(0.1)

def test_to_thread():
    loop = eventlet.hubs.get_hub().loop
    loop.set_default_executor(Executor())
    spawn_for_awaitable(asyncio.to_thread(int)).wait()
"""


def test_a_coroutine_of_asyncios_own_that_has_code_wait_for_eventlet_is_told(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x=OF_ASYNCIO)
    result = pytester.runpytest("--eventlet-hub=asyncio", "-W", "ignore")
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [
            r"    test_x\.py:8 in submit, called by coroutine asyncio/threads\.py:\d+ in to_thread,"
            r" waits for eventlet \(.*\), which no coroutine can: it is run by the asyncio hub, .*"
        ]
    )


OTHER_LOOPS = """
import asyncio
import eventlet
from eventlet import hubs, patcher
from eventlet.asyncio import spawn_for_awaitable

def in_a_thread(function):
    thread = patcher.original("threading").Thread(target=function)
    thread.start()
    thread.join()

async def wait_for(event):
    try:
        await asyncio.wait_for(event.wait(), 0.01)
    except asyncio.TimeoutError:
        pass

def test_event_of_another():
    event = asyncio.Event()
    in_a_thread(lambda: asyncio.run(wait_for(event)))
    spawn_for_awaitable(wait_for(event)).wait()

def test_event_of_the_hub():
    event = asyncio.Event()
    spawn_for_awaitable(wait_for(event)).wait()
    errors = []
    def run():
        try:
            asyncio.run(wait_for(event))
        except RuntimeError as error:
            errors.append(error)
    in_a_thread(run)
    raise errors[0]

def test_task_of_another():
    loop = asyncio.new_event_loop()
    task = loop.create_task(asyncio.sleep(0))
    async def wait():
        await task
    spawn_for_awaitable(wait()).wait()

def test_another_error_with_such_words():
    raise RuntimeError("x got Future <Future pending> attached to a different loop")
"""


def test_to_which_loop_belongs_what_cannot_be_waited_for_is_told(
    pytester: pytest.Pytester,
) -> None:
    result = _run(pytester, OTHER_LOOPS)
    result.assert_outcomes(failed=4)
    first = ": it belongs to the loop in which it was first waited for"
    assert _of(result, "test_event_of_another") == [
        "the Event belongs to an event loop that was closed, and is used in the hub's own "
        f"one{first}"
    ]
    assert _of(result, "test_event_of_the_hub") == [
        f"the Event belongs to the hub's own event loop, and is used in another one{first}"
    ]
    assert _of(result, "test_task_of_another") == [
        "what the task waits for belongs to an event loop, and is used in the hub's own one"
    ]
    assert not _of(result, "test_another_error_with_such_words")


RAISED_IN_IT = """
import asyncio
import eventlet
from eventlet import hubs

def leave():
    raise SystemExit(3)

kept = []  # else the hub's coroutine ends, once nobody has it, and another one begins

def test_raises():
    eventlet.sleep(0)
    loop = hubs.get_hub().loop
    kept.extend(asyncio.all_tasks(loop))
    loop.call_soon(leave)
    eventlet.sleep(60)

def test_waits():
    eventlet.sleep(0)
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there, later waits succeed")
@pytest.mark.fault("hub-ended")
def test_the_exception_that_ended_the_hub_is_told_without_dumps(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x=RAISED_IN_IT)
    result = pytester.runpytest("--eventlet-hub=asyncio", "-W", "ignore")
    result.assert_outcomes(failed=2)
    assert _of(result, "test_waits") == [
        "SystemExit: 3, raised at test_x.py:6 in leave, ended the hub in "
        "test_x.py::test_raises[asyncio]; it does not start again, so every wait fails with "
        "RuntimeError: Already running!"
    ]
