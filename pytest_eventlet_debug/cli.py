"""The command ``pytest-eventlet-debug``: what can be done with files, after the runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import io
import os
import signal
import sys

from pytest_eventlet_debug import __version__
from pytest_eventlet_debug.refusal import refuse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return its exit status.

    :param arguments: the command line, ``None`` for this process's.
    """
    if sys.stdout is None:  # it is closed
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Node ids and paths may hold what the terminal cannot: names of files that are no UTF-8.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # as with "| head"
        _drop_output()
        return 1
    except OSError as error:  # the disk is full that the output goes to, for instance
        _drop_output()
        return refuse(str(error))
    except KeyboardInterrupt:
        return refuse("Ctrl-C", status=128 + signal.SIGINT)
    return status


def _run(arguments: Sequence[str] | None) -> int:
    # It takes most of the time of a short command. A Ctrl-C meanwhile waits: msgspec's module loses
    # the exception, and is not whole then.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        from pytest_eventlet_debug.children import signals
        from pytest_eventlet_debug.recordings import commands as recordings
        from pytest_eventlet_debug.report import commands as report
        from pytest_eventlet_debug.upgrade import commands as upgrade
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)

    parser = argparse.ArgumentParser(
        prog="pytest-eventlet-debug", description="Work with saved runs and with recordings."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    upgrade.add_compare(commands)
    upgrade.add_merge(commands)
    upgrade.add_culprit(commands)
    recordings.add_findings(commands)
    recordings.add_timeline(commands)
    recordings.add_diff(commands)
    report.add_report(commands)
    report.add_open(commands)
    report.add_list(commands)
    options = parser.parse_args(arguments)
    with signals.unwinding():
        status: int = options.run(options)
    return status


def _drop_output() -> None:
    """Have nothing more fail as the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
