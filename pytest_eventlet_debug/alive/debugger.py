"""The commands of the debugger that pytest opens: tasks, greenlets, hub, and greenlet."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import sys
from types import FrameType
from typing import Any

from msgspec.structs import replace

from pytest_eventlet_debug.alive import greenlet_command
from pytest_eventlet_debug.alive.greenthreads import AliveGreenthreads
from pytest_eventlet_debug.alive.hub import HubState
from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.alive.render import render_endings
from pytest_eventlet_debug.alive.render import render_greenthreads
from pytest_eventlet_debug.alive.render import render_hubs
from pytest_eventlet_debug.alive.render import render_tasks
from pytest_eventlet_debug.alive.snapshot import Alive
from pytest_eventlet_debug.alive.tasks import AliveTasks
from pytest_eventlet_debug.patterns import lazily

HINT = (
    "(tasks, greenlets and hub print this again; a word after them narrows it; "
    "greenlet N moves into a greenthread)\n"
)

# Variables may well have the short names; these are for then.
_LONG = {"tasks": "all_tasks", "greenlets": "all_greenlets", "hub": "all_hubs"}
_LONG |= {"greenlet": "to_greenlet"}

_HELP = {
    "tasks": """tasks [word]

        Print the asyncio tasks of all loops and threads, each with its await chain, what
        it waits on and the tasks that it awaits. With a word, only those in whose name,
        functions or wait it occurs.
        """,
    "greenlets": """greenlets [word]

        Print the living greenthreads with their stacks and what they wait on, and the
        other threads. With a word, only those in whose name, functions or wait it occurs.
        """,
    "greenlet": """greenlet [number]

        Move into the frames of a waiting greenthread, by the number that greenlets shows, so
        that up, down, where, list and p refer to them. With 0 or main, come back; any command
        that resumes the program comes back, too. Without a number, say where you are.
        """,
    "hub": """hub [word]

        Print the hub's listeners with their sockets' addresses and its timers with the
        time left. With a word, only those that it occurs in.
        """,
}

# What makes a line an expression or a statement that begins with a variable's name.
_OPERATOR = lazily(r"\s*([^\w\s]|(is|in|not|and|or|if|for)\b)")


def show(alive: Alive) -> str:
    """Return everything, without the parts of which there is nothing to say."""
    text = render_tasks(alive.tasks, cancelled=alive.cancelled)
    if alive.greenthreads.greenthreads or alive.greenthreads.threads:
        numbers = _numbers.of(greenlet_command.living_greenlets())
        text += render_greenthreads(alive.greenthreads, numbers=numbers)
    if alive.hubs:
        text += render_hubs(alive.hubs)
    return text + render_endings(alive.endings)


def add_commands(pdb: Any, take: Callable[[], Alive]) -> bool:
    """Give a debugger its commands; return whether it takes any.

    :param pdb: what ``pytest_enter_pdb`` was given.
    :param take: looks at what is alive now.
    """
    if not hasattr(pdb, "onecmd") or not hasattr(pdb, "default"):
        return False  # not of the standard library's kind
    kind = type(pdb)
    # pytest makes a class of its own for whatever --pdbcls names; only that one is changed.
    ours = "_pytest_capman" in kind.__dict__
    for name, answer in _answers(take).items():
        for each in (name, _LONG[name]):
            command = _command(each, name, answer)
            if ours and not hasattr(kind, f"do_{each}"):
                setattr(kind, f"do_{each}", command)
            elif not hasattr(pdb, f"do_{each}"):
                setattr(pdb, f"do_{each}", command.__get__(pdb))
    return True


def _command(called: str, name: str, answer: Callable[[Any, str], str]) -> Any:
    def do(self: Any, argument: str) -> Any:
        try:
            if _is_python(self, called, argument):  # a variable has the name
                line = getattr(self, "lastcmd", "") or ""
                if not line.lstrip("! ").startswith(called):
                    line = f"{called} {argument}"
                return _run(self, called, name, line)
            write(self.stdout, answer(self, argument.strip()))
        except BaseException as error:
            complain(getattr(self, "stdout", sys.stdout), error)
        return None

    do.__doc__ = _HELP[name].replace(name, called, 1)
    do.__name__ = f"do_{called}"
    return do


def _run(pdb: Any, called: str, name: str, line: str) -> Any:
    result = pdb.default(line)
    if called == name:
        write(pdb.stdout, f"({name} is a variable here; use {_LONG[name]} for the command)\n")
    return result


def _is_python(pdb: Any, name: str, argument: str) -> bool:
    """Say whether a line means a variable, and not the command that has its name."""
    if _OPERATOR.match(argument):
        return True
    frame = getattr(pdb, "curframe", None)
    if not isinstance(frame, FrameType):
        return False
    scope = frame.f_locals
    if sys.version_info < (3, 13):
        # What was assigned at the prompt is here alone; from 3.14 on to read it is deprecated.
        scope = getattr(pdb, "curframe_locals", None) or scope
    return not argument.strip() and (name in scope or name in frame.f_globals)


def narrow_tasks(alive: AliveTasks, word: str) -> AliveTasks:
    """Return the tasks that have a word in what is shown of them, and those they wait for."""
    known = {task.id: task for task in alive.tasks}
    ahead = [
        task.id
        for task in alive.tasks
        if _has(word, task.name, task.coroutine, task.waits and task.waits.text, task.stack)
    ]
    chosen: set[int] = set()
    while ahead:
        number = ahead.pop()
        if number in known and number not in chosen:
            chosen.add(number)
            ahead += known[number].awaits
    tasks = tuple(task for task in alive.tasks if task.id in chosen)
    loops = {task.loop for task in tasks}
    return replace(
        alive,
        tasks=tasks,
        loops=tuple(loop for loop in alive.loops if loop.id in loops),
        done=0,
        cycles=tuple(cycle for cycle in alive.cycles if chosen.issuperset(cycle)),
    )


def narrow_greenthreads(alive: AliveGreenthreads, word: str) -> AliveGreenthreads:
    """Return the greenthreads and threads that have a word in what is shown of them."""
    return replace(
        alive,
        greenthreads=tuple(
            each
            for each in alive.greenthreads
            if _has(word, each.name, each.waits and each.waits.text, each.stack)
        ),
        threads=tuple(each for each in alive.threads if _has(word, each.name, "", each.stack)),
        cycles=(),
    )


def narrow_hubs(hubs: Iterable[HubState], word: str) -> tuple[HubState, ...]:
    """Return the hubs with those listeners and timers that a word occurs in."""
    return tuple(
        replace(
            hub,
            listeners=tuple(each for each in hub.listeners if _has(word, *map(str, each))),
            timers=tuple(each for each in hub.timers if _has(word, each.call)),
        )
        for hub in hubs
    )


def _has(word: str, *texts: str | tuple[Frame, ...] | None) -> bool:
    for text in texts:
        if isinstance(text, tuple):
            if any(word in frame.function or word in frame.filename for frame in text):
                return True
        elif text and word in text:
            return True
    return False


def _tasks(alive: Alive, word: str) -> str:
    if not word:
        return render_tasks(alive.tasks, cancelled=alive.cancelled)
    narrowed = narrow_tasks(alive.tasks, word)
    cancelled = [
        replace(each, tasks=tasks)
        for each in alive.cancelled
        if (tasks := narrow_tasks(each.tasks, word)).tasks
    ]
    if not narrowed.tasks and not cancelled:
        return f"none of {len(alive.tasks.tasks):,} tasks has {word!r}\n"
    return render_tasks(narrowed, cancelled=cancelled)


def _greenlets(alive: Alive, word: str) -> str:
    numbers = _numbers.of(greenlet_command.living_greenlets())
    if not word:
        return render_greenthreads(alive.greenthreads, numbers=numbers)
    narrowed = narrow_greenthreads(alive.greenthreads, word)
    if not narrowed.greenthreads and not narrowed.threads:
        return f"none of {len(alive.greenthreads.greenthreads):,} greenthreads has {word!r}\n"
    return render_greenthreads(narrowed, numbers=numbers)


def _hub(alive: Alive, word: str) -> str:
    return render_hubs(narrow_hubs(alive.hubs, word) if word else alive.hubs)


_numbers = greenlet_command.Numbers()


def _answers(take: Callable[[], Alive]) -> dict[str, Callable[[Any, str], str]]:
    """Return what each command prints, given the debugger and what was typed after it."""
    return {
        "tasks": lambda pdb, word: _tasks(take(), word),
        "greenlets": lambda pdb, word: _greenlets(take(), word),
        "hub": lambda pdb, word: _hub(take(), word),
        "greenlet": lambda pdb, word: greenlet_command.move(pdb, word, _numbers),
    }


def opens_before_the_test() -> bool:
    """Tell ``--trace`` from the rest; the hook's arguments do not (``_pytest/debugging.py``)."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_init_pdb":
            return frame.f_locals.get("method") in ("runcall", "trace")
        frame = frame.f_back
    return False


def write(stream: Any, text: str) -> None:
    """Write text to a terminal, whatever its encoding."""
    try:
        stream.write(text)
    except UnicodeError:
        stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
    stream.flush()


def complain(stream: Any, error: BaseException) -> None:
    """Say in a line that something could not be shown; never raises."""
    try:
        write(stream, f"what is alive could not be listed: {type(error).__name__}\n")
    except BaseException:
        pass
