"""The options: how they are declared and what was given for each, as text.

This is loaded with every pytest, so it imports nothing; ``settings`` parses the values.
"""

from __future__ import annotations

from typing import Literal

import pytest

DEFAULT_ARTIFACTS = "eventlet-debug"

# Flag, metavar (a switch has none), help.
_OPTIONS: tuple[tuple[str, str | None, str], ...] = (
    (
        "--eventlet-hub",
        "NAMES",
        "Run the tests under these eventlet hubs: a comma list of epolls (epoll), poll, selects "
        "(select), kqueue, asyncio, package.module:Class, or all. May be repeated. "
        "Default: the environment's EVENTLET_HUB.",
    ),
    (
        "--eventlet-jobs",
        "N|auto",
        "How many hubs run at the same time; auto: as many as there are CPUs. Default: 1.",
    ),
    (
        "--eventlet-timeout",
        "SECONDS",
        "Take a run that says nothing for this long for hung: show what it does, kill it with "
        "its process group, report its test and go on with the rest. Default: off.",
    ),
    (
        "--eventlet-artifacts",
        "DIR",
        f"Directory for what the tracers record. Default: {DEFAULT_ARTIFACTS} under rootdir.",
    ),
    (
        "--eventlet-keep",
        "all|failed",
        "Keep the artifacts of all tests or of failed ones alone. Default: all.",
    ),
    (
        "--eventlet-phases",
        "PHASES",
        "Phases of a test that are recorded: a comma list of setup, call, teardown. "
        "Default: all three for --strace and --pcap, call for --cprofile.",
    ),
    (
        "--eventlet-isolate",
        None,
        "Give each process that runs tests a network of its own: --pcap needs no root then, and "
        "captures this run's packets alone. With several hubs or --eventlet-timeout also process "
        "ids of its own.",
    ),
    (
        "--strace",
        None,
        "Record the system calls of each test (strace.txt), labelled by greenthread.",
    ),
    (
        "--strace-args",
        "ARGS",
        "More words for strace's command line, such as '-e trace=network'.",
    ),
    (
        "--cprofile",
        None,
        "Profile each test (profile.cprof, profile.callgrind).",
    ),
    (
        "--cprofile-clock",
        "run|wall|cpu",
        "What the profile measures: run: the time a greenlet ran; wall: its waiting, too; "
        "cpu: CPU time. Default: run.",
    ),
    (
        "--cprofile-engine",
        "greenlet|plain",
        "Profile with a call stack for each greenlet, or with cProfile as it is. "
        "Default: greenlet.",
    ),
    (
        "--cprofile-view",
        None,
        "Profile the one test that is run, and open KCachegrind on it.",
    ),
    (
        "--pcap",
        None,
        "Capture the packets of each test (capture.pcapng).",
    ),
    (
        "--pcap-interface",
        "NAME",
        "The network interface that --pcap captures on. Default: lo.",
    ),
    (
        "--pcap-filter",
        "EXPRESSION",
        "Which packets --pcap captures, in the language of pcap-filter(7), such as "
        "'tcp port 80'; needs libpcap. Default: all.",
    ),
    (
        "--dump-asyncio-tasks",
        None,
        "Show all asyncio tasks, greenthreads and hubs when the debugger opens and when a test "
        "fails (tasks.txt).",
    ),
    (
        "--eventlet-leaks",
        "warn|fail",
        "Tell what each test leaves behind: greenthreads, tasks, listeners, timers, threads, "
        "child processes, descriptors; as a warning or as its failure. Default: off.",
    ),
    (
        "--eventlet-summary",
        "FILE",
        "Write a summary of the run to this file, in Markdown, for the page that GitHub "
        "($GITHUB_STEP_SUMMARY) or GitLab shows of a job.",
    ),
    (
        "--eventlet-save",
        "FILE",
        "Save the run to this file, to compare a later one with: outcomes, durations, and the "
        "version of every installed distribution.",
    ),
    (
        "--eventlet-compare",
        "FILE",
        "After the run say what got worse since the one saved in this file, and which changed "
        "distribution is the likely cause.",
    ),
    (
        "--eventlet-compare-fail",
        None,
        "Let only what got worse since the saved run make the exit status 1, not known failures.",
    ),
    (
        "--eventlet-compare-reruns",
        "N",
        "Run tests that changed since the saved run N more times; one whose outcomes mix is "
        "flaky, not worse. Default: 0.",
    ),
)

