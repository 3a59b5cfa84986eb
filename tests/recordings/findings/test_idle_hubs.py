"""Threads with a hub of their own, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
import re

from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings.findings.idle_hubs import IdleHubs
from pytest_eventlet_debug.recordings.findings.model import Finding

pytestmark = needs_strace

Find = Callable[..., list[Finding]]
FindEach = Callable[..., list[list[Finding]]]

PROGRAM = """
import eventlet
from eventlet import event
from eventlet import patcher
from eventlet import tpool

threading = patcher.original("threading")

def test_reports():
    done = event.Event()
    def work():
        WORK
    thread = threading.Thread(target=work)
    thread.start()
    eventlet.sleep(0.01)
    thread.join()
    tpool.execute(len, "")
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_plain_thread_that_sends_an_event_has_a_hub_that_never_runs(find: Find, hub: str) -> None:
    (found,) = find(PROGRAM.replace("WORK", "done.send(1)"), IdleHubs, hub)
    assert found.kind == "hub idle"
    assert found.certainty == "likely"
    assert re.match(
        r"thread \d+, started at .*test_program\.py:\d+ in test_reports, made a hub of its own "
        r"and never ran it: ",
        found.title,
    )


USED_UP = """
import resource
from eventlet import patcher, hubs

threading = patcher.original("threading")

def test_has_no_descriptor_for_a_hub():
    hubs.get_hub()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = open("/dev/null")
    def work():
        try:
            hubs.get_hub()
        except OSError:
            errors.append(1)
    errors = []
    thread = threading.Thread(target=work)
    number = first.fileno()
    first.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (number + 1, hard))
    thread.start()
    thread.join()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert errors
"""


def test_a_hub_that_could_not_be_made_is_not_told(find: Find) -> None:
    assert find(USED_UP, IdleHubs, "asyncio") == []


def test_a_thread_without_a_hub_or_with_one_that_runs_is_not_told(find_each: FindEach) -> None:
    programs = [PROGRAM.replace("WORK", work) for work in ("pass", "eventlet.sleep(0.01)")]
    assert find_each(programs, IdleHubs) == [[], []]


@pytest.mark.parametrize(("flags", "count"), [("CLONE_VM|CLONE_THREAD", 1), ("SIGCHLD", 0)])
def test_a_process_that_makes_a_hub_is_no_thread(detect: Find, flags: str, count: int) -> None:
    found = detect(
        IdleHubs, f"1:test clone(child_stack=NULL, flags={flags}) = 9", "9 epoll_create1(0) = 5"
    )
    assert len(found) == count
