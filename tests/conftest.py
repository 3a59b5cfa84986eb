"""What all tests share: pytester, which runs pytest in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import signal

from hypothesis import settings
from programs import WITHOUT_PLUGINS
import pytest

pytest_plugins = "pytester"

# On a busy machine, anything may take longer than the 0.2 s of the default.
settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")

# A shell has Ctrl-C ignored by what it runs in the background, and by all that this starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep coverage.py out of the processes that a test starts.

    It imports greenlet, runs Python while a function is traced, writes into its directory, and
    swallows a KeyboardInterrupt that is raised while it looks up the current greenlet.
    """
    for name in ("COVERAGE_FILE", "COVERAGE_PROCESS_CONFIG", "PYTEST_EVENTLET_DEBUG_PRELUDE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def preferred() -> Iterator[None]:
    """Have the kernel prefer what a test starts to what tests beside it do."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    yield
    os.setpriority(os.PRIO_PROCESS, 0, before)


# Eventlet's resolver takes four fifths of the time of its import, and few tests look up a name.
os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")

# What differs between hubs would run four times again, in each of these many runs.
SEEN_ONCE = "-o eventlet_reruns=0"


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Run pytest without plugins that are in the way."""
    monkeypatch.setenv("PYTEST_ADDOPTS", f"{WITHOUT_PLUGINS} {SEEN_ONCE}")
    return pytester
