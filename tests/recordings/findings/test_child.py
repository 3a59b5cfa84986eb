"""Child processes that end badly or get stuck, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re

from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings.child import Child
from pytest_eventlet_debug.recordings.findings.detection import Detection
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.strace_log import parse

pytestmark = needs_strace

Find = Callable[..., list[Finding]]
FindEach = Callable[..., list[list[Finding]]]
Record = Callable[..., list[Path]]

HEAD = """
import os
import signal
import sys
import eventlet
from eventlet import greenio
from eventlet.green import subprocess

def python(program, **options):
    return subprocess.Popen([sys.executable, "-S", "-c", program], **options)
"""

WORKER = (
    HEAD
    + """
def start_worker():
    jobs, to_worker = os.pipe()
    answers, from_worker = os.pipe()
    pid = os.fork()
    if pid == 0:
        while job := os.read(jobs, 100):
            if job == b"poison":
                END
            os.write(from_worker, b"done " + job)
    return greenio.GreenPipe(to_worker, "wb", 0), greenio.GreenPipe(answers, "rb", 0)

def test_worker():
    to_worker, answers = start_worker()
    to_worker.write(b"one")
    assert answers.read(8) == b"done one"
    to_worker.write(b"poison")
    with eventlet.Timeout(1):
        answers.read(11)
"""
)


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_child_that_ends_while_its_answer_is_awaited_is_told_with_both(
    find_each: FindEach, hub: str
) -> None:
    programs = [WORKER.replace("END", f"os._exit({status})") for status in (0, 3)]
    for status, (found,) in zip((0, 3), find_each(programs, Child, hub), strict=True):
        assert found.kind == "child"
        assert re.fullmatch(
            r"child process \d+, started at test_program_\d\.py:\d+ in start_worker, "
            rf"ended with status {status} at test_program_\d\.py:\d+ in start_worker "
            r'after read\(\d+<pipe:\[\d+\]>, "poison"\) \(line \d+\); '
            r"greenthread 1:test waited in vain for \d+<pipe:\[\d+\]> at test_program_\d\.py:\d+ "
            r"in test_worker \(line \d+\), which no other process used; nobody waited for the "
            "child",
            found.title,
        )
        assert found.place.startswith("strace.txt line ")
        assert found.counts == {"status": status}


@pytest.mark.parametrize("hub", ["poll", "selects"])
def test_what_a_hub_waits_for_that_polls_is_known(find_each: FindEach, hub: str) -> None:
    worker = "from eventlet import patcher\n" + WORKER.replace("END", "os._exit(3)")
    pause = "    patcher.original('time').sleep(0.2)\n"
    programs = [worker, worker.replace("    assert", f"{pause}    assert")]
    for (found,) in find_each(programs, Child, hub):
        assert re.search(
            r"; greenthread 1:test waited in vain for \d+<pipe:\[\d+\]> at test_program_\d\.py:\d+ "
            r"in test_worker \(line \d+\), which no other process used; nobody waited for the "
            "child$",
            found.title,
        )


@pytest.mark.parametrize("hub", ["poll", "selects"])
def test_what_came_under_a_hub_that_polls_was_not_waited_for_in_vain(find: Find, hub: str) -> None:
    program = """
def test_answer():
    child = python("import time; time.sleep(0.2); print(1); raise SystemExit(3)", stdout=-1)
    assert child.communicate()[0] == b"2\\n"
"""
    (found,) = find(HEAD + program, Child, hub)
    assert " ended with status 3" in found.title
    assert " in vain " not in found.title


def test_a_child_that_is_killed_is_told_with_the_signal_and_who_sent_it(find: Find) -> None:
    (found,) = find(WORKER.replace("END", "os.kill(os.getpid(), signal.SIGSEGV)"), Child)
    assert re.search(
        r" was killed by SIGSEGV at test_program\.py:\d+ in start_worker after read", found.title
    )
    assert " waited in vain for " in found.title


def test_a_child_that_is_killed_after_its_end_had_ended_by_itself(find: Find) -> None:
    program = """
def test_killed():
    child = python("raise SystemExit(7)")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
"""
    (found,) = find(HEAD + program, Child)
    assert " ended with status 7; greenthread 1:test waited for it at " in found.title


def test_children_that_end_for_the_same_reason_are_told_once(find: Find) -> None:
    program = """
def test_pool():
    for child in [python("int('x')", stderr=-1) for _ in range(6)]:
        child.communicate()