# What switches the plugin on. The others only say how.
_SWITCHES = (
    "eventlet_isolate",
    "eventlet_strace",
    "eventlet_cprofile",
    "eventlet_cprofile_view",
    "eventlet_pcap",
    "eventlet_dump_asyncio_tasks",
)
_VALUES = (
    "eventlet_hub",
    "eventlet_timeout",
    "eventlet_leaks",
    "eventlet_summary",
    "eventlet_save",
    "eventlet_compare",
)


# What makes no sense for every run.
_COMMAND_LINE_ONLY = ("eventlet_cprofile_view",)


def _dest(flag: str) -> str:
    """Return the name of an option in the code and in the ini file."""
    return "eventlet_" + flag.lstrip("-").removeprefix("eventlet-").replace("-", "_")


_FLAGS = {_dest(flag): flag for flag, _, _ in _OPTIONS}


def add_options(parser: pytest.Parser) -> None:
    """Declare every option and its ini twin. Defaults are ``None``, so that ini counts."""
    group = parser.getgroup("eventlet-debug", "one test under several eventlet hubs, and traced")
    for flag, metavar, words in _OPTIONS:
        dest = _dest(flag)
        kind: Literal["bool", "string"] = "string"
        if metavar is None:
            kind = "bool"
            group.addoption(flag, dest=dest, default=None, help=words, action="store_true")
        else:
            action = "append" if dest == "eventlet_hub" else "store"
            group.addoption(
                flag, dest=dest, default=None, help=words, action=action, metavar=metavar
            )
        if dest not in _COMMAND_LINE_ONLY:
            parser.addini(dest, words, type=kind, default=None)


def is_asked_for(config: pytest.Config) -> bool:
    """Say whether anything of ours is switched on, on the command line or in the ini file."""
    given = Given(config)
    return any(given.text(dest) is not None for dest in _VALUES) or any(
        given.switch(dest) for dest in _SWITCHES
    )


class Given:
    """The values given for our options: the command line's, else the ini file's."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        # While the first conftests load, config.option does not hold the command line yet.
        self._options = getattr(config, "known_args_namespace", config.option)

    def on_command_line(self, dest: str) -> bool:
        """Say whether the command line has the option."""
        return getattr(self._options, dest, None) is not None

    def name(self, dest: str) -> str:
        """Return what the user called the option, for error messages."""
        return _FLAGS[dest] if self.on_command_line(dest) else f"{dest} in the ini file"

    def text(self, dest: str) -> str | None:
        """Return an option's value, a list joined by commas, or ``None`` if it is not given.

        :raises pytest.UsageError: the ini file has a value of another type.
        """
        value = getattr(self._options, dest, None)
        if value is None:
            value = self._ini(dest)
        return ",".join(value) if isinstance(value, list) else value

    def switch(self, dest: str) -> bool:
        """Say whether a switch is on.

        :raises pytest.UsageError: the ini file has neither true nor false for it.
        """
        given = getattr(self._options, dest, None)
        return bool(given or (dest not in _COMMAND_LINE_ONLY and self._ini(dest)))

    def _ini(self, dest: str) -> str | None:
        try:
            value: str | None = self._config.getini(dest)
        except (ValueError, TypeError, pytest.UsageError) as error:
            raise pytest.UsageError(f"{dest} in the ini file: {error}") from None
        return value
