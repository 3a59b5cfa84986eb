"""What can be found in a trace. A new kind is a module, a line here, and one in ``model.Kind``."""

from __future__ import annotations

from pytest_eventlet_debug.recordings.findings.blocked import Blocked
from pytest_eventlet_debug.recordings.findings.busy import Busy
from pytest_eventlet_debug.recordings.findings.child import Child
from pytest_eventlet_debug.recordings.findings.closed import Closed
from pytest_eventlet_debug.recordings.findings.idle_hubs import IdleHubs
from pytest_eventlet_debug.recordings.findings.left_open import LeftOpen
from pytest_eventlet_debug.recordings.findings.long_trace import LongTrace
from pytest_eventlet_debug.recordings.findings.lost_waits import LostWaits
from pytest_eventlet_debug.recordings.findings.no_turn import NoTurn
from pytest_eventlet_debug.recordings.findings.not_accepted import NotAccepted
from pytest_eventlet_debug.recordings.findings.protocol import Detector
from pytest_eventlet_debug.recordings.findings.reused import Reused
from pytest_eventlet_debug.recordings.findings.stale_answers import StaleAnswers
from pytest_eventlet_debug.recordings.findings.storms import Storms

DETECTORS: tuple[type[Detector], ...] = (
    Storms,
    Child,
    IdleHubs,
    NotAccepted,
    NoTurn,
    Blocked,
    Busy,
    Closed,
    LostWaits,
    Reused,
    StaleAnswers,
    LeftOpen,
    LongTrace,
)
