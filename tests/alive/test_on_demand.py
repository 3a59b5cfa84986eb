"""What a process tells of itself at any moment: when it hangs, and when it is asked."""

from __future__ import annotations

import os
from pathlib import Path
import re
import subprocess
import sys
import textwrap
import threading

import pytest
from speed import depends_on_speed

from pytest_eventlet_debug.alive import on_demand
from pytest_eventlet_debug.alive.greenthread_waits import _owner_has_ended

TIMEOUT = "--eventlet-timeout=3"
# To start a recording may take longer than that on a busy machine.
LONG_TIMEOUT = "--eventlet-timeout=10"


def hang(pytester: pytest.Pytester, body: str, *options: str) -> str:
    """Run a test that hangs; return what is printed of it."""
    pytester.makepyfile(
        test_x="import os, signal, subprocess, sys, threading, time\nimport eventlet\n"
        "from eventlet.event import Event\nfrom eventlet.semaphore import Semaphore\n"
        "def test_hangs():\n" + textwrap.indent(textwrap.dedent(body), "    ")
    )
    result = pytester.runpytest(TIMEOUT, *options)
    result.assert_outcomes(failed=1)
    return result.stdout.str()


def block(text: str, title: str) -> str:
    """Return a section of the evidence."""
    found = re.search(rf"^{title}:\n((?:  .*\n)+)", text, re.MULTILINE)
    assert found is not None, text
    return textwrap.dedent(found[1])


def test_a_hang_shows_its_own_frame_and_what_it_waits_on_first(pytester: pytest.Pytester) -> None:
    text = block(hang(pytester, "Event().wait()"), "What is alive")
    assert re.match(
        r"the test waits at test_x.py:6 in test_hangs on Event, 1 waiting\n"
        r"greenthreads: 1\n"
        r"  the test  suspended\n"
        r"    test_x.py:6 in test_hangs\n"
        r"        Event\(\).wait\(\)\n"
        r"    waits on Event, 1 waiting\n"
        r"hub \w+, running: no listeners, no timers\n",
        text,
    ), text


