"""A finisher that does nothing, and Ctrl-C while it is waited for."""

from __future__ import annotations

import os
from pathlib import Path
import signal
import sys
from typing import Any

import pytest

from pytest_eventlet_debug.artifacts import open_test
from pytest_eventlet_debug.artifacts import read_test
from pytest_eventlet_debug.helper.capture import Capture
from pytest_eventlet_debug.helper.finishing import Finishing
from pytest_eventlet_debug.helper.loop import Loop
from pytest_eventlet_debug.tracers.completion import Completion
from pytest_eventlet_debug.tracers.helper_client import HelperGoneError
from pytest_eventlet_debug.tracers.helper_client import _library_directories

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the helper needs Linux")


class Answers(list[dict[str, Any]]):
    """Takes the values of answers."""

    def __call__(self, error: str | None = None, **values: object) -> None:
        assert error is None
        self.append(values)


@pytest.mark.fault("finisher-hangs")
def test_one_that_does_nothing_is_ended_and_what_it_left_is_one_line(tmp_path: Path) -> None:
    loop, answers = Loop(), Answers()
    finishing = Finishing(loop, _library_directories(), Capture(loop))
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        finishing.order(answers, directory=str(tmp_path / name), shared=False, ports=None, data=b"")
    answers.clear()
    pid = finishing._pid
    os.kill(pid, signal.SIGSTOP)
    while not answers or answers[-1]["left"]:  # it may have run until the first is due
        told = len(answers)
        finishing.wait(answers)
        while len(answers) == told:
            loop.step()
    (line,) = answers[-1]["problems"]
    assert line == (
        "the process that completes recordings did nothing for 5 s and was ended; what was "
        f"recorded in {tmp_path}/one and 2 more has no findings"
    )
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.fault("finisher-killed")
def test_one_that_dies_twice_over_a_directory_gives_up_that_one_alone(tmp_path: Path) -> None:
    loop, answers = Loop(), Answers()
    finishing = Finishing(loop, _library_directories(), Capture(loop))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        finishing.order(answers, directory=str(tmp_path / name), shared=False, ports=None, data=b"")
    first = finishing._pid
    os.kill(first, signal.SIGKILL)
    while finishing._pid == first:
        loop.step()
    os.kill(finishing._pid, signal.SIGKILL)
    answers.clear()
    finishing.wait(answers)
    while not answers or answers[-1]["left"]:
        loop.step()
    problems = [line for answer in answers for line in answer["problems"]]
    assert problems == [
        "the process that completes recordings ended (SIGKILL); what was recorded in "
        f"{tmp_path}/one has no findings"
    ]
    finishing.close()


class _Interrupted:
    is_gone = False

    def request(self, command: str, **arguments: object) -> dict[str, object]:
        if command == "finish-wait":
            raise KeyboardInterrupt
        return {}

    def post(self, command: str, data: bytes, **arguments: object) -> None:
        pass


@pytest.mark.fault("ctrl-c-finishing")
def test_ctrl_c_while_it_is_waited_for_is_one_line(tmp_path: Path) -> None:
    helper: Any = _Interrupted()
    completion = Completion(lambda: helper)
    completion.begin(open_test(tmp_path, "test_x.py::test_x", None))
    assert completion.wait() == ["Ctrl-C: not all recordings have findings"]


class _Gone:
    is_gone = False

    def post(self, command: str, data: bytes, **arguments: object) -> None:
        pass  # it dies before it has come to that

    def request(self, command: str, **arguments: object) -> dict[str, object]:
        raise HelperGoneError("the tracing helper was killed")


@pytest.mark.fault("helper-killed")
def test_what_a_helper_did_not_come_to_is_written_by_the_test_process(tmp_path: Path) -> None:
    helper: Any = _Gone()
    completion = Completion(lambda: helper)
    test = open_test(tmp_path, "test_x.py::test_x", None)
    test.outcomes["call"] = "passed"
    completion.begin(test)
    assert completion.wait() == ["the tracing helper was killed"]
    record = read_test(test.directory)
    assert record is not None
    assert record.outcomes == {"call": "passed"}
