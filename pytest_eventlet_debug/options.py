"""The options, one declaration each; those of a tracer are in the tracers' registry.

This is loaded with every pytest, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal

import pytest

from pytest_eventlet_debug import option_types
from pytest_eventlet_debug import tracer_registry as registry
from pytest_eventlet_debug.artifact_names import DEFAULT_ARTIFACTS
from pytest_eventlet_debug.option_types import Choice
from pytest_eventlet_debug.option_types import Option
from pytest_eventlet_debug.option_types import PathOption
from pytest_eventlet_debug.option_types import Switch
from pytest_eventlet_debug.option_types import Value
from pytest_eventlet_debug.option_types import Values
from pytest_eventlet_debug.redaction import Redaction
from pytest_eventlet_debug.redaction import parse as parse_redaction

if TYPE_CHECKING:
    from pytest_eventlet_debug.tracers.protocol import Phase


class Options(Values):
    """What the user asked for, from the command line first, then from the ini file.

    Each attribute is an option, and in an instance the value given for it.
    """

    hub_names: Option[str | None] = Value(
        "--eventlet-hub",
        "NAMES",
        "Run the tests under these eventlet hubs: a comma-separated list of epolls (epoll), poll, "
        "selects (select), kqueue, asyncio, package.module:Class, or all. May be repeated. "
        "`-o eventlet_hub=` ignores the ini file's hubs for one run. "
        "Default: the EVENTLET_HUB environment variable.",
        str,
        default=None,
        activates=True,
        repeatable=True,
    )
    #: How many hubs run at the same time.
    jobs: Option[int] = Value(
        "--eventlet-jobs",
        "N|auto",
        "How many hubs run at the same time; auto: one per CPU. Default: 1.",
        option_types.jobs,
        default=1,
    )
    #: Seconds of silence after which a run is treated as hung, or ``None``.
    timeout: Option[float | None] = Value(
        "--eventlet-timeout",
        "SECONDS",
        "Treat a run as hung after this many seconds of silence: show what it is doing, kill its "
        "process group, report the test and run the others. Default: off.",
        option_types.seconds,
        default=None,
        activates=True,
    )
    #: How many more times a test runs whose outcome differs between hubs.
    reruns: Option[int] = Value(
        "--eventlet-reruns",
        "N",
        "Rerun tests whose outcome differs between hubs N times on every hub, in fresh processes "
        "and without the tracers, to tell differences from flaky tests; 0: never. Default: 2.",
        option_types.count,
        default=2,
    )
    #: Whether tests run unwatched first, and under the tracers only those that fail or differ.
    retrace: Option[bool] = Switch(
        "--eventlet-retrace",
        "Run the tests without the tracers, then run those that fail or differ between hubs once "
        "more with them, each in a fresh process. The first outcome stands.",
    )
    #: Whether all CPUs are busy while tests are run again.
    stress: Option[bool] = Switch(
        "--eventlet-stress",
        "Keep every CPU busy while tests are rerun, for races that a quiet machine hides.",
    )
    #: A test whose failure may be an earlier test's doing, or ``None``.
    culprit: Option[str | None] = Value(
        "--eventlet-culprit",
        "NODEID",
        "If this test fails, find the earlier tests that make it fail, by running it after "
        "subsets of them in fresh processes.",
        option_types.nodeid,
        default=None,
        activates=True,
    )
    #: Absolute path of the run's directory.
    artifacts: Option[Path] = PathOption(
        "--eventlet-artifacts",
        "DIR",
        f"Directory for everything the tracers record. Default: {DEFAULT_ARTIFACTS} under rootdir.",
        default=DEFAULT_ARTIFACTS,
    )
    #: Which tests keep their artifacts.
    keep: Option[Literal["all", "failed"]] = Choice(
        "--eventlet-keep",
        "Keep the artifacts of all tests, or only of failed ones. Default: all.",
        ("all", "failed"),
        default="all",
    )
    #: The phases every tracer records, or ``None`` for each tracer's own.
    phases: Option[frozenset[Phase] | None] = Value(
        "--eventlet-phases",
        "PHASES",
        "The phases of a test to record: a comma-separated list of setup, call, teardown. "
        "Default: all three for --strace and --pcap, call for --cprofile.",
        option_types.any_of("setup", "call", "teardown"),
        default=None,
    )
    #: What is kept out of the recordings' texts.
    redact: Option[Redaction] = Value(
        "--eventlet-redact",
        "REGEX",
        "Replace what matches this regular expression with [redacted] in traces, dumps, "
        "timelines, findings and reports. Packets and profiles are left as they are. "
        "Default: nothing.",
        parse_redaction,
        default=Redaction(None),
    )
    #: Whether the processes that run tests have a network of their own.
    isolate: Option[bool] = Switch(
        "--eventlet-isolate",
        "Give each process that runs tests its own network, so that --pcap does not require root "
        "and captures only this run's packets. With several hubs or --eventlet-timeout, its own "
        "process ids as well.",
        activates=True,
    )
    dump_asyncio_tasks: Option[bool] = Switch(
        "--dump-asyncio-tasks",
        "Show all asyncio tasks, greenthreads and hubs when the debugger opens and when a test "
        "fails (tasks.txt).",
        activates=True,
    )
    #: What is done about what tests leave behind, or ``None`` for nothing.
    leaks: Option[Literal["warn", "fail"] | None] = Choice(
        "--eventlet-leaks",
        "Report what each test leaves behind, as a warning or as a failure of the test: "
        "greenthreads, tasks, listeners, timers, threads, child processes, descriptors. "
        "Default: off.",
        ("warn", "fail"),
        default=None,
        activates=True,
    )
    #: Seconds for which one greenthread may hold the hub, or ``None`` for no limit.
    blocked: Option[float | None] = Value(
        "--eventlet-blocked",
        "SECONDS",
        "Warn about each greenthread that holds the hub for longer than this while others have "
        "something to do, with the line it is at. Without =SECONDS: 0.1. Default: off.",
        option_types.threshold,
        default=None,
        activates=True,
        bare="0.1",
    )
    #: Whether a test fails for it.
    blocked_fail: Option[bool] = Switch(
        "--eventlet-blocked-fail",
        "Fail a test, in its teardown, where --eventlet-blocked would only warn.",
        activates=True,
    )
    #: The file for a summary of the run in Markdown, or ``None``.
    summary_file: Option[Path | None] = PathOption(
        "--eventlet-summary",
        "FILE",
        "Write a summary of the run to this file, in Markdown, for a job's page on GitHub "
        "($GITHUB_STEP_SUMMARY) or GitLab.",
        activates=True,
    )
    #: The file to save the run to, or ``None``.
    save: Option[Path | None] = PathOption(
        "--eventlet-save",
        "FILE",
        "Save outcomes, durations and the version of every installed distribution to this file, "
        "to compare a later run with.",
        activates=True,
    )
    #: The file with the run to compare with, or ``None``.
    compare: Option[Path | None] = PathOption(
        "--eventlet-compare",
        "FILE",
        "Report what got worse since the run saved in this file, and which changed distribution "
        "is the likely cause.",
        activates=True,
    )
    #: Whether the exit status reflects regressions alone.
    compare_fail: Option[bool] = Switch(
        "--eventlet-compare-fail",
        "Exit with status 1 only for regressions since the saved run. "
        "Requires --eventlet-compare=FILE.",
    )
    #: How many more times a changed test runs.
    compare_reruns: Option[int] = Value(
        "--eventlet-compare-reruns",
        "N",
        "Rerun tests whose outcome changed since the saved run N times; if the outcomes vary, the "
        "test is flaky rather than worse. Default: 0.",
        option_types.count,
        default=0,
    )


def all_options() -> Iterator[Option[Any]]:
    """Yield every option, in the order of the help."""
    yield from (each for each in vars(Options).values() if isinstance(each, Option))
    for kind in registry.kinds():
        yield from kind.options


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and its twin in the ini file."""
    group = parser.getgroup("eventlet-debug")
    for option in all_options():
        option.declare(parser, group)


def check(config: pytest.Config) -> None:
    """See that the command line's values can be used while nothing of ours is switched on.

    :raises pytest.UsageError: one cannot; says what would do.
    """
    for option in all_options():
        if option.is_on_command_line(config):
            option.read(config)
    require_comparison(config)


def require_comparison(config: pytest.Config) -> None:
    """See that ``--eventlet-compare-fail`` stands beside a run to compare with.

    In an ini file it is meant for those runs that compare.

    :raises pytest.UsageError: it does not.
    """
    fail, compare = Options.compare_fail, Options.compare
    if fail.is_on_command_line(config) and not compare.is_given(config):
        raise pytest.UsageError(f"{fail.flag} requires {compare.flag}=FILE")


def is_asked_for(config: pytest.Config) -> bool:
    """Say whether anything of ours is switched on, on the command line or in the ini file."""
    return any(option.is_given(config) for option in all_options() if option.activates)