"""
    (found,) = find(HEAD + program, Child)
    assert "\"ValueError: invalid literal for int() with base 10: 'x'\"" in found.title
    assert found.title.endswith(", and 5 more like it")


def test_the_end_of_file_after_a_childs_end_is_told_with_what_the_child_had_written(
    find: Find,
) -> None:
    program = """
def test_answer():
    child = python("input(); import no_such_module", stdin=-1, stdout=-1, stderr=-1)
    child.stdin.write(b"1\\n")
    child.stdin.close()
    assert child.stdout.readline() == b"2\\n"
"""
    (found,) = find(HEAD + program, Child)
    assert ' ended with status 1 after it had written "ModuleNotFoundError: ' in found.title
    assert re.search(
        r"; greenthread 1:test then read the end of file from \d+<pipe:\[\d+\]> at "
        r"test_program\.py:\d+ in test_answer \(line \d+\); nobody waited for the child$",
        found.title,
    )


@pytest.mark.parametrize("end", ["exited with 3", "killed by SIGKILL"])
def test_the_end_of_file_may_be_read_before_strace_tells_of_the_end(end: str) -> None:
    exiting = "20 1.000500 exit_group(3) = ?\n" if end.startswith("exited") else ""
    trace = f"""\
10 1.000000 access("/.eventlet-debug/phase/1000000000/call/a::b", F_OK) = -1 ENOENT (No) <0.000009>
10 1.000100 fork() = 20 <0.000010>
20 1.000200 read(3<pipe:[7]>, "poison", 6) = 6 <0.000010>
20 1.000300 read(4<pipe:[8]>, "", 1) = 0 <0.000010>
10 1.000400 read(5<pipe:[8]>, "", 6) = 0 <0.000150>
{exiting}20 1.000600 +++ {end} +++
"""
    detection = Detection(About(), [Child])
    for _ in detection.watch(parse(trace.splitlines(keepends=True))):
        pass
    (found,) = detection.findings()
    assert "; thread 10 then read the end of file from 5<pipe:[8]> (line 5); " in found.title


def found_in(trace: str) -> list[Finding]:
    """Return what the detector finds in a test's call that forks the process 20."""
    begun = """\
10 1.000000 access("/.eventlet-debug/phase/1000000000/call/a::b", F_OK) = -1 ENOENT (No) <0.000009>
10 1.000100 fork() = 20 <0.000010>
"""
    detection = Detection(About(), [Child])
    for _ in detection.watch(parse((begun + trace).splitlines(keepends=True))):
        pass
    return list(detection.findings())


def test_an_end_of_file_from_before_the_end_of_a_child_is_none_of_its() -> None:
    (found,) = found_in(
        """\
10 1.000150 read(5<pipe:[8]>, "", 6) = 0 <0.000010>
20 1.000200 read(4<pipe:[8]>, "", 1) = 0 <0.000010>
20 1.000300 exit_group(3) = ?
20 1.000400 +++ exited with 3 +++
"""
    )
    assert " ended with status 3;" in found.title
    assert "end of file" not in found.title


@pytest.mark.parametrize(("end", "count"), [("killed by SIGKILL", 0), ("exited with 1", 1)])
def test_a_child_that_is_killed_together_with_the_test_is_not_told(end: str, count: int) -> None:
    trace = f"20 1.000200 +++ killed by SIGKILL +++\n10 1.000300 +++ {end} +++\n"
    assert len(found_in(trace)) == count


def test_an_exception_in_a_forked_child_is_told_though_pytest_captures_it(find: Find) -> None:
    program = """
import multiprocessing

def work():
    raise ValueError("from the child")

def test_work():
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0
"""
    (found,) = find(HEAD + program, Child)
    assert 'ended with status 1 after it had written "ValueError: from the child"' in found.title
    assert re.search(r"; greenthread 1:test waited for it at test_program\.py:\d+", found.title)


