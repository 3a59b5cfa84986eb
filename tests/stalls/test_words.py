"""What a stall is called, by where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.stalls import words
from pytest_eventlet_debug.stalls.model import Stall
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY

PACKAGES = f"{STANDARD_LIBRARY}site-packages/"
CLONE = "/home/me/clone/"

STANDARD = Frame(f"{STANDARD_LIBRARY}json/encoder.py", 200, "encode")
LOOP = Frame(f"{STANDARD_LIBRARY}asyncio/base_events.py", 650, "BaseEventLoop.run_until_complete")
LIBRARY = Frame(f"{PACKAGES}kombu/utils/json.py", 60, "dumps")
OURS = Frame("pytest_eventlet_debug/alive/dump.py", 20, "show")
STAND_IN = OURS._replace(function="CancelledTaskWatch._running.<locals>.run_until_complete")
TEST = Frame("/home/me/test_x.py", 7, "test_x")


@pytest.mark.parametrize("folder", [PACKAGES, CLONE])
@pytest.mark.parametrize(
    ("frames", "place"),
    [
        ((OURS, TEST), None),
        ((STANDARD, OURS, TEST), None),
        ((STANDARD, LOOP, STAND_IN, TEST), "at json/encoder.py:200 in encode, called from test_x"),
        ((STANDARD, LIBRARY, TEST), "at json/encoder.py:200 in encode, called from test_x"),
    ],
)
def test_the_plugins_own_work_is_no_stall_wherever_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, folder: str, frames: tuple[Frame, ...], place: str | None
) -> None:
    monkeypatch.setattr(words, "OURS", f"{folder}pytest_eventlet_debug/")
    ours = OURS.filename
    stall = Stall(
        seconds=0.5,
        began_ns=0,
        frames=tuple(
            each._replace(filename=folder + ours) if each.filename == ours else each
            for each in frames
        ),
        due=1,
        ready=0,
    )
    found = words.finding(stall, "test_x.py::test_x", "epolls", Path("/home/me"))
    if place is None:
        assert found is None
    else:
        assert found is not None
        assert place in found.title
