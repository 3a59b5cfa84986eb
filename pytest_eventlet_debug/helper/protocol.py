"""What the helper and those who start it agree on: the command line and the size of messages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
import sys

import pytest_eventlet_debug

#: Bytes of the longest message in either direction.
MESSAGE_BYTES = 1 << 16

#: The sequence number of a request that nobody waits for.
NO_ANSWER = 0

_PROGRAM = """\
import sys
sys.path.append(sys.argv[1])
from pytest_eventlet_debug.{module} import main
main(*sys.argv[2:])
"""

#: Stands in the helper's command line, and in that of no other process.
HELPER_PROGRAM = _PROGRAM.format(module="helper.process")

_FINISHER_PROGRAM = """\
import sys
sys.path += sys.argv[1:]
from pytest_eventlet_debug.recordings.finisher import main
main()
"""


def helper_command(control: int, tracee: int, libraries: Sequence[str]) -> list[str]:
    """Return the command line that starts a helper.

    :param control: an inheritable ``SOCK_SEQPACKET`` socket.
    :param tracee: the id of the process to serve.
    :param libraries: the directories of what the finisher imports.
    """
    return _command(HELPER_PROGRAM, str(control), str(tracee), *libraries)


def finisher_command(libraries: Sequence[str]) -> list[str]:
    """Return the command line that starts a finisher, see :mod:`.recordings.finisher`.

    :param libraries: the directories of what it imports.
    """
    return _command(_FINISHER_PROGRAM, *libraries)


def _command(program: str, *arguments: str) -> list[str]:
    """Run a program of this package without site-packages."""
    root = str(Path(pytest_eventlet_debug.__file__).resolve().parent.parent)
    return [sys.executable, "-I", "-S", "-c", program, root, *arguments]
