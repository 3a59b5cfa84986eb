"""What greenthreads wait on, held against what locks, hubs and threads really do."""

from __future__ import annotations

import os
from pathlib import Path
import re
import subprocess
import sys
import textwrap

import pytest
from speed import depends_on_speed

HUBS = ("epolls", "asyncio", "poll")

SHOW = """
import os
import eventlet
from eventlet import patcher
from eventlet.semaphore import Semaphore
from pytest_eventlet_debug.alive.snapshot import take
from pytest_eventlet_debug.alive.render import render_greenthreads, render_hubs

def show():
    alive = take()
    print(render_greenthreads(alive.greenthreads) + render_hubs(alive.hubs))

def let_run():
    eventlet.sleep(0)
    eventlet.sleep(0)

"""


def shown(directory: Path, program: str, hub: str = "epolls") -> str:
    """Run a program and return what it printed of what is alive."""
    path = directory / "program.py"
    path.write_text(SHOW + textwrap.dedent(program))
    environment = {**os.environ, "EVENTLET_HUB": hub}
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(path)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


OPPOSITE_ORDER = """
    import {module} as module
    a, b = module.{kind}(), module.{kind}()

    def first():
        with a:
            eventlet.sleep(0)
            b.acquire()

    def second():
        b.acquire()
        eventlet.sleep(0)
        with a:
            pass

    for function in (first, second):
        eventlet.spawn(function)
    let_run()
    show()
"""


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize(
    ("module", "kind", "word"),
    [
        ("eventlet.semaphore", "Semaphore", "Semaphore"),
        ("eventlet.green.threading", "Lock", "Lock"),
        ("eventlet.green.threading", "_PyRLock", "Lock"),
    ],
)
def test_locks_taken_in_opposite_order_are_a_circle(
    tmp_path: Path, hub: str, module: str, kind: str, word: str
) -> None:
    text = shown(tmp_path, OPPOSITE_ORDER.format(module=module, kind=kind), hub)
    assert re.search(
        r"^  DEADLOCK, unless another one releases a lock: "
        r"(first -> second -> first|second -> first -> second)$",
        text,
        re.MULTILINE,
    ), text
    assert f"waits on {word}, value 0, 1 waiting, held by second\n" in text
    assert f"waits on {word}, value 0, 1 waiting, held by first\n" in text


def test_a_lock_that_its_holder_takes_again_is_a_circle_of_one(tmp_path: Path) -> None:
    text = shown(
        tmp_path,
        """
        lock = Semaphore()
        def twice():
            with lock:
                with lock:
                    pass
        eventlet.spawn(twice)
        let_run()
        show()
        """,
    )
    assert "  DEADLOCK, unless another one releases a lock: twice -> twice\n" in text


def test_locks_and_ends_make_circles_together(tmp_path: Path) -> None:
    text = shown(
        tmp_path,
        """
        lock = Semaphore()
        def takes():
            with lock:
                pass
        def holds():
            with lock:
                eventlet.spawn(takes).wait()
        eventlet.spawn(holds)
        let_run()
        show()
        """,
    )
    assert re.search(
        r"^  DEADLOCK, unless .*: (takes -> holds -> takes|holds -> takes -> holds)$", text, re.M
    ), text


def test_no_circle_is_claimed_where_one_of_several_holders_may_release(tmp_path: Path) -> None:
    text = shown(
        tmp_path,
        """
        two = Semaphore(2)
        def waits():
            with two:
                with two:
                    pass
        def sleeps():
            with two:
                eventlet.sleep(5)
        eventlet.spawn(sleeps)
        eventlet.spawn(waits)
        let_run()
        show()
        """,
    )
    assert re.search(r"waits on Semaphore, value 0, 1 waiting, held by (\w+, )+\w+$", text, re.M)
    assert "DEADLOCK" not in text


