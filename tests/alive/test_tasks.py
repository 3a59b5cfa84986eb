"""What is found and shown of asyncio tasks, in this process or, for a clean one, another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from collections.abc import Awaitable
from collections.abc import Callable
from collections.abc import Coroutine
from collections.abc import Iterator
import gc
import subprocess
import sys
import threading
import time
import types
from typing import Any

import pytest

from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.model import Waits
from pytest_eventlet_debug.alive.model import short_repr
from pytest_eventlet_debug.alive.render import render_tasks
from pytest_eventlet_debug.alive.tasks import AliveTasks
from pytest_eventlet_debug.alive.tasks import Loop
from pytest_eventlet_debug.alive.tasks import Task
from pytest_eventlet_debug.alive.tasks import find_tasks


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Yield a loop of which no task is left afterwards."""
    loop = asyncio.new_event_loop()
    yield loop
    cancel_all(loop)
    loop.close()
    del loop
    gc.collect()


def cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        try:
            task.cancel()
        except RecursionError:
            # Tasks in a circle can be neither cancelled nor awaited, only dropped.
            task._log_destroy_pending = False  # type: ignore[attr-defined]
    settle(loop)


def settle(loop: asyncio.AbstractEventLoop, turns: int = 5) -> None:
    """Let all tasks run until they wait."""

    async def spin() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    loop.run_until_complete(spin())


def named(name: str) -> Task:
    (task,) = (task for task in find_tasks().tasks if task.name == name)
    return task


def wait_text(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, object], name: str
) -> str:
    task = loop.create_task(coroutine, name=name)
    settle(loop)
    found = named(name)
    assert not task.done()
    assert found.waits is not None
    return found.waits.text


