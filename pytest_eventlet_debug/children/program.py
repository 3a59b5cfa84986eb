"""The program that called ``pytest.main()``, where that is not pytest's own.

Such a program may patch the standard library, or give pytest plugins, before pytest starts. A
child that skipped it would give other outcomes.
"""

from __future__ import annotations

from collections.abc import Sequence
import itertools
import os
import sys

from pytest_eventlet_debug import roles
from pytest_eventlet_debug.assignment import Program

#: What starts pytest and does nothing else to the process: pytest itself, and the runners of
#: PyCharm and Visual Studio Code, which listen to the reports of the controller.
_PYTESTS_OWN = {"pytest", "py.test", "_jb_pytest_runner", "run_pytest_script"}


class UnknownProgramError(Exception):
    """How this process came to start pytest cannot be repeated."""


def own_program() -> Program | None:
    """Return the program of this process, or ``None`` where pytest alone does as well.

    :raises UnknownProgramError: there is one, and it cannot be started again.
    """
    command = sys.orig_argv
    main = sys.modules.get("__main__")
    if _is_pytest(main, command):
        return None
    if roles.runs_begun() > 1:
        raise UnknownProgramError("it called pytest.main() before")
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    start = _start_directory(command, file)
    for index, (flag, word) in enumerate(itertools.pairwise(command)):
        after = command[index + 2 :]
        if flag.startswith("-") and flag[1:].isalpha():
            if flag.endswith("m"):
                return Program(module=word, arguments=after, directory=start)
            if flag.endswith("c") and "pytest" in word:  # multiprocessing's has none
                return Program(code=word, arguments=after, directory=start)
        script = os.path.join(start, word)
        if not word.startswith("-") and _is_started_as(script, file, spec):
            return Program(script=script, arguments=after, directory=start)
    raise UnknownProgramError("it is neither a script, nor a module, nor the text of -c")


def _is_pytest(main: object, command: Sequence[str]) -> bool:
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name.partition(".")[0] == "pytest":
        return True
    # A profiler or debugger that was given pytest as an argument may keep ``__main__`` for
    # itself, and one of it is enough.
    return any(
        os.path.basename(word).removesuffix(".py") in _PYTESTS_OWN
        for flag, word in itertools.pairwise(command)
        if flag == "-m" or os.path.isfile(word)
    )


def _start_directory(command: Sequence[str], file: str | None) -> str:
    """Return where the program was started, which may have changed its directory since."""
    now = os.getcwd()
    shells = os.environ.get("PWD", now)
    if file is None or not os.path.isdir(shells):
        return now
    found = any(_is_same(os.path.join(shells, word), file) for word in command[1:])
    return shells if found else now


def _is_started_as(script: str, file: str | None, spec: object) -> bool:
    """Say whether ``python script`` gives ``__main__`` this file and this spec."""
    if spec is None:
        return file is not None and _is_same(script, file)
    # A directory or an archive with a __main__.py.
    return getattr(spec, "name", None) == "__main__" and os.path.exists(script)


def _is_same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