CLOSED = """
    read, write = os.pipe()
    def reader():
        eventlet.hubs.trampoline(read, read=True)
    eventlet.spawn(reader)
    let_run()
    os.close(read)
    {then}
    show()
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_descriptor_that_has_left_the_epoll_set_is_told(tmp_path: Path, hub: str) -> None:
    text = shown(tmp_path, CLOSED.format(then=""), hub)
    words = r"read on fd \d+, closed, which the hub's epoll set no longer has"
    assert re.search(f"^    waits on {words}$", text, re.MULTILINE), text
    assert re.search(f"^  {words}: wakes reader$", text, re.MULTILINE), text


def test_another_file_under_the_same_number_is_told(tmp_path: Path) -> None:
    # The pipe that was closed lives on under another number, and so in the epoll set.
    text = shown(
        tmp_path,
        """
        read, write = os.pipe()
        def reader():
            eventlet.hubs.trampoline(read, read=True)
        eventlet.spawn(reader)
        let_run()
        other = os.dup(read)
        os.dup2(os.pipe()[0], read)
        show()
        """,
    )
    assert re.search(r"read on fd \d+, pipe:\S+, for which the hub's epoll set has another", text)


@pytest.mark.parametrize("hub", HUBS)
def test_a_listener_that_the_hub_has_lost_is_told(tmp_path: Path, hub: str) -> None:
    then = "hub = eventlet.hubs.get_hub(); hub.listeners['read'].clear()"
    text = shown(tmp_path, CLOSED.format(then=then), hub)
    assert "closed, which the hub no longer watches\n" in text


@pytest.mark.parametrize("hub", HUBS)
def test_what_is_watched_rightly_is_told_without_complaint(tmp_path: Path, hub: str) -> None:
    text = shown(tmp_path, CLOSED.format(then="").replace("os.close(read)", ""), hub)
    assert re.search(r"^    waits on read on fd \d+, pipe:\[\d+\]$", text, re.MULTILINE), text


def test_a_wait_of_the_programs_own_making_is_known_by_what_the_hub_will_do(tmp_path: Path) -> None:
    text = shown(
        tmp_path,
        """
        hub = eventlet.hubs.get_hub()
        def timed():
            hub.schedule_call_global(60, eventlet.getcurrent().switch)
            hub.switch()
        def reading():
            me = eventlet.getcurrent()
            for fd in (os.pipe()[0], os.pipe()[0]):
                hub.add("read", fd, me.switch, me.throw, lambda: None)
            hub.switch()
        def lost():
            hub.switch()
        for function in (timed, reading, lost):
            eventlet.spawn(function)
        let_run()
        show()
        """,
    )
    waits = re.findall(r"^    waits on (.*)$", text, re.MULTILINE)
    assert sorted(re.sub(r"\d+", "N", each) for each in waits) == [
        "a timer, N.N s left",
        "nothing that a hub knows",
        "read on fd N, pipe:[N]; read on fd N",
    ]


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize("frozen", [True, False])
def test_a_clock_of_the_hub_that_stands_still_is_told(
    tmp_path: Path, hub: str, frozen: bool
) -> None:
    text = shown(
        tmp_path,
        f"""
        import time
        now, start = time.monotonic, time.monotonic()
        def clock():
            return start if {frozen} else now()
        eventlet.spawn(eventlet.sleep, 60)
        let_run()
        eventlet.hubs.get_hub().clock = clock
        show()
        """,
        hub,
    )
    expected = "left by the hub's clock __main__.clock(), which stands still" if frozen else "left"
    assert re.search(rf"^    waits on sleep, \d+\.\d+ s {re.escape(expected)}$", text, re.M), text


@pytest.mark.parametrize("hub", HUBS)
def test_a_lost_timer_and_a_late_one_are_told(tmp_path: Path, hub: str) -> None:
    text = shown(
        tmp_path,
        """
        def lost():
            eventlet.sleep(30)
        def late():
            eventlet.sleep(0.01)
        eventlet.spawn(lost)
        eventlet.spawn(late)
        eventlet.sleep(0)
        hub = eventlet.hubs.get_hub()
        for _, timer in hub.timers + hub.next_timers:
            if timer.seconds == 30:
                timer.cancel()
        patcher.original("time").sleep(0.4)
        show()
        """,
        hub,
    )
    assert "waits on sleep, whose timer is in no hub's heap\n" in text
    assert re.search(r"^    waits on sleep, overdue by \d+\.\d s$", text, re.MULTILINE), text


def test_greenthreads_have_their_names_where_a_test_mocks_eventlet(tmp_path: Path) -> None:
    text = shown(
        tmp_path,
        """
        import sys
        from unittest import mock
        def waits():
            eventlet.sleep(60)
        eventlet.spawn(waits)
        let_run()
        for module in (mock.MagicMock(), None):
            with mock.patch.dict(sys.modules, {"eventlet": module}):
                show()
        """,
    )
    assert text.count("  waits  suspended\n") == 2
    assert text.count("    waits on sleep, ") == 2


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_descriptor_that_wakes_the_hub_in_vain_is_told(tmp_path: Path, hub: str) -> None:
    text = shown(
        tmp_path,
        """
        from eventlet.hubs import get_hub
        def waits():
            eventlet.hubs.trampoline(watched, read=True)
        watched, stray = os.pipe()[0], os.pipe()[0]
        eventlet.spawn(waits)
        let_run()
        hub = get_hub()
        poll = hub.poll if hasattr(hub, "poll") else hub.loop._selector._selector
        poll.register(stray, 1)
        os.dup2(stray, 90)
        os.close(stray)
        show()
        """,
        hub,
    )
    (line,) = re.findall("woken for .*", text)
    assert re.fullmatch(r"woken for fd \d+, closed, for which nobody waits", line)


# Without a certificate.
TLS = """
    from eventlet.green import select, socket, ssl

    def context(protocol):
        made = ssl.SSLContext(protocol)
        made.maximum_version = ssl.TLSVersion.TLSv1_2
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        made.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
        return made

    ours, theirs = socket.socketpair()
    made = context(ssl.PROTOCOL_TLS_SERVER)
    serving = eventlet.spawn(made.wrap_socket, theirs, server_side=True)
    tls = context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(ours)
    server = serving.wait()
    server.sendall(b"0123456789" * 100)

    def client():
        assert len(tls.recv({taken})) == {taken}
        {wait}

    eventlet.spawn(client)
    for _ in range(5):
        let_run()
    show()
