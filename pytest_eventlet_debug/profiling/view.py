"""Show a profile in a program with windows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
import shutil
import subprocess

from pytest_eventlet_debug.artifact_names import CALLGRIND_FILE


def open_only(directories: Iterable[Path]) -> str:
    """Open KCachegrind on the profile of the only test there is, and wait for its end.

    :param directories: those of the tests that were recorded.
    :return: what happened, for the user.
    """
    profiles = [path for d in directories if (path := d / CALLGRIND_FILE).exists()]
    if len(profiles) != 1:
        found = f"there are {len(profiles)}" if profiles else "there is none"
        return f"only one profile can be shown, but {found}; name one test and one hub"
    import pyprof2calltree  # only those who profile pay for it

    programs = pyprof2calltree.KCACHEGRIND_EXECUTABLES
    program = next((each for each in programs if shutil.which(each)), None)
    if program is None:
        return f"there is no {' or '.join(programs)} on PATH; the profile is {profiles[0]}"
    # Not visualize(): that converts again, into a file without the right summary line.
    status = subprocess.call([program, str(profiles[0])])
    if status:
        ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"{program} {ended}; the profile is {profiles[0]}"
    return f"{program} has shown {profiles[0]}"