def test_a_test_without_eventlet_shows_its_frame_too(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import signal\ndef test_hangs():\n    while True: signal.pause()")
    result = pytester.runpytest(TIMEOUT)
    text = block(result.stdout.str(), "What is alive")
    assert re.search(r"^  the test  current\n    test_\S+.py:3 in test_hangs\n", text, re.M), text


def test_equal_greenthreads_are_folded_below_the_test(pytester: pytest.Pytester) -> None:
    body = """
        def consumer(queue):
            queue.get()
        for _ in range(50):
            eventlet.spawn(consumer, eventlet.Queue())
        eventlet.Queue().get()
        """
    text = block(hang(pytester, body), "What is alive")
    assert text.index("  the test  suspended\n") < text.index("consumer  suspended  x 50\n")
    assert text.count("waits on Queue.get, 0 items\n") == 2


@depends_on_speed  # who holds a lock is not looked for when half a second is over
def test_locks_in_opposite_order_are_a_circle_with_the_test_in_it(
    pytester: pytest.Pytester,
) -> None:
    body = """
        a, b = Semaphore(), Semaphore()
        def other():
            with b:
                eventlet.sleep(0)
                a.acquire()
        eventlet.spawn(other)
        with a:
            eventlet.sleep(0)
            b.acquire()
        """
    text = block(hang(pytester, body), "What is alive")
    assert re.search(r"^  DEADLOCK, unless .*the test -> \S+other -> the test|other ->", text, re.M)
    assert "waits on Semaphore, value 0, 1 waiting, held by the test\n" in text


def test_a_task_on_the_asyncio_hub_is_told(pytester: pytest.Pytester) -> None:
    body = """
        import asyncio
        from eventlet.asyncio import spawn_for_awaitable
        async def never():
            await asyncio.Event().wait()
        spawn_for_awaitable(never()).wait()
        """
    text = block(hang(pytester, body, "--eventlet-hub=asyncio"), "What is alive")
    assert re.search(r"  the test  suspended\n(.*\n)+?    waits on the end of greenthread ", text)
    assert "never()\n" in text
    assert "waits on Event.wait, not set, 1 waiting\n" in text


def test_a_busy_loop_is_told(pytester: pytest.Pytester) -> None:
    text = block(hang(pytester, "while True:\n    pass"), "What is alive")
    assert "  the test  current\n    test_x.py:" in text


def test_a_child_process_is_told_with_what_it_waits_in(pytester: pytest.Pytester) -> None:
    body = """
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE).wait()
        """
    text = block(hang(pytester, body), "What is alive")
    assert re.search(
        r"^child processes:\n  \d+  S \(sleeping\), in read\(0, pipe:\[\d+\]\): \S+ -c input\(\)$",
        text,
        re.MULTILINE,
    ), text


def test_a_lock_of_a_thread_names_the_thread_and_shows_its_stack(
    pytester: pytest.Pytester,
) -> None:
    body = """
        lock, held = threading.Lock(), threading.Event()
        def holds():
            with lock:
                held.set()
                time.sleep(100)
        threading.Thread(target=holds, daemon=True, name="holder").start()
        held.wait()
        def takes():
            with lock:
                pass
        eventlet.spawn(takes).wait()
        """
    text = block(hang(pytester, body), "What is alive")
    assert "  test_hangs.<locals>.takes  current\n" in text or "  takes  current\n" in text
    assert "waits on a threading lock, held by thread holder; its whole thread waits\n" in text
    assert re.search(r"^  holder\n    test_x.py:\d+ in \S*holds\n", text, re.MULTILINE), text


def test_who_holds_up_the_hub_is_told_of_one_whose_timer_is_due(pytester: pytest.Pytester) -> None:
    body = """
        lock = threading.Lock()
        def use():
            with lock:
                eventlet.sleep(0.01)
        first, second = eventlet.spawn(use), eventlet.spawn(use)
        first.wait()
        """
    text = block(hang(pytester, body), "What is alive")
    use = r"test_x\.py:\d+ in (?:test_hangs\.<locals>\.)?use on"
    pattern = (
        rf"the test waits at .* on the end of greenthread (\S+), which waits at {use} sleep, "
        rf"overdue by \S+ s, as greenthread \1 does not let the hub run, which waits at {use} a "
        r"threading lock, held by \1; its whole thread waits: they wait for each other, unless "
        r"another one lets them go on\n"
    )
    assert re.match(pattern, text), text


def test_what_keeps_a_process_from_its_end_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import threading, time
        def test_leaves():
            threading.Thread(target=time.sleep, args=[100], name="worker").start()
            threading.Thread(target=time.sleep, args=[100], daemon=True).start()
        """
    )
    text = block(pytester.runpytest(TIMEOUT).stdout.str(), "What is alive")
    assert "waits on the end of thread worker, without which Python does not end\n" in text


def test_that_the_owner_of_a_reentrant_lock_has_ended_is_known() -> None:
    of_ended, of_this = threading.RLock(), threading.RLock()
    thread = threading.Thread(target=of_ended.acquire)
    thread.start()
    thread.join()
    with of_this:
        assert _owner_has_ended(of_ended)
        assert not _owner_has_ended(of_this)
    assert not _owner_has_ended(threading.RLock())
    assert not _owner_has_ended(threading.Lock())


@pytest.mark.fault("hang-in-c")
def test_c_code_that_does_not_return_is_told_by_its_stacks(pytester: pytest.Pytester) -> None:
    text = hang(pytester, "import itertools\nsum(itertools.repeat(1))")
    assert block(text, "Python did not answer").startswith("its main thread is in C code")
    assert re.search(r'File "\S+test_x.py", line 7 in test_hangs', block(text, "Its stacks"))


@pytest.mark.fault("signals-blocked")
def test_blocked_signals_are_told(pytester: pytest.Pytester) -> None:
    body = """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        signal.sigwait([signal.SIGUSR1])
        """
    text = hang(pytester, body)
    assert block(text, "Python did not answer") == "its main thread blocks signals\n"


def test_py_spy_reads_the_running_stack_where_python_does_not_answer(
    pytester: pytest.Pytester,
) -> None:
    if not Path(sys.executable).with_name("py-spy").exists():
        pytest.skip("py-spy is not installed")
    body = """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        signal.sigwait([signal.SIGUSR1])
        """
    text = block(hang(pytester, body), "Its running stacks, by py-spy")
    assert re.search(r"^    test_hangs \(test_x.py:\d+\)$", text, re.MULTILINE), text
    assert "_pytest" not in text


def test_a_hang_is_told_where_py_spy_does_not_run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = pytester.mkdir("programs")
    (programs / "py-spy").write_text("neither a script nor a binary")
    (programs / "py-spy").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    body = """
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        signal.sigwait([signal.SIGUSR1])
        """
    text = hang(pytester, body)
    assert block(text, "Python did not answer") == "its main thread blocks signals\n"
    assert "by py-spy" not in text


def test_a_test_does_not_go_on_for_having_been_asked(pytester: pytest.Pytester) -> None:
    # The signal ends this call, and the test would pass.
    hang(pytester, "import ctypes\nctypes.PyDLL(None).pause()")


def test_what_is_alive_is_among_the_artifacts_of_a_recorded_test(
    pytester: pytest.Pytester,
) -> None:
    shown = block(hang(pytester, "Event().wait()", "--cprofile", LONG_TIMEOUT), "What is alive")
    (file,) = pytester.path.glob("eventlet-debug/*/hang.txt")
    kept = file.read_text()
    assert kept.startswith("What is alive:\nthe test waits at test_x.py:6 in test_hangs on Event, ")
    assert shown in kept
    assert '"hang.txt"' in file.with_name("test.json").read_text()


ASKED = """
import os, sys, signal, builtins, time
import eventlet
from unittest import mock
from pytest_eventlet_debug.alive import on_demand

target = open(sys.argv[1], "w")
switches = []

def sleeper():
    eventlet.sleep(60)

def asks():
    before = len(switches)
    on_demand.write_dump(target.fileno())
    switches.append("not by the dump" if len(switches) == before else "by the dump")

def ticks():
    while True:
        switches.append("tick")
        eventlet.sleep(0)

if sys.argv[2] == "patched":
    eventlet.monkey_patch()
for function in (sleeper, ticks, asks):
    eventlet.spawn(function)
broken = mock.Mock(side_effect=ZeroDivisionError)
with mock.patch("os.open", broken), mock.patch("builtins.open", broken), \\
     mock.patch("os.getpid", broken), mock.patch("time.monotonic", broken), \\
     mock.patch("signal.pthread_sigmask", broken), mock.patch("os.stat", broken):
    eventlet.sleep(0)
print("not by the dump" in switches)
"""


@pytest.mark.parametrize("patched", ["patched", "plain"])
def test_a_dump_switches_nothing_and_uses_nothing_that_tests_patch(
    tmp_path: Path, patched: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(ASKED)
    target = tmp_path / "dump.txt"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", str(program), str(target), patched],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "True\n", result.stderr
    text = target.read_text()
    assert text.startswith(on_demand.BEGIN)
    assert text.endswith(on_demand.END)
    assert re.search(r"^  sleeper  suspended\n.*\n        eventlet.sleep\(60\)$", text, re.M), text
    assert "could not be" not in text


def test_a_dump_into_nowhere_raises_nothing() -> None:
    on_demand.write_dump(-1)
    read, write = os.pipe()
    os.close(read)
    on_demand.write_dump(write)
    os.close(write)


HUNG = """
import asyncio, concurrent.futures, os
import eventlet
import eventlet.hubs
import pytest
from eventlet.asyncio import spawn_for_awaitable

async def call():
    await asyncio.get_running_loop().create_future()

def test_coroutine():
    spawn_for_awaitable(call()).wait()

async def answer():
    return 42

def test_own_loop():
    eventlet.sleep(0)
    loop = eventlet.hubs.get_hub().loop
    asyncio.run_coroutine_threadsafe(answer(), loop).result(60)

def test_thread():
    reader, writer = os.pipe()
    with concurrent.futures.ThreadPoolExecutor(1, "pool") as executor:
        executor.submit(os.read, reader, 1).result(60)
"""


def test_what_a_hung_test_waits_for_is_in_the_summary(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x=HUNG)
    result = pytester.runpytest("--eventlet-hub=asyncio", TIMEOUT, "-W", "ignore")
    result.assert_outcomes(failed=3)
    summary = result.stdout.str().split("== findings ==")[1]
    told = [line.strip() for line in summary.splitlines() if "the test waits " in line]
    assert len(told) == 3, summary
    assert re.fullmatch(
        r"the test waits at test_x\.py:11 in test_coroutine on the end of greenthread "
        r"spawn_for_awaitable\.<locals>\._run, which waits on task Task-\d+, call\(\), which waits "
        r"at test_x\.py:8 in call on a Future, not done",
        told[0],
    )
    assert told[1:] == [
        "the test waits at test_x.py:19 in test_own_loop on what the event loop of the same thread "
        "is to do; its whole thread waits",
        "the test waits at test_x.py:24 in test_thread on what thread pool_0 runs, read; its "
        "whole thread waits",
    ]
