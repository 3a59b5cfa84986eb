"""What the helper and those who start it agree on: its command line and the ring of marks."""

from __future__ import annotations

from collections.abc import Sequence
import os
import sys

import pytest_eventlet_debug

#: Bytes of the ring of marks in memory, see :mod:`.helper.marks_in_memory`. If it is full, marks
#: are system calls until the helper has read it.
MARKS_ROOM = 1 << 20

#: Bytes of the memory that holds it, with its header.
MARKS_BYTES = MARKS_ROOM + 16

# Without site-packages nothing starts coverage.py: this project's tests name a file that does.
_MEASURING = os.environ.get("PYTEST_EVENTLET_DEBUG_PRELUDE", "")
_PRELUDE = f"exec(open({_MEASURING!r}).read())\n" if _MEASURING else ""

#: Stands in the command line of the helper and of its fork, the finisher, and in no other. First of
#: all it leaves the group of the test process, which may be killed. What is imported stays, so
#: there is nothing for the collector to find.
HELPER_PROGRAM = (
    "import posix\nposix.setsid()\n"
    + _PRELUDE
    + """\
import gc, sys
gc.disable()
sys.path.append(sys.argv[1])
from pytest_eventlet_debug.helper.process import main
gc.enable()
main(*sys.argv[2:])
"""
)

#: What ps(1) calls the finisher.
FINISHER_NAME = b"eventlet-finish"


def helper_command(control: int, tracee: int, libraries: Sequence[str]) -> list[str]:
    """Return the command line that starts a helper, without site-packages.

    :param control: an inheritable ``SOCK_SEQPACKET`` socket.
    :param tracee: the id of the process to serve.
    :param libraries: the directories of what the finisher imports.
    """
    package = os.path.dirname(os.path.realpath(pytest_eventlet_debug.__file__))
    root = os.path.dirname(package)
    arguments = [root, str(control), str(tracee), *libraries]
    return [sys.executable, "-I", "-S", "-c", HELPER_PROGRAM, *arguments]
