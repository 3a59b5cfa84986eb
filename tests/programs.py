"""Pieces of the programs that tests run in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import select
import subprocess
import sys

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

#: What makes a process die slowly: the kernel takes apart what it has in memory, and only then
#: closes what it has open.
TAKES_MEMORY = """
import mmap
memory = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE)
memory.madvise(mmap.MADV_NOHUGEPAGE)
def take_memory():
    for start in range(0, len(memory), mmap.PAGESIZE):
        memory[start] = 1
"""


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that need not be a child of this one."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([fd], [], [], 60)
    os.close(fd)
    assert ended, f"process {pid} is still there"


@contextlib.contextmanager
def others_on(cpu: int) -> Iterator[None]:
    """Keep a CPU busy: whoever is on it too gets a quarter of it."""
    program = f"import os; os.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-S", "-c", program]) for _ in range(3)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
