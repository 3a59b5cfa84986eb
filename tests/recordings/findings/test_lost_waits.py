"""Descriptors that are closed while somebody waits for them, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
import re

from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings.findings.lost_waits import LostWaits
from pytest_eventlet_debug.recordings.findings.model import Finding

pytestmark = needs_strace

Find = Callable[..., list[Finding]]
FindEach = Callable[..., list[list[Finding]]]

PROGRAM = """
import eventlet

def test_close():
    listener = eventlet.listen(("127.0.0.1", 0))
    client = eventlet.connect(listener.getsockname())
    peer, _ = listener.accept()
    def ask():
        return client.recv(10)
    asked = eventlet.spawn(ask)
    eventlet.sleep(0.01)
    END
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
@pytest.mark.parametrize("end", ["", "; asked.kill()"], ids=["never", "killed"])
def test_a_close_while_another_waits_names_both_and_for_how_long(
    find: Find, hub: str, end: str
) -> None:
    (found,) = find(
        PROGRAM.replace("END", f"client.close(); eventlet.sleep(1.2){end}"), LostWaits, hub
    )
    assert found.kind == "closed"
    assert re.fullmatch(
        r"\d+<TCP:\[\S+\]> was closed by greenthread 1:test at socket\.py:\d+ in _real_close, from "
        r"test_program\.py:\d+ in test_close while greenthread (\d:ask) waited for it at \S+ in "
        r"register, from test_program\.py:\d+ in ask \(line \d+\); "
        r"\1 did not run for 1\.\d\d s after that",
        found.title,
    )


def test_who_runs_soon_after_the_close_has_not_lost_its_wait(find_each: FindEach) -> None:
    ends = {
        "killed before": "asked.kill(); client.close(); eventlet.sleep(1.2)",
        "killed after": "client.close(); asked.kill(); eventlet.sleep(1.2)",
        "answered": "peer.close(); asked.wait(); client.close(); eventlet.sleep(1.2)",
    }
    programs = [PROGRAM.replace("END", end) for end in ends.values()]
    assert find_each(programs, LostWaits) == [[]] * len(ends)


def test_a_close_of_what_the_hub_itself_registered_is_not_told(find: Find) -> None:
    program = """
import os
import eventlet
from eventlet.hubs import get_hub
from eventlet.patcher import original

def test_close():
    reader, writer = os.pipe()
    nothing = lambda *arguments: None
    get_hub().schedule_call_global(0, get_hub().add, "read", reader, nothing, nothing, nothing)
    eventlet.sleep(0.01)
    os.close(reader)
    original("time").sleep(1.1)
    eventlet.sleep(0)
"""
    assert find(program, LostWaits) == []
