"""The helper lists the test process's descriptors as that would itself."""

from __future__ import annotations

import os
from pathlib import Path
import signal
import socket
import sys

from programs import wait_until_gone
import pytest

from pytest_eventlet_debug.system.open_descriptors import OpenDescriptors
from pytest_eventlet_debug.tracers.descriptors import DescriptorsByHelper
from pytest_eventlet_debug.tracers.shared_helper import SharedHelper

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the helper needs Linux")


def test_the_helper_sees_what_the_process_sees_and_is_done_without(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    helper = SharedHelper(request.addfinalizer)
    looks = DescriptorsByHelper(helper)
    pid = helper.start().pid
    deleted = tmp_path / "a \udcff name"
    with open(deleted, "w"), socket.socket() as sock, socket.socket() as other:
        deleted.unlink()
        ends = os.pipe()
        try:
            found = looks.look()
            assert found == OpenDescriptors().look()
            assert found[sock.fileno()].startswith("socket:[")
            os.dup2(other.fileno(), sock.fileno())
            assert looks.look()[sock.fileno()] == found[other.fileno()]
        finally:
            for end in ends:
                os.close(end)
        assert found.keys() - looks.look().keys() == {*ends}
        # More than an answer holds.
        many = [os.open(tmp_path, os.O_PATH) for _ in range(900)]
        try:
            assert looks.look() == OpenDescriptors().look()
        finally:
            for fd in many:
                os.close(fd)
        assert looks.look().keys() == found.keys() - {*ends}
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid)
        assert looks.look().keys() == found.keys() - {*ends}
