"""What the user asked for, read once into one frozen :class:`Settings`."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
import os
from pathlib import Path
import shlex
from typing import Literal
from typing import TypeVar

import pytest

from pytest_eventlet_debug.hubs.names import Hub
from pytest_eventlet_debug.hubs.names import HubNameError
from pytest_eventlet_debug.hubs.names import select_hubs
from pytest_eventlet_debug.options import DEFAULT_ARTIFACTS
from pytest_eventlet_debug.options import Given
from pytest_eventlet_debug.profiling.clock import CLOCKS
from pytest_eventlet_debug.profiling.clock import ClockName
from pytest_eventlet_debug.profiling.engine import ENGINES
from pytest_eventlet_debug.profiling.engine import EngineName
from pytest_eventlet_debug.tracers.protocol import PHASES
from pytest_eventlet_debug.tracers.protocol import Phase

Keep = Literal["all", "failed"]
Leaks = Literal["warn", "fail"]
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the user asked for, from the command line first, then from the ini file.

    :param hubs: the hubs to run, in order, without repeats; empty for "whatever is set".
    :param hub_in_ids: whether node ids end in the hub's name.
    :param jobs: how many hubs run at the same time.
    :param timeout: seconds of silence after which a run is taken for hung, or ``None``.
    :param artifacts: absolute path of the run's directory.
    :param keep: which tests keep their artifacts.
    :param phases: the phases every tracer records, or ``None`` for each tracer's own.
    :param leaks: what is done about what tests leave behind, or ``None`` for nothing.
    :param isolate: whether the processes that run tests have a network of their own.
    :param strace_args: words added to strace's command line.
    :param summary_file: the file for a summary in Markdown, or ``None``.
    :param save: the file to save the run to, or ``None``.
    :param compare: the file with the run to compare with, or ``None``.
    :param compare_fail: whether the exit status tells of regressions alone.
    :param compare_reruns: how many more times a changed test runs.
    :param pcap_interface: the network interface to capture on.
    :param pcap_filter: which packets, as pcap-filter(7) says it; ``None`` for all.
    """

    hubs: tuple[Hub, ...]
    hub_in_ids: bool
    jobs: int
    timeout: float | None
    artifacts: Path
    keep: Keep
    phases: frozenset[Phase] | None
    isolate: bool
    strace: bool
    strace_args: tuple[str, ...]
    cprofile: bool
    cprofile_clock: ClockName
    cprofile_engine: EngineName
    cprofile_view: bool
    pcap: bool
    pcap_interface: str
    pcap_filter: str | None
    dump_asyncio_tasks: bool
    leaks: Leaks | None
    summary_file: Path | None
    save: Path | None
    compare: Path | None
    compare_fail: bool
    compare_reruns: int

    @property
    def tracers(self) -> tuple[str, ...]:
        """The tracers asked for, in the order in which they start."""
        asked = {"pcap": self.pcap, "cprofile": self.cprofile, "strace": self.strace}
        return tuple(name for name, wanted in asked.items() if wanted)

    @property
    def needs_children(self) -> bool:
        """Whether tests run in child processes, one for each hub."""
        return len(self.hubs) > 1 or self.timeout is not None


def read_settings(config: pytest.Config, hub: str | None = None) -> Settings:
    """Return the settings of this run.

    :param hub: the hub that the process was started for, whatever the options name.
    :raises pytest.UsageError: a value that cannot be used, with what would do.
    """
    given = Given(config)
    artifacts = _path(config, given, "eventlet_artifacts")
    compare = _path(config, given, "eventlet_compare")
    compare_fail = given.switch("eventlet_compare_fail")
    if compare_fail and compare is None:
        name = given.name("eventlet_compare_fail")
        raise pytest.UsageError(f"{name}: with what to compare is missing; --eventlet-compare=FILE")
    return Settings(
        hubs=select_hubs(hub) if hub is not None else _hubs(given),
        hub_in_ids=given.text("eventlet_hub") is not None,
        jobs=_parsed(given, "eventlet_jobs", parse_jobs, 1),
        timeout=_parsed(given, "eventlet_timeout", parse_seconds, None),
        artifacts=artifacts or config.rootpath / DEFAULT_ARTIFACTS,
        keep=_parsed(given, "eventlet_keep", parse_keep, "all"),
        phases=_parsed(given, "eventlet_phases", parse_phases, None),
        isolate=given.switch("eventlet_isolate"),
        strace=given.switch("eventlet_strace"),
        strace_args=_parsed(given, "eventlet_strace_args", parse_words, ()),
        cprofile=given.switch("eventlet_cprofile") or given.switch("eventlet_cprofile_view"),
        cprofile_clock=_parsed(given, "eventlet_cprofile_clock", parse_clock, "run"),
        cprofile_engine=_parsed(given, "eventlet_cprofile_engine", parse_engine, "greenlet"),
        cprofile_view=given.switch("eventlet_cprofile_view"),
        pcap=given.switch("eventlet_pcap"),
        pcap_interface=given.text("eventlet_pcap_interface") or "lo",
        pcap_filter=given.text("eventlet_pcap_filter") or None,
        dump_asyncio_tasks=given.switch("eventlet_dump_asyncio_tasks"),
        leaks=_parsed(given, "eventlet_leaks", parse_leaks, None),
        summary_file=_path(config, given, "eventlet_summary"),
        save=_path(config, given, "eventlet_save"),
        compare=compare,
        compare_fail=compare_fail,
        compare_reruns=_parsed(given, "eventlet_compare_reruns", parse_count, 0),
    )


