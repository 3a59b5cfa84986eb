"""Who opened what a test leaves open, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re

from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings.findings import file
from pytest_eventlet_debug.recordings.findings.left_open import LeftOpen
from pytest_eventlet_debug.recordings.findings.model import Finding

Find = Callable[..., list[Finding]]

pytestmark = needs_strace

PROGRAM = """
import os
import eventlet.green.socket

kept = []

def test_leaves():
    listener = eventlet.listen(("127.0.0.1", 0))
    def serve():
        kept.append(listener.accept()[0])
    server = eventlet.spawn(serve)
    client = eventlet.connect(listener.getsockname())
    server.wait()
    client.close()
    listener.close()
    kept.append(os.pipe())
    kept.append(os.open("/etc/hosts", os.O_RDONLY))
    kept.append(eventlet.green.socket.socket(type=eventlet.green.socket.SOCK_DGRAM))

def test_leaves_nothing():
    os.close(os.open("/etc/hosts", os.O_RDONLY))
"""


def test_what_is_left_open_names_the_call_and_greenthread_that_opened_it(
    record: Callable[..., list[Path]],
) -> None:
    leaves, leaves_nothing = record(PROGRAM, "epolls", "--eventlet-leaks=warn")
    read = file.read(leaves)
    assert read is not None
    titles = [each.title for each in read.findings if each.kind == "left open"]
    titles.sort(key=lambda title: title.lstrip("0123456789"))
    pipe = r"\d+<pipe:\[\d+\]>, which greenthread 1:test got from pipe2\(\.\.\.\) at \S+:\d+ in \w+"
    expected = [
        r"\d+</etc/hosts>, which greenthread 1:test got from openat\(\.\.\.\) at \S+:\d+ in \w+",
        r"\d+<TCP:\[\S+\]>, which greenthread \d+:serve got from accept4\(\d+<TCP:\[127\S+\) "
        r"at \S+:\d+ in accept, from \S+:\d+ in serve",
        r"\d+<UDP:\[\d+\]>, which greenthread 1:test got from socket\(AF_INET, SOCK_DGRAM\S+ "
        r"IPPROTO_IP\) at \S+:\d+ in __init__, from \S+:\d+ in test_leaves",
        pipe,
        pipe,
    ]
    assert len(titles) == len(expected)
    assert all(re.fullmatch(*each) for each in zip(expected, titles, strict=True)), titles
    nothing = file.read(leaves_nothing)
    assert nothing is not None
    assert [each.kind for each in nothing.findings] == []


USED_UP = """
import errno
import os
import resource
import eventlet
import pytest

def test_opens_them_all():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first = os.dup(1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + 10, hard))
    kept = [first]
    with pytest.raises(OSError) as caught:
        while True:
            kept.append(os.open("/dev/null", os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for each in kept:
        os.close(each)
    assert caught.value.errno == errno.EMFILE
    assert FAILS
"""


def test_where_no_descriptor_is_left_for_a_test_that_fails_who_has_them_is_told(
    record: Callable[..., list[Path]],
) -> None:
    (directory,) = record(USED_UP.replace("FAILS", "0"), "epolls", name="fails")
    read = file.read(directory)
    assert read is not None
    (title,) = (each.title for each in read.findings if each.kind == "left open")
    assert re.fullmatch(
        r"there was no descriptor left for openat\(\) at \S+:14 in test_opens_them_all by "
        r"greenthread 1:test: still open were 9 from openat\(\) at \S+:14 in test_opens_them_all",
        title,
    ), title
    (directory,) = record(USED_UP.replace("FAILS", "1"), "epolls", name="passes")
    read = file.read(directory)
    assert read is not None
    assert [each.title for each in read.findings] == []


@pytest.mark.parametrize(("flags", "count"), [("CLONE_VM|CLONE_THREAD", 1), ("SIGCHLD", 0)])
def test_descriptors_of_a_child_process_are_not_the_tests(
    detect: Find, flags: str, count: int
) -> None:
    found = detect(
        LeftOpen,
        f"1:test clone(child_stack=NULL, flags={flags}) = 9",
        *(f"9 socket(AF_INET, SOCK_STREAM, 0) = {fd}<TCP:[{fd}]>" for fd in range(5, 10)),
        "9 socket(AF_INET, SOCK_STREAM, 0) = -1 EMFILE (-)",
    )
    assert len(found) == count