def test_warnings_after_the_error_that_ended_a_child_are_passed_over(find: Find) -> None:
    program = """
import os

SAID = b'''Traceback (most recent call last):
RuntimeError: asyncio.run() cannot be called
/usr/lib/python3.12/process.py:317: RuntimeWarning: coroutine 'crawl' was never awaited
  traceback.print_exc()
RuntimeWarning: Enable tracemalloc to get the object allocation traceback
'''

def test_fork():
    pid = os.fork()
    if pid == 0:
        os.write(2, SAID)
        os._exit(1)
    os.waitpid(pid, 0)
    assert False
"""
    (found,) = find(HEAD + program, Child)
    assert 'written "RuntimeError: asyncio.run() cannot be called"' in found.title


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_child_that_fills_a_pipe_which_nobody_reads_is_told_with_what_the_test_waits_for(
    find: Find, hub: str
) -> None:
    program = """
def test_run():
    child = python("print('line ' * 40000)", stdout=-1)
    try:
        with eventlet.Timeout(2):
            child.wait()
    finally:
        child.kill()
        child.stdout.close()
"""
    (found,) = find(HEAD + program, Child, hub)
    assert re.fullmatch(
        r"child process \d+ \(.* -S -c print\(.*\), started at test_program\.py:\d+ in python, "
        r"waited for \d\.\d\d s in write\(1<(pipe:\[\d+\])>\), which is full: "
        r"the test process has its other end, \d+<\1>, and did not read from it; "
        r"greenthread 1:test waited for the child to end at test_program\.py:\d+ in test_run "
        r"\(line \d+\)",
        found.title,
    )
    assert found.counts["seconds"] > 1


def test_a_child_whose_input_never_ends_is_told_if_the_test_waits_for_it(find: Find) -> None:
    program = """
def test_sort():
    child = subprocess.Popen(["sort"], stdin=-1, stdout=-1)
    child.stdin.write(b"b\\na\\n")
    child.stdin.flush()
    with eventlet.Timeout(2):
        child.stdout.read()
"""
    (found,) = find(HEAD + program, Child)
    assert re.search(
        r"s in read\(0<(pipe:\[\d+\])>\), which is empty: the test process has its other end, "
        r"\d+<\1>, and wrote nothing into it; greenthread 1:test waited for \d+<pipe:\[\d+\]> at ",
        found.title,
    )


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_forked_child_that_uses_the_hub_of_its_parent_is_told(find: Find, hub: str) -> None:
    program = """
def test_fork():
    eventlet.sleep(0.01)
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        with eventlet.Timeout(0.1, False):
            greenio.GreenPipe(ours, "rb", 0).read(1)
        os._exit(0)
    os.waitpid(pid, 0)
"""
    (found,) = find(HEAD + program, Child, hub)
    assert re.fullmatch(
        r"child process \d+, started at test_program\.py:\d+ in test_fork, shares the epoll set "
        r"\d+ of the test process since the fork: it adds \d+<pipe:\[\d+\]> at "
        r"test_program\.py:\d+ in test_fork, whose events come to both of them",
        found.title,
    )


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_forked_child_that_takes_from_the_hub_what_its_parent_waits_for_is_told(
    find: Find, hub: str
) -> None:
    program = """
def test_fork():
    ours, theirs = os.pipe()
    reader = eventlet.spawn(greenio.GreenPipe(ours, "rb", 0).read, 1)
    eventlet.sleep(0.01)
    pid = os.fork()
    if pid == 0:
        try:
            reader.kill()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.write(theirs, b"x")
    with eventlet.Timeout(0.1):
        reader.wait()
"""
    found, *_ = find(HEAD + program, Child, hub)
    assert re.fullmatch(
        r"child process \d+, started at test_program\.py:\d+ in test_fork, shares the epoll set "
        r"\d+ of the test process since the fork: it removes (\d+<pipe:\[\d+\]>) at \S+:\d+ in "
        r"\w+, for which greenthread 3:\w+ waited at \S+:\d+ in \w+ \(line \d+\), so that its hub "
        r"hears no more of it",
        found.title,
    )


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_what_a_forked_child_takes_from_the_hub_and_nobody_waits_for_is_not_told(
    find: Find, hub: str
) -> None:
    program = """
def test_fork():
    ours, theirs = os.pipe()
    reader = eventlet.spawn(greenio.GreenPipe(ours, "rb", 0).read, 1)
    eventlet.sleep(0.01)
    os.write(theirs, b"x")
    reader.wait()
    again = eventlet.spawn(greenio.GreenPipe(os.dup(ours), "rb", 0).read, 1)
    eventlet.sleep(0)
    again.kill()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        os._exit(0)
    os.waitpid(pid, 0)
    assert False
"""
    assert not find(HEAD + program, Child, hub)