def test_without_asyncio_there_are_no_tasks_and_it_is_not_imported() -> None:
    program = """
import sys
from pytest_eventlet_debug.alive.render import render_tasks
from pytest_eventlet_debug.alive.tasks import find_tasks
assert render_tasks(find_tasks()) == "no asyncio tasks\\n", render_tasks(find_tasks())
assert "asyncio" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_tasks_of_a_stopped_loop_are_found(loop: asyncio.AbstractEventLoop) -> None:
    task = loop.create_task(asyncio.sleep(99), name="on a stopped loop")
    settle(loop)
    found = named("on a stopped loop")
    assert (found.id, found.loop, found.state) == (id(task), id(loop), "waiting")
    assert found.coroutine == "sleep()"
    assert Loop(id(loop), type(loop).__qualname__, "not running", None) in find_tasks().loops


def test_tasks_of_a_closed_loop_are_found() -> None:
    loop = asyncio.new_event_loop()
    future = loop.create_future()

    async def wait() -> None:
        await future

    task = loop.create_task(wait(), name="on a closed loop")
    settle(loop)
    loop.close()
    assert named("on a closed loop").state == "waiting"
    assert [found.state for found in find_tasks().loops if found.id == id(loop)] == ["closed"]
    # Nothing can finish it any more; do not let asyncio complain of that.
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_tasks_of_a_loop_that_runs_in_another_thread_are_found() -> None:
    loop = asyncio.new_event_loop()
    waiting = threading.Event()
    stop: asyncio.Event | None = None

    async def wait(stop: asyncio.Event) -> None:
        waiting.set()
        await stop.wait()

    async def main() -> None:
        nonlocal stop
        stop = asyncio.Event()
        await asyncio.create_task(wait(stop), name="in another thread")

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), name="other")
    thread.start()
    try:
        assert waiting.wait(30)
        found = named("in another thread")
        states = [(at.state, at.thread) for at in find_tasks().loops if at.id == id(loop)]
        assert states == [("running", "other")]
        assert found.coroutine.endswith("wait()")
    finally:
        assert stop is not None
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
        loop.close()


def test_the_four_living_states_are_told_apart(loop: asyncio.AbstractEventLoop) -> None:
    states: dict[str, str] = {}

    async def stubborn() -> None:
        try:
            await asyncio.sleep(99)
        except asyncio.CancelledError:
            await asyncio.sleep(99)

    async def main() -> None:
        cancelling = loop.create_task(stubborn(), name="c")
        waiting = loop.create_task(asyncio.sleep(99), name="w")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        cancelling.cancel()
        ready = loop.create_task(asyncio.sleep(99), name="r")
        states.update((task.name, task.state) for task in find_tasks().tasks)
        assert not any(task.done() for task in (cancelling, waiting, ready))
        await asyncio.sleep(0)
        cancelling.cancel()
        await asyncio.sleep(0)

    loop.run_until_complete(loop.create_task(main(), name="m"))
    assert {name: states[name] for name in "cwrm"} == {
        "c": "cancelling",
        "w": "waiting",
        "r": "ready",
        "m": "running",
    }


def test_finished_tasks_are_counted_and_not_listed(loop: asyncio.AbstractEventLoop) -> None:
    before = find_tasks().done
    task = loop.create_task(asyncio.sleep(0), name="finished")
    loop.run_until_complete(task)
    alive = find_tasks()
    assert alive.done > before
    assert "finished" not in [task.name for task in alive.tasks]
    assert "still in memory" in render_tasks(alive)


def test_the_chain_goes_through_coroutines_generators_and_async_generators(
    loop: asyncio.AbstractEventLoop,
) -> None:
    async def numbers() -> AsyncIterator[int]:
        await asyncio.sleep(99)
        yield 1

    class Custom:
        def __await__(self) -> Iterator[Any]:
            async def inner() -> None:
                async for _ in numbers():
                    pass

            yield from inner().__await__()

    async def outer() -> None:
        await Custom()  # type: ignore[misc]

    task = loop.create_task(outer(), name="chained")
    settle(loop)
    stack = [frame.function.rpartition(".")[2] for frame in named("chained").stack]
    assert stack == ["outer", "__await__", "inner", "numbers", "sleep"]
    assert not task.done()


def test_the_frames_between_a_running_task_and_the_debugger_are_shown(
    loop: asyncio.AbstractEventLoop,
) -> None:
    seen: list[Frame] = []

    async def inner() -> None:
        seen.extend(named("running").stack)

    async def outer() -> None:
        await inner()

    loop.run_until_complete(loop.create_task(outer(), name="running"))
    assert [frame.function.rpartition(".")[2] for frame in seen] == ["outer", "inner"]


def test_a_sleep_says_how_much_time_is_left(loop: asyncio.AbstractEventLoop) -> None:
    task = loop.create_task(asyncio.sleep(99), name="sleeper")
    settle(loop)
    waits = named("sleeper").waits
    assert not task.done()
    assert waits is not None
    assert waits.kind == "sleep"
    assert waits.seconds is not None
    assert 50 < waits.seconds <= 99


def in_loop(make: Callable[[], object]) -> Callable[[], Awaitable[Any]]:
    async def wait() -> None:
        made: Any = make()
        if isinstance(made, (asyncio.Lock, asyncio.Semaphore)):
            await made.acquire()
            await made.acquire()
        elif isinstance(made, asyncio.Queue):
            await made.get()
        elif isinstance(made, asyncio.Condition):
            async with made:
                await made.wait()
        elif isinstance(made, asyncio.Event):
            await made.wait()
        else:
            await made

    return wait


BY_ITSELF = "held by task waiter, test_what_a_task_waits_on_is_named.<locals>.wait()"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (asyncio.Lock, f"Lock.acquire, locked, 1 waiting, {BY_ITSELF}"),
        (lambda: asyncio.Semaphore(1), f"Semaphore.acquire, value 0, 1 waiting, {BY_ITSELF}"),
        (asyncio.Event, "Event.wait, not set, 1 waiting"),
        (asyncio.Condition, "Condition.wait, 1 waiting"),
        (lambda: asyncio.Queue(3), "Queue.get, 0 items of 3"),
        (lambda: asyncio.get_running_loop().create_future(), "a Future, not done"),
        (
            lambda: asyncio.gather(asyncio.sleep(99), asyncio.sleep(99)),
            "gather of 2",
        ),
        (
            lambda: asyncio.wait([asyncio.ensure_future(asyncio.sleep(99))]),
            "asyncio.wait of 1",
        ),
        (
            lambda: asyncio.get_running_loop().create_task(asyncio.sleep(99), name="other"),
            "task other",
        ),
    ],
)
def test_what_a_task_waits_on_is_named(
    loop: asyncio.AbstractEventLoop, make: Callable[[], object], text: str
) -> None:
    async def wait() -> None:
        await in_loop(make)()

    assert wait_text(loop, wait(), "waiter") == text


def test_tasks_that_await_each_other_are_a_deadlock(loop: asyncio.AbstractEventLoop) -> None:
    tasks: dict[str, asyncio.Task[None]] = {}

    async def await_task(name: str) -> None:
        await asyncio.sleep(0)
        await tasks[name]

    tasks["A"] = loop.create_task(await_task("B"), name="A")
    tasks["B"] = loop.create_task(await_task("C"), name="B")
    tasks["C"] = loop.create_task(asyncio.wait_for(await_task("A"), None), name="C")
    settle(loop)
    text = render_tasks(find_tasks())
    circles = [f"{x} -> {y} -> {z} -> {x}" for x, y, z in ("ABC", "BCA", "CAB")]
    assert sum(f"DEADLOCK: await cycle {circle}\n" in text for circle in circles) == 1


async def holds(lock: Any) -> None:
    async with lock:
        await asyncio.sleep(99)


async def acquires(lock: Any) -> None:
    await lock.acquire()
    try:
        await asyncio.sleep(99)
    finally:
        lock.release()


async def acquires_elsewhere(lock: Any) -> None:
    await asyncio.gather(lock.acquire())
    await asyncio.sleep(99)


@pytest.mark.parametrize(
    ("make", "hold", "text"),
    [
        (asyncio.Lock, holds, "Lock.acquire, locked, 1 waiting, held by task holder, holds()"),
        (
            asyncio.Lock,
            acquires,
            "Lock.acquire, locked, 1 waiting, held by task holder, acquires()",
        ),
        (asyncio.Lock, acquires_elsewhere, "Lock.acquire, locked, 1 waiting"),
        (
            lambda: asyncio.Semaphore(1),
            holds,
            "Semaphore.acquire, value 0, 1 waiting, held by task holder, holds()",
        ),
    ],
)
def test_the_task_that_holds_a_lock_is_named_if_its_frames_prove_it(
    loop: asyncio.AbstractEventLoop,
    make: Callable[[], Any],
    hold: Callable[[Any], Coroutine[Any, Any, None]],
    text: str,
) -> None:
    lock = make()
    loop.create_task(hold(lock), name="holder")
    settle(loop)
    assert wait_text(loop, lock.acquire(), "waiter") == text
    assert bool(named("waiter").needs) == ("held by" in text)


def test_what_a_debugger_has_set_in_a_task_that_runs_stays_set(
    loop: asyncio.AbstractEventLoop,
) -> None:
    lock = asyncio.Lock()

    async def runs() -> object:
        value = 1
        async with lock:
            waiter = loop.create_task(lock.acquire(), name="waiter")
            await asyncio.sleep(0)
            names = sys._getframe().f_locals
            names["value"] = 2
            waits = named("waiter").waits
            waiter.cancel()
            assert waits is not None
            assert waits.text == "Lock.acquire, locked, 1 waiting"
            return names["value"] if value else None

    assert loop.run_until_complete(runs()) == 2


def test_a_task_that_waits_for_a_condition_does_not_hold_its_lock(
    loop: asyncio.AbstractEventLoop,
) -> None:
    lock = asyncio.Lock()
    condition = asyncio.Condition(lock)

    async def waits_for_it() -> None:
        async with lock:
            await condition.wait()

    loop.create_task(waits_for_it())
    loop.create_task(acquires_elsewhere(lock))
    settle(loop)
    assert wait_text(loop, lock.acquire(), "waiter") == "Lock.acquire, locked, 1 waiting"


def test_tasks_that_take_locks_in_opposite_order_are_a_deadlock(
    loop: asyncio.AbstractEventLoop,
) -> None:
    a, b = asyncio.Lock(), asyncio.Lock()

    async def take(first: asyncio.Lock, second: asyncio.Lock) -> None:
        async with first:
            await asyncio.sleep(0)
            async with second:
                pass

    loop.create_task(take(a, b), name="A")
    loop.create_task(take(b, a), name="B")
    settle(loop)
    text = render_tasks(find_tasks())
    assert "DEADLOCK, unless another one lets them go on: " in text
    assert text.count("DEADLOCK") == 1


class Setters:
    """Coroutines that wait, and would set an event or not."""

    def __init__(self, event: asyncio.Event, future: asyncio.Future[int]) -> None:
        self.event = event
        self.future = future

    async def later(self) -> None:
        await asyncio.sleep(99)
        self.event.set()

    async def result(self) -> None:
        try:
            await asyncio.sleep(99)
        except OSError as error:
            self.future.set_exception(error)

    async def in_a_loop(self) -> None:
        while True:
            self.event.set() if self.future.done() else None
            await asyncio.sleep(99)

    async def at_last(self) -> None:
        try:
            await asyncio.sleep(99)
        finally:
            self.event.set()

    async def before(self) -> None:
        if self.future.done():
            self.event.set()
        await asyncio.sleep(99)

    async def in_the_other_branch(self) -> None:
        if not self.future.done():
            await asyncio.sleep(99)
        else:
            self.event.set()

    async def in_the_other_handler(self) -> None:
        try:
            raise KeyError
        except KeyError:
            await asyncio.sleep(99)
        except OSError:
            self.event.set()

    async def in_a_function(self) -> None:
        await asyncio.sleep(99)
        asyncio.get_running_loop().call_soon(lambda: self.event.set())

    async def of_another(self) -> None:
        await asyncio.sleep(99)
        asyncio.Event().set()


@pytest.mark.parametrize(
    ("setter", "line"),
    [
        (Setters.later, 2),
        (Setters.result, 4),
        (Setters.in_a_loop, 2),
        (Setters.at_last, 4),
        (Setters.before, None),
        (Setters.in_the_other_branch, None),
        (Setters.in_the_other_handler, None),
        (Setters.in_a_function, None),
        (Setters.of_another, None),
    ],
)
def test_the_task_that_has_yet_to_set_what_another_waits_for_is_named(
    loop: asyncio.AbstractEventLoop,
    setter: Callable[[Setters], Coroutine[Any, Any, None]],
    line: int | None,
) -> None:
    of_future = setter is Setters.result
    setters = Setters(asyncio.Event(), loop.create_future())
    loop.create_task(setter(setters), name="setter")
    settle(loop)

    async def wait() -> None:
        await (setters.future if of_future else setters.event.wait())

    text = wait_text(loop, wait(), "waiter")
    expected = "a Future, not done" if of_future else "Event.wait, not set, 1 waiting"
    if line is not None:
        code: types.CodeType = setter.__code__  # type: ignore[attr-defined]
        at = Frames().at(code, code.co_firstlineno + line)
        who = f"{at.location} in {at.function} by task setter, {setter.__qualname__}()"
        expected += f", may be set at {who}"
    assert text == expected
    assert bool(named("waiter").needs) == (line is not None)


def test_tasks_that_merely_await_another_are_no_deadlock(
    loop: asyncio.AbstractEventLoop,
) -> None:
    async def await_task(task: asyncio.Task[None]) -> None:
        await asyncio.shield(task)
        await task

    first = loop.create_task(asyncio.sleep(99), name="first")
    others = [loop.create_task(await_task(first)) for _ in range(3)]
    settle(loop)
    assert find_tasks().cycles == ()
    assert not any(task.done() for task in others)


@pytest.mark.fault("hostile-repr")
def test_an_awaitable_or_name_whose_repr_raises_harms_nothing(
    loop: asyncio.AbstractEventLoop,
) -> None:
    class Awkward(asyncio.Future[None]):
        def __repr__(self) -> str:
            raise ZeroDivisionError

    awkward = Awkward(loop=loop)

    async def wait() -> None:
        await awkward

    text = wait_text(loop, wait(), "awkward")
    assert "Awkward whose repr raised ZeroDivisionError>" in text
    assert "awkward  waiting" in render_tasks(find_tasks())


def test_a_task_that_cannot_be_read_is_listed_all_the_same(
    loop: asyncio.AbstractEventLoop,
) -> None:
    class Hostile(asyncio.tasks._PyTask):  # type: ignore[name-defined, misc]
        def get_coro(self) -> object:
            raise SystemExit("hostile")

    task = Hostile(asyncio.sleep(99), loop=loop, name="hostile")
    settle(loop)
    found = named("hostile")
    assert not task.done()
    assert found.waits == Waits("unreadable", "could not be read: SystemExit")


def test_a_repr_is_one_line_of_limited_length() -> None:
    assert short_repr("x" * 1000) == "'" + "x" * 96 + "..."
    assert short_repr([1, 2]) == "[1, 2]"


def test_ten_thousand_tasks_with_one_stack_are_one_block_made_fast(
    loop: asyncio.AbstractEventLoop,
) -> None:
    async def worker() -> None:
        await asyncio.sleep(99)

    tasks = [loop.create_task(worker(), name=f"w-{n}") for n in range(10_000)]
    settle(loop)
    start = time.process_time()
    text = render_tasks(find_tasks())
    assert time.process_time() - start < 5
    assert "asyncio tasks: 10,000 on 1 loop\n" in text
    assert "w-0  waiting" in text
    assert "and 9,999 more with this stack: w-1, w-2, w-3, ...\n" in text
    assert len(text) < 2000
    assert not any(task.done() for task in tasks)


def made_up(number: int, **changes: Any) -> Task:
    fields: dict[str, Any] = {
        "id": number,
        "loop": 1,
        "name": f"Task-{number}",
        "state": "waiting",
        "coroutine": "work()",
        "stack": (),
        "waits": None,
        "awaits": (),
    }
    return Task(**{**fields, **changes})


def test_what_is_cut_is_counted() -> None:
    tasks = tuple(made_up(n, coroutine=f"work{n // 2}()") for n in range(20))
    text = render_tasks(AliveTasks(tasks, (Loop(1, "L", "running", None),)), max_groups=3)
    assert text.endswith("  ... 14 more tasks with 7 other stacks are not shown\n")
    assert [line for line in text.splitlines() if line.startswith("  Task-")] == [
        "  Task-0  waiting  work0()",
        "  Task-2  waiting  work1()",
        "  Task-4  waiting  work2()",
    ]


def test_a_long_stack_is_cut_in_the_middle() -> None:
    stack = tuple(Frame("/nowhere.py", n, f"f{n}") for n in range(100))
    text = render_tasks(AliveTasks((made_up(1, stack=stack),), (Loop(1, "L", "closed", None),)))
    shown = [line.rpartition(" ")[2] for line in text.splitlines() if " in f" in line]
    assert shown == [f"f{n}" for n in (*range(6), *range(94, 100))]
    assert "... 88 frames cut ..." in text


def test_running_tasks_come_first_and_numbers_sort_as_numbers() -> None:
    tasks = (
        made_up(10, coroutine="a()"),
        made_up(9, coroutine="b()"),
        made_up(11, coroutine="c()", state="running"),
    )
    text = render_tasks(AliveTasks(tasks, (Loop(1, "L", "running", None),)))
    order = [line.split()[0] for line in text.splitlines() if "Task-" in line]
    assert order == ["Task-11", "Task-9", "Task-10"]


def test_several_loops_are_shown_apart_with_their_threads() -> None:
    loops = (Loop(1, "SelectorLoop", "running", "MainThread"), Loop(2, "Uv", "closed", None))
    text = render_tasks(AliveTasks((made_up(1), made_up(2, loop=2)), loops))
    assert text.splitlines() == [
        "asyncio tasks: 2 on 2 loops",
        "  on SelectorLoop at 0x1, running in thread MainThread",
        "  Task-1  waiting  work()",
        "  on Uv at 0x2, closed",
        "  Task-2  waiting  work()",
    ]


def test_a_name_with_control_characters_stays_on_its_line(
    loop: asyncio.AbstractEventLoop,
) -> None:
    task = loop.create_task(asyncio.sleep(99), name="evil\n\x1b[31m")
    settle(loop)
    assert not task.done()
    assert r"'evil\n\x1b[31m'  waiting" in render_tasks(find_tasks())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no task groups")
def test_a_task_that_waits_for_its_group_in_aexit_is_shown_with_the_members(
    loop: asyncio.AbstractEventLoop,
) -> None:
    groups: Any = asyncio.TaskGroup
    if sys.version_info < (3, 13, 1):
        # As newer ones divide it: the waiting function has another name.
        original: Any = asyncio.TaskGroup.__aexit__
        renamed = original.__code__.replace(co_name="_aexit")

        class Newer(asyncio.TaskGroup):
            _aexit = types.FunctionType(renamed, original.__globals__)

            async def __aexit__(self, *error: Any) -> None:
                await self._aexit(*error)

        groups = Newer

    async def main() -> None:
        async with groups() as group:
            group.create_task(asyncio.sleep(60), name="member")

    task = loop.create_task(main(), name="waiting")
    settle(loop)
    found = {each.name: each for each in find_tasks().tasks}
    assert found["waiting"].waits == Waits("TaskGroup", "TaskGroup of 1")
    assert found["waiting"].awaits == (found["member"].id,)
    del task


def test_after_gc_freeze_the_loop_that_runs_is_found() -> None:
    program = """
import asyncio, gc
from pytest_eventlet_debug.alive.heap import walk
async def main():
    gc.freeze()
    print(asyncio.get_running_loop() in walk().loops)
asyncio.run(main())
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout == "True\n", found.stderr
