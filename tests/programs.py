"""Pieces of the programs that tests run in processes of their own."""

from __future__ import annotations

import os
import select

# pytest-asyncio warns of every suite without a setting; the others, which few tests need, take
# a third of the time that pytest needs to start. pytest-randomly, where it is there, shuffles.
_PLUGINS = ("anyio", "asyncio", "html", "hypothesispytest", "metadata", "randomly", "rerunfailures")
WITHOUT_PLUGINS = " ".join(f"-p no:{name}" for name in _PLUGINS)

#: Everything patched, and a greenthread that counts in ``ticks`` how often it gets to run.
TICKER = """
import eventlet
eventlet.monkey_patch()
ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        eventlet.sleep(0)
eventlet.spawn(tick)
eventlet.sleep(0.01)
"""


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that need not be a child of this one."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([fd], [], [], 10)
    os.close(fd)
    assert ended, f"process {pid} is still there"
