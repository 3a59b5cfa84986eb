"""Recordings hold secrets: who may read them, and what is not written through."""

from __future__ import annotations

import base64
from collections.abc import Iterator
import json
import os
from pathlib import Path
import stat
import zlib

import pytest

from pytest_eventlet_debug.recordings.strace_log import open_log

EVERYTHING = ("--strace", "--cprofile", "--pcap", "--dump-asyncio-tasks")

FAILS = """
    import socket, time

    def test_it(eventlet_trace):
        with eventlet_trace("strace"):
            time.time()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", ("127.0.0.1", 9))
        assert False
"""


@pytest.fixture(params=[0, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest, pytester: pytest.Pytester) -> Iterator[int]:
    if request.param and os.geteuid() != 0:
        pytest.skip("root alone reads what pytest itself writes then")
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.fault("umask-0", "umask-777")
def test_only_their_owner_reads_recordings_whatever_the_umask(
    pytester: pytest.Pytester, umask: int
) -> None:
    pytester.makepyfile(FAILS)
    pytester.runpytest("-p", "no:cacheprovider", *EVERYTHING).assert_outcomes(failed=1)
    artifacts = pytester.path / "eventlet-debug"
    found = [artifacts, *artifacts.rglob("*")]
    names = {path.name for path in found}
    assert {"strace.txt", "capture.pcapng", "findings.json", "report.js"} <= names
    assert {"profile.cprof", "profile.callgrind", "tasks.txt", "block-1"} <= names
    for path in found:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


@pytest.mark.fault("links-laid")
def test_links_that_a_test_lays_into_its_directory_are_not_written_through(
    pytester: pytest.Pytester,
) -> None:
    victim = pytester.path / "victim"
    victim.write_text("precious")
    hard = pytester.path / "hard"
    hard.write_text("precious, too")
    pytester.makepyfile("""
        import os

        NAMES = (
            "strace.txt capture.pcapng findings.json report.js "
            "profile.cprof profile.callgrind profile.json"
        )

        def test_it(eventlet_artifacts):
            for name in NAMES.split():
                if os.path.exists(eventlet_artifacts / name):
                    os.unlink(eventlet_artifacts / name)
                os.symlink(os.path.abspath("victim"), eventlet_artifacts / name)
            os.link("hard", eventlet_artifacts / "tasks.txt")
            assert False
    """)
    result = pytester.runpytest("--eventlet-phases=call", *EVERYTHING)
    result.assert_outcomes(failed=1)
    assert victim.read_text() == "precious"
    assert hard.read_text() == "precious, too"


@pytest.mark.fault("links-laid-before")
def test_a_trace_and_a_capture_replace_links_laid_before_they_begin(
    pytester: pytest.Pytester,
) -> None:
    victim = pytester.path / "victim"
    victim.write_text("precious")
    pytester.makepyfile("""
        import os
        import pytest

        @pytest.fixture(autouse=True)
        def planted(eventlet_artifacts):
            for name in ("strace.txt", "capture.pcapng"):
                os.symlink(os.path.abspath("victim"), eventlet_artifacts / name)

        def test_it(planted):
            os.path.exists("/marked")
    """)
    result = pytester.runpytest("--strace", "--pcap", "--eventlet-phases=call")
    result.assert_outcomes(passed=1)
    assert victim.read_text() == "precious"
    (trace,) = pytester.path.glob("eventlet-debug/*/strace.txt")
    assert not trace.is_symlink()
    assert '"/marked"' in trace.read_text()


def test_git_sees_nothing_of_the_recordings(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest("--cprofile").assert_outcomes(passed=1)
    ignored = (pytester.path / "eventlet-debug" / ".gitignore").read_text().splitlines()
    assert "*" in ignored


SECRETIVE = """
    import asyncio, os, socket

    def test_it():
        os.path.exists("/path/with/password=hunter2/in/it")
        print("printed password=hunter2")
        print("Traceback (most recent call last):")
        print('  File "x.py", line 1, in f')
        print("ValueError: raised for password=hunter2")

        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            client.send(b"GET /password=hunter2 HTTP/1.1\\r\\n\\r\\n")
            served, _ = server.accept()
            served.recv(100)
            served.close()
            client.close()

        async def main():
            task = asyncio.ensure_future(asyncio.sleep(9), loop=asyncio.get_running_loop())
            task.set_name("password=hunter2")
            await asyncio.sleep(0)
            assert False, "failed for password=hunter2"

        asyncio.run(main())
"""


def shown_by(script: Path) -> str:
    """Return the data of a script that the report loads."""
    return zlib.decompress(base64.b64decode(script.read_text().split('"')[1])).decode("ascii")


def test_what_is_to_be_redacted_is_in_no_text_of_the_recordings(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(SECRETIVE)
    result = pytester.runpytest(
        *("--eventlet-redact=hunter[0-9]", "--strace", "--pcap", "--dump-asyncio-tasks"),
        *("-k", "not hunter2", "--eventlet-save=run.json", "--eventlet-summary=summary.md"),
    )
    result.assert_outcomes(failed=1)
    (directory,) = (path.parent for path in pytester.path.glob("eventlet-debug/*/test.json"))
    scripts = [*directory.glob("report.js"), *directory.parent.glob("report/*.js")]
    texts = [shown_by(path) for path in scripts if path.read_text().startswith("eventletReport")]
    with open_log(directory / "strace.txt") as trace:
        texts += [trace.read(), (directory / "tasks.txt").read_text()]
    assert len(texts) == 5
    texts += [Path(name).read_text() for name in ("run.json", "summary.md")]
    texts += [path.read_text() for path in directory.parent.glob("*.json")]
    texts.append((directory / "findings.json").read_text())
    assert ["redacted" in text for text in texts] == [True] * len(texts)
    assert not [text for text in texts if "hunter2" in text]
    for path in directory.iterdir():
        if path.name != "capture.pcapng":
            assert b"hunter2" not in path.read_bytes(), path
    assert json.loads((directory / "test.json").read_text())["errors"] == []


@pytest.mark.fault("redact-no-regex", "redact-empty")
@pytest.mark.parametrize(
    ("value", "words"), [("(", "is not a regular expression"), ("x*", "matches the empty string")]
)
def test_what_cannot_be_redacted_is_a_usage_error(
    pytester: pytest.Pytester, value: str, words: str
) -> None:
    result = pytester.runpytest(f"--eventlet-redact={value}", "--cprofile")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--eventlet-redact: {value!r} {words}" in result.stderr.str()
