"""The dump at the prompt of a real debugger, on a real pty."""

from __future__ import annotations

from importlib.util import find_spec
import re
import sys

import pytest

pytest.importorskip("pexpect")

OURS = "-p no:cacheprovider -p pytest_eventlet_debug.plugin"
DUMP = "--pdb --dump-asyncio-tasks"
PDB = r"\(Pdb(\+\+)?\) "  # where pdbpp is installed, it is everywhere


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load no other plugins, which takes longer than all else."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def until_the_prompt(pytester: pytest.Pytester, arguments: str) -> str:
    """Run pytest on a pty, leave the debugger at its first prompt, return all it printed."""
    return session(pytester, arguments)[0]


def session(pytester: pytest.Pytester, arguments: str, *lines: str, prompt: str = PDB) -> list[str]:
    """Type lines at the first prompt; return what was printed before it and after each."""
    child = pytester.spawn_pytest(f"{OURS} {arguments}", expect_timeout=60.0)
    printed = []
    for line in (*lines, "q"):
        child.expect(prompt)
        printed.append(child.before.decode().replace("\r\n", "\n"))
        child.sendline(line)
    child.expect(r"Quitting debugger|Exit: ")
    child.read()
    child.wait()
    return printed


def test_the_task_of_the_asyncio_hub_is_listed_as_running_when_a_test_is_cancelled(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTLET_HUB", "asyncio")
    pytester.makepyfile(
        """
        import asyncio
        import eventlet
        from eventlet.asyncio import spawn_for_awaitable

        def test_cancelled():
            async def go():
                await asyncio.sleep(30)
            waiting = spawn_for_awaitable(go())
            eventlet.sleep(0.01)
            raise asyncio.CancelledError
        """
    )
    printed = until_the_prompt(pytester, DUMP)
    assert printed.count("asyncio tasks: 2 on 1 loop\n") == 1
    assert "running  Hub.run.<locals>.async_run()\n" in printed
    assert "test_cancelled.<locals>.go()" in printed
    assert "await asyncio.sleep(30)\n" in printed
    assert re.search(r"waits on sleep, 2\d\.", printed)
    # What eventlet runs it in.
    assert "spawn_for_awaitable.<locals>._run  suspended  (greenlet " in printed
    assert "hub asyncio, running: " in printed


def test_a_breakpoint_in_a_coroutine_shows_the_current_task_and_its_chain(
    pytester: pytest.Pytester,
) -> None:
    path = pytester.makepyfile(
        """
        import asyncio
        async def inner():
            breakpoint()
        async def outer():
            await inner()
        def test_breakpoint():
            asyncio.run(outer())
        """
    )
    printed = until_the_prompt(pytester, "--dump-asyncio-tasks")
    assert "asyncio tasks: 1 on 1 loop\n" in printed
    assert "running  outer()\n" in printed
    assert f"{path.name}:5 in outer\n        await inner()\n" in printed
    assert f"{path.name}:3 in inner\n        breakpoint()\n" in printed


def test_tasks_of_a_loop_in_another_thread_are_shown(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio, threading
        def test_fails():
            started = threading.Event()
            async def elsewhere():
                started.set()
                await asyncio.sleep(60)
            threading.Thread(
                target=asyncio.run, args=(elsewhere(),), name="elsewhere", daemon=True
            ).start()
            assert started.wait(30)
            assert False
        """
    )
    printed = until_the_prompt(pytester, DUMP)
    assert "asyncio tasks: 1 on 1 loop\n" in printed
    assert "test_fails.<locals>.elsewhere()\n" in printed


@pytest.mark.parametrize("line", ["assert False", "breakpoint()"])
def test_without_tasks_the_dump_says_so_once(pytester: pytest.Pytester, line: str) -> None:
    pytester.makepyfile(f"def test_plain():\n    {line}\n    x = 1")
    printed = until_the_prompt(pytester, DUMP)
    assert printed.count("no asyncio tasks\n") == 1


def test_each_opening_of_the_debugger_has_its_own_dump(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_twice():
            breakpoint()
            breakpoint()
        """
    )
    child = pytester.spawn_pytest(f"{OURS} --dump-asyncio-tasks", expect_timeout=60.0)
    for _ in range(2):
        child.expect(r"no asyncio tasks")
        child.expect(r"\(Pdb\)")
        assert b"asyncio tasks" not in child.before
        child.sendline("c")
    child.expect("1 passed")
    child.read()
    child.wait()


def test_two_registered_dumps_print_one(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        from pytest_eventlet_debug.alive.dump import AliveDump
        def pytest_configure(config):
            config.pluginmanager.register(AliveDump(config, lambda item: None, str))
        """
    )
    pytester.makepyfile("def test_plain(): assert False")
    assert until_the_prompt(pytester, DUMP).count("no asyncio tasks\n") == 1


def test_trace_opens_without_a_dump(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_plain():\n    x = 1")
    assert "asyncio tasks" not in until_the_prompt(pytester, "--dump-asyncio-tasks --trace")


def test_a_task_that_raises_from_its_repr_does_not_keep_the_debugger_from_opening(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import asyncio
        class Awkward(asyncio.Future):
            def __repr__(self):
                raise ZeroDivisionError
        def test_fails():
            loop = asyncio.new_event_loop()
            awkward = Awkward(loop=loop)
            async def wait():
                await awkward
            task = loop.create_task(wait())
            loop.run_until_complete(asyncio.sleep(0))
            assert False
        """
    )
    printed = until_the_prompt(pytester, DUMP)
    assert "waits on <Awkward whose repr raised ZeroDivisionError>\n" in printed


def test_a_failure_of_the_dump_itself_is_one_line_and_the_debugger_opens(
    pytester: pytest.Pytester,
) -> None:
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
    printed = until_the_prompt(pytester, DUMP)
    assert "what is alive could not be listed: SystemExit\n" in printed


FOUR_WAITING = """
        import asyncio
        async def wait(number):
            await asyncio.sleep(60)
        async def fail():
            for number in range(4):
                asyncio.create_task(wait(number), name=f"waiting-{number}")
            await asyncio.sleep(0)
            raise ZeroDivisionError
"""
WAITING = "and 3 more with this stack: waiting-1, waiting-2, waiting-3\n"


def test_tasks_that_asyncio_run_cancelled_are_shown_as_they_were(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        FOUR_WAITING
        + """
        def test_run():
            asyncio.run(fail())
    """
    )
    printed = until_the_prompt(pytester, DUMP)
    assert "no asyncio tasks are left\n" in printed
    cancelled = (
        "4 tasks were cancelled when ZeroDivisionError left run_until_complete(); until then:\n"
    )
    assert cancelled in printed
    assert WAITING in printed
    assert "created at test_tasks_that" in printed


def test_tasks_that_unittest_cancelled_are_shown_as_they_were(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        FOUR_WAITING
        + """
        import unittest
        class TestAsync(unittest.IsolatedAsyncioTestCase):
            async def test_fails(self):
                await fail()
    """
    )
    printed = until_the_prompt(pytester, DUMP)
    assert "cancelled when ZeroDivisionError left run_until_complete(); until then:\n" in printed
    assert WAITING in printed


def test_tasks_of_pytest_asyncio_are_shown(pytester: pytest.Pytester) -> None:
    pytest.importorskip("pytest_asyncio")
    pytester.makepyfile(
        FOUR_WAITING
        + """
        import pytest
        @pytest.mark.asyncio
        async def test_fails():
            await fail()
    """
    )
    printed = until_the_prompt(pytester, f"{DUMP} -p pytest_asyncio.plugin")
    assert "asyncio tasks: 4 on 1 loop\n" in printed
    assert WAITING in printed


def test_tasks_of_anyio_are_shown(pytester: pytest.Pytester) -> None:
    pytest.importorskip("anyio")
    pytester.makepyfile(
        FOUR_WAITING
        + """
        import pytest
        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_fails(anyio_backend):
            await fail()
    """
    )
    printed = until_the_prompt(pytester, f"{DUMP} -p anyio.pytest_plugin")
    assert "cancelled when ZeroDivisionError left run_until_complete(); until then:\n" in printed
    assert WAITING in printed


def test_a_breakpoint_in_a_coroutine_on_the_asyncio_hub_under_monkey_patch(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTLET_HUB", "asyncio")
    pytester.makeconftest("import eventlet; eventlet.monkey_patch()")
    pytester.makepyfile(
        """
        import asyncio, threading, time
        from eventlet.asyncio import spawn_for_awaitable
        def sleeper():
            time.sleep(60)
        def test_stops():
            threading.Thread(target=sleeper, daemon=True).start()
            async def go():
                await asyncio.sleep(0.01)
                breakpoint()
            spawn_for_awaitable(go()).wait()
        """
    )
    printed = until_the_prompt(pytester, "--dump-asyncio-tasks")
    assert "running  test_stops.<locals>.go()\n" in printed
    assert "waiting  Hub.run.<locals>.async_run()\n" in printed
    assert "  sleeper  suspended  (greenlet " in printed
    assert re.search(r"waits on sleep, 5\d\.", printed)
    # The test waits, too, and is no part of pytest.
    assert re.search(r"  the test  suspended  \(greenlet \d+\)\n    test_a_breakpoint", printed)


def test_each_hub_has_its_dump(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import eventlet
        def test_fails():
            eventlet.spawn(eventlet.sleep, 60)
            eventlet.sleep(0)
            assert False
        """
    )
    child = pytester.spawn_pytest(
        f"{OURS} --eventlet-hub=epolls,asyncio {DUMP}", expect_timeout=60.0
    )
    for hub in (b"hub epolls, running: ", b"hub asyncio, running: "):
        child.expect(PDB)
        assert hub in child.before
        assert b"  sleep  suspended" in child.before
        child.sendline("c")
    child.expect("2 failed")
    child.read()
    child.wait()


def test_ipython_has_the_dump_and_the_commands(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("IPython")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("PROMPT_TOOLKIT_NO_CPR", "1")
    pytester.makepyfile(
        FOUR_WAITING
        + """
        def test_run():
            asyncio.run(fail())
    """
    )
    debugger = "--pdbcls=IPython.terminal.debugger:TerminalPdb"
    printed = session(pytester, f"{DUMP} {debugger}", "tasks waiting-2", prompt="ipdb>")
    assert WAITING in printed[0]
    assert "waiting-2  waiting" in printed[1]
    assert "waiting-1" not in printed[1]


def test_pdbpp_has_the_dump_and_the_commands(pytester: pytest.Pytester) -> None:
    pytest.importorskip("pdbpp")
    pytester.makepyfile("def test_plain():\n    assert False")
    debugger = "--pdbcls=pdbpp:Pdb"
    printed = session(pytester, f"{DUMP} {debugger}", "tasks", prompt=r"\(Pdb\+\+\) ")
    assert "no asyncio tasks\n" in printed[0]
    assert "no asyncio tasks\n" in printed[1]


def test_the_commands_print_what_is_alive_now(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTLET_HUB", "epolls")  # the asyncio hub is a task itself
    pytester.makepyfile(
        """
        import asyncio, eventlet
        async def work():
            await asyncio.sleep(60)
        def serve(listener):
            listener.accept()
        def test_fails():
            loop = asyncio.new_event_loop()
            listener = eventlet.listen(("127.0.0.1", 0))
            eventlet.spawn(serve, listener)
            eventlet.spawn(eventlet.sleep, 60)
            eventlet.sleep(0)
            assert False
        """
    )
    shown = session(
        pytester,
        DUMP,
        "x = loop.create_task(work(), name='late')",
        "tasks",
        "tasks nobody",
        "greenlets",
        "greenlets serve",
        "hub",
        "hub serve",
        "help",
        "help hub",
    )
    printed = dict(
        zip(
            (
                "opening",
                "made",
                "tasks",
                "nobody",
                "greenlets",
                "serve",
                "hub",
                "narrow",
                "help",
                "hub?",
            ),
            shown,
            strict=True,
        )
    )
    assert "no asyncio tasks\n" in printed["opening"]
    assert "(tasks, greenlets and hub print this again;" in printed["opening"]
    assert "late  ready  work()\n" in printed["tasks"]
    assert "none of 1 tasks has 'nobody'\n" in printed["nobody"]
    assert "greenthreads: 2\n" in printed["greenlets"]
    assert "greenthreads: 1\n  serve  suspended  (greenlet " in printed["serve"]
    assert "waits on read on fd" in printed["serve"]
    assert "TCP 127.0.0.1:" in printed["serve"]
    assert ": 1 listener, 1 timer\n" in printed["hub"]
    assert "wake greenthread sleep\n" in printed["hub"]
    assert ": 1 listener, no timers\n" in printed["narrow"]
    assert {"tasks", "greenlets", "hub"} < set(printed["help"].split())
    assert "listeners with their sockets' addresses" in printed["hub?"]


@pytest.mark.skipif(find_spec("pdbpp") is not None, reason="pdbpp sees to it by itself")
def test_a_variable_of_a_commands_name_stays_a_variable(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_fails():
            tasks = ["mine"]
            assert not tasks
        """
    )
    shown = session(
        pytester,
        DUMP,
        "tasks",
        "tasks[0] + 'x'",
        "tasks = 5",
        "tasks == 5",
        "all_tasks",
        "hub = 7",
        "hub",
    )
    assert "['mine']\n(tasks is a variable here; use all_tasks for the command)\n" in shown[1]
    assert "'minex'\n" in shown[2]
    assert "True\n" in shown[4]
    assert "no asyncio tasks\n" in shown[5]
    assert "7\n(hub is a variable here;" in shown[7]


def test_the_commands_are_there_after_trace(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_plain():\n    x = 1\n    y = 2")
    printed = session(pytester, "--dump-asyncio-tasks --trace", "tasks")
    assert "no asyncio tasks\n" in printed[1]


@pytest.mark.usefixtures("unmeasured")  # it has the greenlets numbered from another one on
def test_greenlet_moves_into_a_greenthread_and_back(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTLET_HUB", "epolls")
    path = pytester.makepyfile(
        """
        import gc
        import eventlet
        def serve(listener, secret):
            doubled = secret * 2
            listener.accept()
        def test_stops():
            gc.disable()  # it moves objects, and the numbers follow their order
            here = "the test"
            listener = eventlet.listen(("127.0.0.1", 0))
            eventlet.spawn(serve, listener, 21)
            eventlet.spawn(eventlet.sleep, 60)
            waiting = eventlet.spawn_after(60, serve)
            eventlet.sleep(0)
            breakpoint()
            after = 1
            greenlet = after
        """
    )
    number, late = 2, 4  # in the order in which they were made, after the hub's
    typed = {
        f"greenlet {number}": f"> {pytester.path}/{path.name}(5)serve()",
        "p doubled": "42",
        "up": "main()",
        "where": "hub.py",
        "down": "serve()",
        "greenlet": f"greenlet {number}\n",
        "greenlet 999": "there is no greenlet 999",
        "greenlet serve": "greenlet takes a number",
        f"greenlet {late}": "has not begun",
        "greenlet 0": "\nback in the test's own frames",
        "p here": "'the test'",
        "greenlet main": "already in",
        f"to_greenlet {number}": "serve()",
        # From Python 3.13 on, pdb stops at breakpoint() and not behind it.
        **({"next": "-> after = 1"} if sys.version_info >= (3, 13) else {}),
        "n": f"{path.name}(16)test_stops()\n-> greenlet = after",
        "p here, after": "('the test', 1)",
        "help greenlet": "Move into the frames of a waiting greenthread",
    }
    opening, *answers = session(pytester, "--dump-asyncio-tasks", *typed)
    assert f"  serve  suspended  (greenlet {number})\n" in opening
    assert f"  serve  not started  (greenlet {late})\n" in opening
    for (line, expected), answer in zip(typed.items(), answers, strict=True):
        assert expected in answer, (line, answer)