def test_what_a_childs_own_child_keeps_open_is_told_with_who_inherited_it(find: Find) -> None:
    program = """
def test_output():
    child = subprocess.Popen("echo up; sleep 60 & true", shell=True, stdout=-1)
    assert child.stdout.readline() == b"up\\n"
    with eventlet.Timeout(1):
        child.communicate()
"""
    (found,) = find(HEAD + program, Child)
    assert re.fullmatch(
        r"greenthread 1:test waited in vain for \d+<(pipe:\[\d+\])> at test_program\.py:\d+ in "
        r"test_output \(line \d+\): child process \d+ \(/bin/sh -c echo up; sleep 60 & true\), "
        r"started at test_program\.py:\d+ in test_output, ended with status 0, but child process "
        r"\d+ \(\S*sleep 60\) descends from it, has inherited the other end as 1<\1>, and goes on",
        found.title,
    )


def test_a_child_of_a_childs_that_keeps_nothing_open_is_not_told(find_each: FindEach) -> None:
    program = """
def test_output():
    child = subprocess.Popen(COMMAND, shell=True, stdout=-1)
    assert child.communicate()[0] == b"up\\n"
    assert False
"""
    commands = ("echo up; sleep 60 >/dev/null & true", "echo up; cat </dev/null & wait")
    programs = [HEAD + program.replace("COMMAND", repr(command)) for command in commands]
    assert find_each(programs, Child) == [[], []]


FORKS = (
    HEAD
    + """
def test_fork():
    ours, theirs = eventlet.green.socket.socketpair()
    pid = os.fork()
    if pid == 0:
        WORK
        os._exit(0)
    os.waitpid(pid, 0)
    with eventlet.Timeout(0.3):
        ours.recv(1)
"""
)


def test_a_child_that_reads_what_the_test_waits_for_is_told(find: Find) -> None:
    work = 'os.write(theirs.fileno(), b"x"); os.read(ours.fileno(), 1)'
    (found,) = find(FORKS.replace("WORK", work), Child)
    assert re.fullmatch(
        r"child process \d+, started at test_program\.py:\d+ in test_fork, read 1 byte from "
        r"(\d+<UNIX-STREAM:\[\S+\]>) at test_program\.py:\d+ in test_fork, an end that the test "
        r"process has, too; greenthread 1:test waited in vain for \1 at test_program\.py:\d+ in "
        r"test_fork \(line \d+\)",
        found.title,
    )


def test_a_child_that_reads_from_elsewhere_is_not_told_to_take_anything(
    find_each: FindEach,
) -> None:
    from_the_other_end = 'os.write(ours.fileno(), b"x"); os.read(theirs.fileno(), 1)'
    programs = [FORKS.replace("WORK", work) for work in (from_the_other_end, "os.getpid()")]
    for found in find_each(programs, Child):
        assert not any(" read 1 byte " in each.title for each in found)


GREENTHREADS = (
    HEAD
    + """
def turn():
    for _ in range(4):
        eventlet.sleep(0.02)

def test_fork():
    BEFORE
    eventlet.sleep(0.01)
    pid = os.fork()
    if pid == 0:
        eventlet.spawn(turn).wait()
        os._exit(0)
    os.waitpid(pid, 0)
    assert False
"""
)


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_greenthread_that_goes_on_in_a_forked_child_is_told(find: Find, hub: str) -> None:
    (found,) = find(GREENTHREADS.replace("BEFORE", "eventlet.spawn(turn)"), Child, hub)
    assert re.match(
        r"child process \d+, started at test_program\.py:\d+ in test_fork, runs a copy of "
        r"greenthread 3:turn of the test process since the fork",
        found.title,
    )


def test_greenthreads_that_go_on_in_several_children_are_told_once(find: Find) -> None:
    program = GREENTHREADS.replace("BEFORE", "eventlet.spawn(turn)").replace(
        "pid = os.fork()", "pid = os.fork() and os.fork() and os.fork()"
    )
    found = find(program, Child)
    assert [each.title.endswith(", and 2 more like it") for each in found] == [True]


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_the_greenthread_that_forks_twice_in_a_row_is_no_copy(
    find_each: FindEach, hub: str
) -> None:
    program = GREENTHREADS.replace("pid = os.fork()", "pid = os.fork() or fork_and_wait()")
    program += """
def fork_and_wait():
    pid = os.fork()
    if pid == 0:
        eventlet.sleep(0.02)
    else:
        os.waitpid(pid, 0)
        os._exit(0)
    return pid
"""
    programs = [program.replace("BEFORE", before) for before in ("", "eventlet.spawn(turn)")]
    nothing, (found,) = find_each(programs, Child, hub)
    assert nothing == []
    assert " runs a copy of greenthread 3:turn of the test process " in found.title


