"""A run whose tests, output and packets are hostile, and what tests ask of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
import subprocess
import sys

from pytest_eventlet_debug.recordings.strace_log import open_log

SUITE = """
    import eventlet
    from eventlet.green import socket
    import pytest

    ATTACK = "<img src=x onerror='window.attacked=1'><script>window.attacked=1</script>"

    def test_passes():
        pass

    def test_differs(eventlet_hub):
        print(ATTACK, "printed")
        server = eventlet.listen(("127.0.0.1", 0))

        def serve():
            connection, _ = server.accept()
            connection.sendall(ATTACK.encode())

        eventlet.spawn(serve)
        client = socket.create_connection(server.getsockname())
        assert client.recv(100) == ATTACK.encode()
        assert eventlet_hub == "poll", ATTACK

    @pytest.mark.parametrize("value", [ATTACK])
    def test_hostile(value):
        pass

    @pytest.mark.skip(reason=ATTACK)
    def test_skipped():
        pass
"""


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A run that was recorded.

    :param directory: of its artifacts, with the report.
    :param stdout: what pytest printed.
    """

    directory: Path
    stdout: str

    @property
    def page(self) -> str:
        return (self.directory / "index.html").as_uri()

    def of(self, name: str) -> Path:
        """Return the directory of the test whose slug holds a name."""
        return next(self.directory.glob(f"*{name}*/test.json")).parent


def line_of(path: Path, text: str) -> int:
    """Return the number of the first line that holds a text."""
    with open_log(path) as lines:
        return next(number for number, line in enumerate(lines, 1) if text in line)


def report(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``pytest-eventlet-debug report``."""
    command = [sys.executable, "-m", "pytest_eventlet_debug", "report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)