"""


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize(
    "wait", ["eventlet.hubs.trampoline(tls, read=True)", "select.select([tls], [], [])"]
)
def test_a_wait_for_data_that_tls_has_decrypted_already_is_told(
    tmp_path: Path, hub: str, wait: str
) -> None:
    text = shown(tmp_path, TLS.format(taken=100, wait=wait), hub)
    words = (
        r"read on fd \d+, unix .*, "
        "whose TLS socket has 900 bytes decrypted already, for which no event will come"
    )
    assert re.search(f"^    waits on {words}$", text, re.MULTILINE), text
    assert re.search(f"^  {words}: wakes client$", text, re.MULTILINE), text


def test_a_wait_for_more_than_tls_has_is_told_without_complaint(tmp_path: Path) -> None:
    text = shown(tmp_path, TLS.format(taken=1000, wait="tls.recv(1)"))
    assert re.search(r"^    waits on read on fd \d+, unix ", text, re.MULTILINE), text
    assert "decrypted" not in text


def test_a_wait_to_write_is_told_without_what_tls_has(tmp_path: Path) -> None:
    text = shown(tmp_path, TLS.format(taken=100, wait="tls.sendall(b'much' * 1_000_000)"))
    assert re.search(r"^    waits on write on fd \d+, unix ", text, re.MULTILINE), text
    assert "decrypted" not in text


def test_a_tls_socket_that_blocks_is_not_asked_what_it_has(tmp_path: Path) -> None:
    wait = "os.set_blocking(tls.fileno(), True); eventlet.hubs.trampoline(tls, read=True)"
    text = shown(tmp_path, TLS.format(taken=100, wait=wait))
    assert re.search(r"^    waits on read on fd \d+, unix ", text, re.MULTILINE), text
    assert "decrypted" not in text


def test_the_timers_of_a_hub_are_told_in_the_order_in_which_they_are_due(tmp_path: Path) -> None:
    text = shown(
        tmp_path,
        """
        def last(): eventlet.sleep(300)
        def second(): eventlet.sleep(200)
        def first(): eventlet.sleep(100)
        for function in (last, second, first):
            eventlet.spawn(function)
            let_run()
        show()
        """,
    )
    order = re.findall(r"^  in [\d.]+ s: wake greenthread (\w+)", text, re.MULTILINE)
    assert order == ["first", "second", "last"], text


NOT_BEGUN = """
import time
import unittest

