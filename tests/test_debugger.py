"""The dump at the prompt of a real debugger, on a real pty."""

from __future__ import annotations

import pytest

pytest.importorskip("pexpect")

CONFTEST = """
from pytest_eventlet_debug.alive.debugger import DebuggerDump
def pytest_configure(config):
    config.pluginmanager.register(DebuggerDump())
"""


@pytest.fixture(autouse=True)
def conftest(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)


def until_the_prompt(pytester: pytest.Pytester, arguments: str) -> str:
    """Run pytest on a pty, leave the debugger at its first prompt, return all it printed."""
    child = pytester.spawn_pytest(f"-p no:cacheprovider {arguments}", expect_timeout=60.0)
    child.expect(r"\(Pdb\)")
    printed: str = child.before.decode()
    child.sendline("q")
    child.expect(r"Quitting debugger|Exit: ")
    child.read()
    child.wait()
    return printed.replace("\r\n", "\n")


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
    printed = until_the_prompt(pytester, "--pdb")
    assert printed.count("asyncio tasks: 2 on 1 loop\n") == 1
    assert "running  Hub.run.<locals>.async_run()\n" in printed
    assert "test_cancelled.<locals>.go()" in printed
    assert "await asyncio.sleep(30)\n" in printed
    assert "waits on sleep, 29." in printed


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
    printed = until_the_prompt(pytester, "")
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
    printed = until_the_prompt(pytester, "--pdb")
    assert "asyncio tasks: 1 on 1 loop\n" in printed
    assert "test_fails.<locals>.elsewhere()\n" in printed


@pytest.mark.parametrize("line", ["assert False", "breakpoint()"])
def test_without_tasks_the_dump_says_so_once(pytester: pytest.Pytester, line: str) -> None:
    pytester.makepyfile(f"def test_plain():\n    {line}\n    x = 1")
    printed = until_the_prompt(pytester, "--pdb")
    assert printed.count("no asyncio tasks\n") == 1


def test_each_opening_of_the_debugger_has_its_own_dump(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_twice():
            breakpoint()
            breakpoint()
        """
    )
    child = pytester.spawn_pytest("-p no:cacheprovider", expect_timeout=60.0)
    for _ in range(2):
        child.expect(r"no asyncio tasks")
        child.expect(r"\(Pdb\)")
        assert b"asyncio tasks" not in child.before
        child.sendline("c")
    child.expect("1 passed")
    child.read()
    child.wait()


def test_two_registered_dumps_print_one(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST + "    config.pluginmanager.register(DebuggerDump())\n")
    pytester.makepyfile("def test_plain(): assert False")
    assert until_the_prompt(pytester, "--pdb").count("no asyncio tasks\n") == 1


def test_trace_opens_without_a_dump(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_plain():\n    x = 1")
    assert "asyncio tasks" not in until_the_prompt(pytester, "--trace")


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
    printed = until_the_prompt(pytester, "--pdb")
    assert "waits on <Awkward whose repr raised ZeroDivisionError>\n" in printed


def test_a_failure_of_the_dump_itself_is_one_line_and_the_debugger_opens(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        from pytest_eventlet_debug.alive import debugger
        def broken():
            raise SystemExit("broken")
        def test_fails(monkeypatch):
            monkeypatch.setattr(debugger, "find_tasks", broken)
            assert False
        """
    )
    printed = until_the_prompt(pytester, "--pdb")
    assert "asyncio tasks could not be listed: SystemExit\n" in printed
