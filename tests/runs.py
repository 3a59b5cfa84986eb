"""Runs over several hubs: how tests start them and read what they print."""

from __future__ import annotations

from collections.abc import Iterable
import json
from pathlib import Path
import re
import sys

import pytest

BOTH = "--eventlet-hub=epolls,asyncio"

#: Fails on asyncio only, between two that pass.
DIFFERS = """
    def test_a(): pass

    def test_b(eventlet_hub):
        assert eventlet_hub != "asyncio" {mended}

    def test_c(): pass
"""


def run(pytester: pytest.Pytester, *arguments: str | Path) -> pytest.RunResult:
    """Run pytest; nothing it prints may be a traceback of the plugin's."""
    result = pytester.runpytest(*arguments)
    assert_no_traceback_of_ours(result.stdout.str() + result.stderr.str())
    return result


#: Calls pytest with one command line after the other, which takes no new interpreter for each.
_CALLS = """
    import contextlib, io, json, sys
    import pytest

    for arguments in json.loads(sys.argv[1]):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            with contextlib.redirect_stderr(io.StringIO()) as err:
                status = pytest.main(arguments)
        print(json.dumps([int(status), out.getvalue(), err.getvalue()]))
"""


def refused(pytester: pytest.Pytester, command_lines: Iterable[Iterable[str]]) -> list[str]:
    """Return the one line that pytest says of each, all of which it must refuse at once."""
    pytester.makeconftest("raise SystemError('imported')")
    program = pytester.makepyfile(calls=_CALLS)
    arguments = json.dumps([[*each, "-q"] for each in command_lines])
    lines = []
    for said in pytester.run(sys.executable, program, arguments).outlines:
        status, out, err = json.loads(said)
        assert (status, out) == (pytest.ExitCode.USAGE_ERROR, "")
        (line,) = filter(None, err.splitlines())
        lines.append(line)
    return lines


def assert_no_traceback_of_ours(text: str) -> None:
    assert not re.search(r'pytest_eventlet_debug/\S+(", line |:\d+: )', text)


def ran(result: pytest.RunResult) -> list[str]:
    """Return the tests in the output of ``-v``, in order, without their file's name."""
    pattern = r"\S+\.py::(\S+) (?:PASSED|FAILED|SKIPPED|ERROR|RERUN|CRASHED)"
    return [match[1] for match in map(re.compile(pattern).match, result.outlines) if match]


def failure_of(title: str, lines: list[str]) -> list[str]:
    """Return the lines that pytest printed of a failure, below its title."""
    titles = [number for number, line in enumerate(lines) if re.match("[_=]{3,} ", line)]
    (begin,) = (number for number in titles if lines[number].strip("_ ") == title)
    return lines[begin + 1 : titles[titles.index(begin) + 1]]


#: How a line of the summary begins that a busy machine adds.
LACKED_CPUS = "the CPUs were busy with other processes "


def on_both(*names: str) -> list[str]:
    return [f"{name}[{hub}]" for hub in ("epolls", "asyncio") for name in names]


def make_differing(pytester: pytest.Pytester, *, mended: bool = False) -> None:
    pytester.makepyfile(test_x=DIFFERS.format(mended="or True" if mended else ""))