def _path(config: pytest.Config, given: Given, dest: str) -> Path | None:
    """Return a path: relative to the working directory, or from the ini file to rootdir."""
    text = given.text(dest)
    if not text:
        return None
    base = config.invocation_params.dir if given.on_command_line(dest) else config.rootpath
    return base / text


def _hubs(given: Given) -> tuple[Hub, ...]:
    names = given.text("eventlet_hub")
    from_environment = names is None
    if names is None:
        names = os.environ.get("EVENTLET_HUB") or None
    if names is None:
        return ()
    source = "EVENTLET_HUB" if from_environment else given.name("eventlet_hub")
    try:
        hubs = select_hubs(names)
    except HubNameError as error:
        raise pytest.UsageError(f"{source}: {error}") from None
    if from_environment and len(hubs) > 1:
        raise pytest.UsageError(
            f"EVENTLET_HUB: {names!r} names several hubs, and eventlet takes one there; "
            f"use --eventlet-hub={names}"
        )
    return hubs


def _parsed(given: Given, dest: str, parse: Callable[[str], _T], default: _T) -> _T:
    text = given.text(dest)
    if text is None:
        return default
    try:
        return parse(text)
    except ValueError as error:
        raise pytest.UsageError(f"{given.name(dest)}: {text!r} {error}") from None


def parse_jobs(text: str) -> int:
    """Parse ``auto`` or a positive number of hubs to run at once."""
    if text == "auto":
        return os.cpu_count() or 1
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError("must be auto or a whole number from 1")
    return int(text)


def parse_count(text: str) -> int:
    """Parse how many times something is done, perhaps never."""
    if not text.isascii() or not text.isdigit():
        raise ValueError("must be a whole number")
    return int(text)


def parse_seconds(text: str) -> float | None:
    """Parse a number of seconds; 0 means no limit."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError("must be a number of seconds, 0 for no limit")
    return seconds or None


def parse_keep(text: str) -> Keep:
    """Parse which tests keep their artifacts."""
    if text == "all":
        return "all"
    if text == "failed":
        return "failed"
    raise ValueError("must be all or failed")


def parse_leaks(text: str) -> Leaks | None:
    """Parse what is done about what tests leave behind."""
    if text == "warn":
        return "warn"
    if text == "fail":
        return "fail"
    raise ValueError("must be warn or fail")


def parse_phases(text: str) -> frozenset[Phase]:
    """Parse a comma list of a test's phases."""
    words = {word.strip() for word in text.split(",")}
    phases = frozenset(phase for phase in PHASES if phase in words)
    if len(phases) != len(words):
        raise ValueError(f"must be a comma list of {', '.join(PHASES)}")
    return phases


def parse_clock(text: str) -> ClockName:
    """Parse what a profile measures."""
    for name in CLOCKS:
        if text == name:
            return name
    raise ValueError("must be run, wall or cpu")


def parse_engine(text: str) -> EngineName:
    """Parse what a profile is made with."""
    for name in ENGINES:
        if text == name:
            return name
    raise ValueError("must be greenlet or plain")


def parse_words(text: str) -> tuple[str, ...]:
    """Split a command line's words as a shell does."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"cannot be split into words ({error})") from None