def test_a_greenthread_that_a_forked_child_starts_is_not_told(find_each: FindEach) -> None:
    program = GREENTHREADS.replace("BEFORE", "eventlet.spawn(turn).wait()")
    programs = [program, GREENTHREADS.replace("BEFORE", "")]
    assert find_each(programs, Child) == [[], []]


REAPER = (
    HEAD
    + """
def test_status():
    taken = []
    before = signal.signal(signal.SIGCHLD, HANDLER)
    try:
        child = python("raise SystemExit(7)")
        while WAITS:
            eventlet.sleep(0.01)
        assert child.wait() == 7
    finally:
        signal.signal(signal.SIGCHLD, before)
"""
)


def test_who_took_a_childs_status_is_told_with_who_did_not_get_it(find: Find) -> None:
    takes = "lambda *args: taken.append(os.waitpid(-1, os.WNOHANG))"
    (found,) = find(REAPER.replace("HANDLER", takes).replace("WAITS", "not taken"), Child)
    assert re.search(
        r" ended with status 7; greenthread \S+ waited for it at test_program\.py:\d+ in <lambda> "
        r"\(line \d+\), so that greenthread 1:test got ECHILD at test_program\.py:\d+ in "
        r"test_status \(line \d+\) in place of the status$",
        found.title,
    )


def test_a_status_that_nobody_could_get_is_told(find: Find) -> None:
    program = REAPER.replace("HANDLER", "signal.SIG_IGN").replace("WAITS", "taken")
    (found,) = find(program, Child)
    assert re.search(
        r" ended with status 7; its status was not kept, and greenthread 1:test got ECHILD at "
        r"test_program\.py:\d+ in test_status \(line \d+\) in place of it$",
        found.title,
    )


def test_a_child_that_does_what_it_should_is_not_told(find_each: FindEach) -> None:
    bodies = {
        "terminated": 'python("import time; time.sleep(60)").terminate()',
        "interrupted": """
    child = python("input()", stdin=-1)
    child.send_signal(signal.SIGINT)
    child.wait()""",
        "by pidfd": """
    child = python("input()", stdin=-1)
    signal.pidfd_send_signal(os.pidfd_open(child.pid), signal.SIGTERM)
    child.wait()""",
        "no program": """
    try:
        subprocess.Popen(["/no/such/program"])
    except FileNotFoundError:
        pass""",
        "idle": """
    child = subprocess.Popen(["cat"], stdin=-1, stdout=-1)
    child.stdin.write(b"x")
    child.stdin.flush()
    eventlet.sleep(1.1)
    assert child.communicate()[0] == b"x" """,
        "good": 'assert python("print(1)", stdout=-1).communicate()[0] == b"1\\n"',
    }
    test = "\ndef test_it():\n    BODY\n    assert False\n"
    programs = [HEAD + test.replace("BODY", body) for body in bodies.values()]
    assert find_each(programs, Child) == [[]] * len(bodies)


def test_a_status_that_a_test_which_passes_expects_is_not_told(record: Record) -> None:
    test = "\ndef test_false():\n    assert python('raise SystemExit(3)').wait() == WANTED\n"
    programs = [HEAD + test.replace("WANTED", wanted) for wanted in ("3", "4")]
    for directory, kinds in zip(record(programs, "epolls"), ([], ["child"]), strict=True):
        read = findings_file.read(directory)
        assert read is not None
        assert [each.kind for each in read.findings] == kinds


def test_a_test_that_hangs_shows_the_child_and_not_that_all_were_killed(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_program=HEAD
        + """
def test_reads_one_of_two():
    child = python("import sys; sys.stderr.write('x' * 100000)", stdout=-1, stderr=-1)
    bystander = python("import time; time.sleep(60)")
    child.stdout.read()
"""
    )
    result = pytester.runpytest_subprocess(
        *("-p", "no:cacheprovider", "--strace", "--eventlet-hub=epolls", "--eventlet-timeout=3"),
    )
    shown = [line for line in result.outlines if "child: child process" in line]
    assert len(shown) == 2  # with the test, and in the summary
    for line in shown:
        assert " in write(2<pipe:[" in line
        assert "greenthread 1:test waited for " in line
