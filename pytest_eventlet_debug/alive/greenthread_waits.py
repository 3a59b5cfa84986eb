"""What a greenthread waits for, read from the frame that waits and from its hub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
import sys
import types
from typing import Any

from pytest_eventlet_debug.alive import acquisitions
from pytest_eventlet_debug.alive import descriptors
from pytest_eventlet_debug.alive import holders
from pytest_eventlet_debug.alive import pool_items
from pytest_eventlet_debug.alive.greenlets import Greenlets
from pytest_eventlet_debug.alive.model import Waits
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.alive.model import copy_of
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.alive.model import thread_of
from pytest_eventlet_debug.alive.stacks import outwards
from pytest_eventlet_debug.alive.task_waits import is_for_own_loop
from pytest_eventlet_debug.alive.task_waits import is_task
from pytest_eventlet_debug.alive.task_waits import named
from pytest_eventlet_debug.alive.task_waits import running_work
from pytest_eventlet_debug.alive.task_waits import work_of
from pytest_eventlet_debug.alive.watched_descriptors import Watched
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.phrasing import and_more
from pytest_eventlet_debug.phrasing import counted
from pytest_eventlet_debug.phrasing import listed
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import file_name

#: What the search for those who hold locks may take.
MAX_SECONDS = 0.5

#: Greenthreads in a pool whose names are looked up.
MAX_NAMED = 100

#: Modules of the standard library that wait by locks, which monkey patching makes eventlet's.
_PATCHED = ("threading.py", "queue.py", "_base.py")

#: Items of a pool of which is told who took them.
MAX_HOLDERS = 3

_OWNER = lazily(r" owner=(\d+) ")

#: From when on a timer that is due is told to be overdue.
LATE_SECONDS = 0.1


class GreenthreadWaits:
    """Tells what greenlets wait for; what they share is found out once. Not to be kept."""

    def __init__(self, greenlets: Greenlets, watched: Watched) -> None:
        self._greenlets = greenlets
        self._stacks = greenlets.stacks
        self._watched = watched
        self._holders: dict[int, list[Any]] | None = None

    def of(self, greenlet: Any, frames: list[types.FrameType]) -> tuple[Waits | None, list[Any]]:
        """Return what a greenlet waits for, and the greenlets or tasks that alone can end that.

        :param frames: its stack, innermost first.
        """
        for number, frame in enumerate(frames[:20]):
            place = self._stacks.place(frame)
            if place is None:
                if number > 3 or not frame.f_code.co_filename.startswith(STANDARD_LIBRARY):
                    break
                continue
            outer = [each for each in frames[number + 1 : number + 6] if not _is_ours(each)]
            known = self._waits_in(greenlet, place, frame, outer[:3])
            if known is not None:
                return known
        return self._waits_by_hub(greenlet), []

    def _waits_in(
        self, greenlet: Any, place: str, frame: types.FrameType, outer: list[types.FrameType]
    ) -> tuple[Waits, list[Any]] | None:
        """Return what a function of eventlet waits for, if it is one that waits."""
        name = frame.f_code.co_name
        if (place, name) == ("hubs/__init__.py", "trampoline"):
            return self._waits_for_descriptor(greenlet, frame), []
        if (place, name) == ("greenthread.py", "sleep"):
            return self._timed(Waits("sleep", "sleep"), frame, "timer"), []
        if (place, name) == ("event.py", "wait"):
            return self._waits_for_event(frame, outer)
        if place == "semaphore.py" and name == "acquire":
            return self._waits_for_semaphore(frame, outer)
        if place == "queue.py" and name in ("get", "put", "join"):
            owner = frame.f_locals.get("self")
            pool = self._self_of(outer, "pools.py", "get")
            if getattr(pool, "channel", None) is owner:
                return self._waits_for_item(pool, greenlet)
            queue = getattr(owner, "queue", ())
            most = getattr(owner, "maxsize", None)
            size = counted(len(queue), "item") + (f" of {most}" if most else "")
            label = f"{type(owner).__qualname__}.{name}"
            if name == "join":
                size = f"{getattr(owner, 'unfinished_tasks', '?')} without task_done()"
                return Waits(f"{label}, unfinished", f"{label}, {size}"), []
            return Waits(label, f"{label}, {size}"), []
        return None

    def _waits_for_descriptor(self, greenlet: Any, frame: types.FrameType) -> Waits:
        scope = frame.f_locals
        verb = "read" if scope.get("read") else "write"
        fd, hub = scope.get("fileno", -1), scope.get("hub")
        text = f"{verb} on fd {fd}, {descriptors.describe(fd)}"
        wakers = self._greenlets.wakers.listeners_of(greenlet)
        complaint = ""
        if any((each.event, each.fd) == (verb, fd) for each in wakers):
            complaint = self._watched.complaint(hub, verb, fd)
        elif any(each is scope.get("listener") for each in getattr(hub, "closed", ())):
            complaint = "which is closed, as the hub will tell it"
        elif id(hub) in self._greenlets.wakers.listeners:
            complaint = "which the hub no longer watches"
        waits = Waits(complaint or verb, f"{text}, {complaint}" if complaint else text)
        return self._timed(waits, frame, "t")

    def _timed(self, waits: Waits, frame: types.FrameType, variable: str) -> Waits:
        """Add to a wait how long it still takes, or that its timer is late, or lost."""
        raw_timer, hub = frame.f_locals.get(variable), frame.f_locals.get("hub")
        if raw_timer is None:
            return waits
        left = self._greenlets.wakers.left(raw_timer)
        late = self._greenlets.wakers.overdue(raw_timer)
        if left is None:
            if id(hub) not in self._greenlets.wakers.timers:
                return waits  # a hub that could not be read
            words = "whose timer is in no hub's heap"
            return Waits(f"{waits.kind}, no timer", f"{waits.text}, {words}")
        if late > LATE_SECONDS:
            return Waits(f"{waits.kind}, late", f"{waits.text}, overdue by {late:.1f} s")
        clock = self._greenlets.wakers.stopped.get(id(hub))
        if clock is not None:
            text = f"{waits.text}, {left:.3f} s left by the hub's clock {clock}, which stands still"
            return Waits(f"{waits.kind}, stopped", text)
        return waits._replace(seconds=left)

    def _waits_for_semaphore(
        self, frame: types.FrameType, outer: list[types.FrameType]
    ) -> tuple[Waits, list[Any]]:
        owner = frame.f_locals.get("self")
        kind = type(owner).__qualname__
        value = getattr(owner, "counter", "?")
        pool = self._self_of(outer, "greenpool.py", "spawn", "spawn_n")
        if getattr(pool, "sem", None) is owner and value == 0:
            return self._waits_for_place(pool)
        text = f"{kind}, value {value}, {len(getattr(owner, '_waiters', ()))} waiting"
        holding = self._owner_of_rlock(owner, outer) or self._holders_of(owner)
        known = self._waits_in_library(outer) if not holding else None
        if known is not None:
            return known
        if acquisitions.is_signal(owner):
            return Waits(kind, text), []
        if value != 0:
            text += ", released, but who waits has not been woken"
            return Waits(kind, text), []
        acquired = acquisitions.holders(owner) if not _is_signal(outer) else []
        if len(acquired) > len(holding):
            return self._waits_for_acquirers(kind, text, acquired)
        if holding:
            text += f", held by {listed([*map(self._greenlets.name, holding)], 3)}"
        # Of several who hold it any may release it: no circle is sure.
        words = f"{kind}, held" if holding else kind
        return Waits(words, text), holding if len(holding) == 1 else []

    def _waits_for_acquirers(
        self, kind: str, text: str, holding: list[tuple[types.CodeType, int, Any]]
    ) -> tuple[Waits, list[Any]]:
        """Say who acquired a semaphore, of which frames do not show who holds it."""
        words = []
        for code, line, greenlet in holding[:MAX_HOLDERS]:
            ended = greenlet is None or greenlet.dead
            who = "a greenthread that has ended" if ended else self._greenlets.name(greenlet)
            at = (
                "" if self._stacks.of_eventlet(code) else f" at {self._stacks.at(code, line).where}"
            )
            words.append(f", acquired{at} by {who}")
        text += "".join(dict.fromkeys(words)) + (", ..." if len(holding) > MAX_HOLDERS else "")
        living = [each for *_, each in holding if each is not None and not each.dead]
        return Waits(f"{kind}, held", text), living if len(holding) == 1 else []

    def _waits_in_library(self, outer: list[types.FrameType]) -> tuple[Waits, list[Any]] | None:
        """Return what a patched module of the standard library waits for by a lock."""
        owner: Any = None
        name = ""
        for each in outer:
            code = each.f_code
            if file_name(code.co_filename) not in _PATCHED or "self" not in each.f_locals:
                break
            owner, name = each.f_locals["self"], code.co_name
        fields = getattr(owner, "__dict__", {})
        label = f"{type(owner).__qualname__}.{name}"
        if name == "join" and "_target" in fields:
            # get_ident() is a greenlet's id under monkey patching.
            awaited = [each for each in self._greenlets.all() if id(each) == fields.get("_ident")]
            return Waits("end", f"the end of thread {fields.get('_name')}"), awaited
        if "_flag" in fields:
            return Waits(label, f"{label}, {'' if fields['_flag'] else 'not '}set"), []
        if "unfinished_tasks" in fields:
            items, left = len(fields.get("queue", ())), fields["unfinished_tasks"]
            if name == "join":
                return Waits(f"{label}, unfinished", f"{label}, {left} without task_done()"), []
            return Waits(label, f"{label}, {counted(items, 'item')}"), []
        if "_done_callbacks" in fields:
            return self._waits_for_executor(label, owner)
        return None

    def _waits_for_executor(self, label: str, future: Any) -> tuple[Waits, list[Any]]:
        """Say what a future waits for whose executor has greenthreads for threads."""
        text = f"{label}, {str(getattr(future, '_state', '?')).lower()}"
        # By the id of its queue, the queue of an executor, its workers, and the busy ones.
        executors: dict[int, tuple[Any, list[Any], list[Any]]] = {}
        for greenlet in self._greenlets.all():
            frames = [each for each in self._greenlets.stack_of(greenlet) if _is_of_executor(each)]
            names = {each.f_code.co_name: each.f_locals for each in frames}
            item = names.get("run", {}).get("self")
            if getattr(item, "future", None) is future:
                return Waits(f"{label}, held", text), [greenlet]
            if "_worker" in names:
                queue = names["_worker"].get("work_queue")
                _, workers, busy = executors.setdefault(id(queue), (queue, [], []))
                workers.append(greenlet)
                busy += [greenlet] if item is not None else []
        for queue, workers, busy in executors.values():
            waiting = copy_of(getattr(queue, "_queue", ()) or getattr(queue, "queue", ()))
            is_in = any(getattr(each, "future", None) is future for each in waiting)
            if is_in and len(busy) == len(workers):
                threads = f"{len(busy)} threads of its executor run"
                threads = "only thread of its executor runs" if len(busy) == 1 else threads
                text += f", behind what the {threads}"
                return Waits(f"{label}, held", text), busy if len(busy) == 1 else []
        return Waits(label, text), []

    def _self_of(self, outer: list[types.FrameType], place: str, *names: str) -> Any:
        """Return whose method has called, if it is one of these methods."""
        caller = outer[0] if outer else None
        if (
            caller is None
            or self._stacks.place(caller) != place
            or caller.f_code.co_name not in names
        ):
            return None
        return caller.f_locals.get("self")

    def _waits_for_item(self, pool: Any, waiter: Any) -> tuple[Waits, list[Any]]:
        kind = f"{type(pool).__qualname__}.get"
        size = getattr(pool, "max_size", 0)
        text = f"{kind}, {counted(size, 'item')}, {'all ' if size != 1 else ''}in use"
        holding = pool_items.holders(pool)
        takers = []
        for place, greenlet in holding[:MAX_HOLDERS]:
            ended = greenlet is None or greenlet.dead
            who = "a greenthread that has ended" if ended else self._greenlets.name(greenlet)
            takers.append(f"taken at {place} by {who}")
        text += "".join(f", {each}" for each in dict.fromkeys(takers))
        text += ", ..." if len(holding) > MAX_HOLDERS else ""
        others = (each for _, each in holding if each is not waiter)
        living = [each for each in others if each is not None and not each.dead]
        return Waits(f"{kind}, empty", text), living if len(holding) == 1 else []

    def _waits_for_place(self, pool: Any) -> tuple[Waits, list[Any]]:
        running = copy_of(getattr(pool, "coroutines_running", ()))
        kind = f"{type(pool).__qualname__}.spawn"
        size = getattr(pool, "size", 0)
        text = f"{kind}, {counted(size, 'place')}"
        if running:
            all_ = "all " if size != 1 else ""
            text += f", {all_}taken by {self._with_lines(running)}"
        return Waits(f"{kind}, full", text), running if len(running) == 1 else []

    def _waits_for_all(self, pool: Any) -> tuple[Waits, list[Any]]:
        running = copy_of(getattr(pool, "coroutines_running", ()))
        kind = f"{type(pool).__qualname__}.waitall"
        text = f"{kind}, {len(running)} running"
        text += f": {self._with_lines(running)}" if running else ""
        return Waits("end", text), running

    def _with_lines(self, greenlets: list[Any]) -> str:
        """Return the names of greenlets, and where they are; equal ones once."""
        counts: Counter[str] = Counter()
        for each in greenlets[:MAX_NAMED]:
            users = self._stacks.users(self._greenlets.stack_of(each))
            (at,) = self._stacks.shown(users[:1]) or (None,)
            counts[self._greenlets.name(each) + (f" at {at.location}" if at else "")] += 1
        words = [f"{text} x {count}" if count > 1 else text for text, count in counts.items()]
        return ", ".join(words[:3]) + and_more(len(greenlets) - sum([*counts.values()][:3]))

    def _owner_of_rlock(self, block: Any, outer: list[types.FrameType]) -> list[Any]:
        """Return whose a reentrant lock is of which a semaphore is the inside."""
        for frame in outer[:2]:
            lock = frame.f_locals.get("self")
            fields = getattr(lock, "__dict__", {})
            if frame.f_code.co_name == "acquire" and fields.get("_block") is block:
                # get_ident() is a greenlet's id under monkey patching.
                ident = fields.get("_owner")
                return [each for each in self._greenlets.all() if id(each) == ident]
        return []

    def _holders_of(self, lock: Any) -> list[Any]:
        """Return the greenlets whose frames prove that they hold a lock."""
        if self._holders is None:
            self._holders = {}
            end = unpatched.monotonic() + MAX_SECONDS
            for greenlet in self._greenlets.all():
                if unpatched.monotonic() > end:
                    # Half of them would be told to be all.
                    self._holders = {}
                    break
                for each in holders.held_by(self._greenlets.stack_of(greenlet)):
                    self._holders.setdefault(id(each), []).append(greenlet)
        return self._holders.get(id(lock), [])

    def _waits_for_event(
        self, frame: types.FrameType, outer: list[types.FrameType]
    ) -> tuple[Waits, list[Any]] | None:
        event = frame.f_locals.get("self")
        awaited = self._greenlets.ends_with(event)
        if awaited is not None:
            text = f"the end of greenthread {self._greenlets.name(awaited)}"
            return self._timed(Waits("end", text), frame, "timer"), [awaited]
        pool = self._self_of(outer, "greenpool.py", "waitall")
        if pool is not None:
            return self._waits_for_all(pool)
        for each in outer:
            place, name = self._stacks.place(each), each.f_code.co_name
            task: Any = each.f_locals.get("future") if place == "asyncio.py" else None
            if is_task(task):
                return Waits("task", named(task)), [task]
            if (place, name) == ("tpool.py", "execute"):
                return self._waits_for_tpool(each)
            if place == "queue.py":
                return None
        kind = type(event).__qualname__
        waiting = len(getattr(event, "_waiters", ()))
        return self._timed(Waits(kind, f"{kind}, {waiting} waiting"), frame, "timer"), []

    def _waits_for_tpool(self, execute: types.FrameType) -> tuple[Waits, list[Any]]:
        """Say what tpool executes or cannot begin, and who holds the lock that it waits for."""
        name = callable_name(execute.f_locals.get("meth"))
        busy = []
        for top in sys._current_frames().values():
            works = [each for each in outwards(top) if each.f_code.co_name == "tworker"]
            if not works or self._stacks.place(works[-1]) != "tpool.py":
                continue
            begun = works[-1].f_locals.get("e")
            if begun is execute.f_locals.get("e"):
                return self._waits_for_thread(f"tpool, which executes {name}", top)
            busy.append(begun is not None)
        if all(busy) and busy:
            text = f"tpool, which is to execute {name}, but its {counted(len(busy), 'thread')}"
            verb = "execute" if len(busy) > 1 else "executes"
            return Waits("tpool, full", f"{text} {verb} other calls"), []
        return Waits("tpool", f"tpool, which executes {name}"), []

    def _waits_for_thread(self, text: str, top: types.FrameType) -> tuple[Waits, list[Any]]:
        lock = holders.awaited_by(top)
        holding = self._holders_of(lock) if _is_of_threads(lock) else []
        if not holding:
            return Waits("tpool", text), []
        (at,) = self._stacks.shown([top])
        names = listed([*map(self._greenlets.name, holding)], 3)
        text += f", which waits at {at.where} on a threading lock"
        return Waits("tpool, held", f"{text}, held by {names}"), holding[:1]

    def _waits_by_hub(self, greenlet: Any) -> Waits | None:
        """Return what will wake a greenlet that waits in no way known here."""
        listeners = self._greenlets.wakers.listeners_of(greenlet)
        switches = [t for t in self._greenlets.wakers.timers_of(greenlet) if t.action == "switch"]
        left = max(switches[0].seconds, 0.0) if switches else None
        if listeners:
            words = [f"{each.event} on fd {each.fd}" for each in listeners[:3]]
            words[0] += f", {descriptors.describe(listeners[0].fd)}"
            for number, each in enumerate(listeners[:3]):
                overlooked = self._watched.overlooked(each.event, each.fd)
                words[number] += f", {overlooked}" if overlooked else ""
            return Waits("descriptors", "; ".join(words) + and_more(len(listeners) - 3), left)
        if switches:
            return Waits("timer", "a timer", left)
        return None

    def in_thread(self, frames: list[types.FrameType]) -> tuple[Waits | None, list[Any]]:
        """Return which lock of a thread the whole of this thread waits for.

        And the greenlet that alone can release it, if it is one of this thread.
        """
        users = [each for each in frames if not _is_ours(each)]
        if not users:
            return None, []
        innermost = users[0]
        scope = innermost.f_locals
        code = innermost.f_code
        if code.co_name == "_shutdown" and file_name(code.co_filename) == "threading.py":
            names = [*filter(None, map(_name_that_python_waits_for, sys._current_frames()))]
            if names:
                text = f"the end of {listed(names, 3)}, without which Python does not end"
                return Waits("threads", text), []
        if code.co_name in ("_wait_for_tstate_lock", "join"):
            name = thread_name(getattr(scope.get("self"), "_ident", None))
            if name is not None:
                text = f"the end of thread {name}; its whole thread waits"
                return Waits("thread", text), []
        for each in users[:4]:
            if each.f_globals.get("__name__") == "concurrent.futures._base":
                future = each.f_locals.get("self")
                work = running_work(future)
                what = ""
                if work is not None:
                    item, name = work
                    what = f"what thread {name} runs, {callable_name(work_of(item))}"
                elif is_for_own_loop(future):
                    what = "what the event loop of the same thread is to do"
                if what:
                    return Waits("executor", f"{what}; its whole thread waits"), []
        lock = holders.awaited_by(innermost)
        if not _is_of_threads(lock) or "unlocked" in repr(lock):
            return None, []
        owners = [
            thread_name(ident) or f"{ident:#x}"
            for ident, top in sys._current_frames().items()
            if top is not sys._getframe() and _holds(lock, ident, outwards(top))
        ]
        greenlets = [] if owners else self._holders_of(lock)
        held = f", held by thread {', '.join(owners)}" if owners else ""
        if greenlets:
            held = f", held by {listed([*map(self._greenlets.name, greenlets)], 3)}"
        elif not owners and _owner_has_ended(lock):
            held = ", held by a thread that has ended"
        waits = Waits("thread lock", f"a threading lock{held}; its whole thread waits")
        return waits, greenlets if len(greenlets) == 1 else []


def _is_of_threads(lock: object) -> bool:
    kind = type(lock)
    # By name: monkey patching replaces what the modules call so.
    return kind.__module__ == "_thread" and kind.__name__ in ("lock", "RLock")


def _name_that_python_waits_for(ident: int) -> str | None:
    """Return the name of a thread if it is neither the main one nor a daemon."""
    thread = thread_of(ident)
    if getattr(thread, "_daemonic", True) or type(thread).__name__ == "_MainThread":
        return None
    return f"thread {thread_name(ident)}"


def _owner_has_ended(lock: Any) -> bool:
    """Say whether a reentrant lock belongs to a thread that is no more."""
    owner = _OWNER.search(repr(lock))
    return owner is not None and int(owner[1]) not in (0, *sys._current_frames())


def _is_of_executor(frame: types.FrameType) -> bool:
    return frame.f_globals.get("__name__") == "concurrent.futures.thread"


def _is_ours(frame: types.FrameType) -> bool:
    return frame.f_code.co_filename.startswith(OURS)


def _is_signal(outer: list[types.FrameType]) -> bool:
    """Say whether a lock is one of which a condition of threads waits to be released by others."""
    code = outer[0].f_code if outer else None
    return (
        code is not None
        and code.co_name == "wait"
        and code.co_filename.startswith(STANDARD_LIBRARY)
    )


def _holds(lock: Any, ident: int, frames: Iterable[types.FrameType]) -> bool:
    """Say whether a thread surely holds a lock; a reentrant one's repr names its owner."""
    if f" owner={ident} " in repr(lock):
        return True
    return any(each is lock for each in holders.held_by(frames))