import eventlet

def work():
    pass

def wait(seconds):
    eventlet.spawn(work)
    time.sleep(seconds)

def test_sleeps():
    wait(0.7)
    assert False

class Test(unittest.TestCase):
    def test_sleeps_in_a_class(self):
        wait(0.2)
        assert False

def test_fails_soon():
    wait(0)
    assert False

def test_lets_it_run():
    eventlet.spawn(work)
    eventlet.sleep(0.2)
    assert False

def test_hub_is_busy_with_another():
    eventlet.spawn_after(0.02, time.sleep, 0.3)
    eventlet.spawn_after(0.04, work)
    eventlet.sleep(0.03)
    assert False

def test_is_to_start_later():
    eventlet.spawn_after(10, work)
    time.sleep(0.2)
    assert False

def test_leaves_one_for_later():
    eventlet.spawn_after(0.3, work)

def test_sleeps_meanwhile():
    time.sleep(0.7)
    assert False
"""


@depends_on_speed
@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_what_could_not_begin_is_told_in_the_summary(pytester: pytest.Pytester, hub: str) -> None:
    pytester.makepyfile(test_x=NOT_BEGUN)
    result = pytester.runpytest("--dump-asyncio-tasks", f"--eventlet-hub={hub}", "-W", "ignore")
    result.assert_outcomes(failed=7, passed=1)
    result.stdout.re_match_lines(
        [r"  overdue by (0\.[7-9]|[1-9])[\d.]* s: start greenthread work$"]
    )
    # The same is told of both, once.
    assert len([line for line in result.outlines if "had not begun" in line]) == 1
    result.stdout.re_match_lines(
        [
            rf"  test_x\.py::test_sleeps\[{hub}\]   and 1 more$",
            r"    greenthread work had not begun: it was due (0\.[7-9]|[1-9])[\d.]* s "
            r"before, and nothing has let the hub run since, as eventlet\.sleep\(\) would$",
        ]
    )


def test_one_item_is_told_in_the_singular_and_no_running_greenthread_by_its_number(
    tmp_path: Path,
) -> None:
    text = shown(
        tmp_path,
        """
        from eventlet.queue import LightQueue
        full, empty, pool = LightQueue(1), LightQueue(), eventlet.GreenPool()
        full.put(1)
        eventlet.spawn(full.put, 2)
        eventlet.spawn(empty.get)
        job = pool.spawn(eventlet.sleep, 60)
        eventlet.spawn(pool.waitall)
        let_run()
        let_run()
        empty.put(1)
        show()
        pool.coroutines_running.clear()
        show()
        """,
    )
    assert "waits on LightQueue.put, 1 item of 1\n" in text
    assert "waits on LightQueue.get, 1 item\n" in text
    assert re.search(r"waits on GreenPool\.waitall, 1 running: \S+", text)
    assert "waits on GreenPool.waitall, 0 running\n" in text
