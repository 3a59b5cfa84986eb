"""The options: what is declared, what values are good, and what the ini file may say."""

from __future__ import annotations

import os
from pathlib import Path
import re
from typing import Any

import pytest
from runs import refused

from pytest_eventlet_debug import tracer_registry as registry
from pytest_eventlet_debug.option_types import Option
from pytest_eventlet_debug.options import Options

# Shows a run's settings without running anything under them.
SHOW = """
    from pytest_eventlet_debug.options import all_options
    from pytest_eventlet_debug.settings import Settings

    def pytest_report_header(config):
        settings = Settings(config)
        values = {option.dest: settings.value(option) for option in all_options()}
        return [f"<{name}={value!r}>" for name, value in values.items()] + [
            f"<hubs={[hub.name for hub in settings.hubs]}>",
            f"<hub_in_ids={settings.hub_in_ids}>",
            f"<tracers={[kind.name for kind in settings.tracers]}>",
            f"<phases={sorted(settings.phases or ())}>",
        ]
"""


def usage_error(pytester: pytest.Pytester, *arguments: str) -> str:
    """Run pytest, which must refuse before it collects; return the one line it says."""
    pytester.makepyfile("raise SystemError('collected')")
    result = pytester.runpytest(*arguments, "-q")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "collected" not in result.stdout.str()
    (line,) = [line for line in result.stderr.lines if line.strip()]
    assert line.startswith("ERROR: ")
    return line


@pytest.mark.parametrize(("text", "jobs"), [("1", 1), ("16", 16)])
def test_jobs_are_a_number(text: str, jobs: int) -> None:
    assert Options.jobs.parse(text) == jobs


def test_jobs_are_as_many_as_the_cpus_that_this_process_may_use() -> None:
    cpus = os.sched_getaffinity(0)
    assert Options.jobs.parse("auto") == len(cpus)
    os.sched_setaffinity(0, [min(cpus)])
    try:
        assert Options.jobs.parse("auto") == 1
    finally:
        os.sched_setaffinity(0, cpus)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", " ", "two", "٣", "AUTO", "+1"])
def test_other_jobs_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not valid; use auto or a whole number, at least 1"):
        Options.jobs.parse(text)


@pytest.mark.parametrize(("text", "count"), [("0", 0), ("1", 1), ("10000", 10_000)])
def test_a_count_is_a_whole_number_and_may_be_none(text: str, count: int) -> None:
    assert Options.compare_reruns.parse(text) == count


def test_no_node_id_is_refused() -> None:
    with pytest.raises(ValueError, match="is not valid; use the node id of a test"):
        Options.culprit.parse("")


@pytest.mark.parametrize("text", ["", "-1", "1.5", "two", "٣", "+1", "10001", "9" * 5000])
def test_other_counts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not valid; use a whole number"):
        Options.compare_reruns.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60.0), ("0.5", 0.5), ("1e3", 1000.0), ("0", None), ("0.0", None), (" 7 ", 7.0)],
)
def test_a_timeout_is_a_number_of_seconds_and_zero_is_none(
    text: str, seconds: float | None
) -> None:
    assert Options.timeout.parse(text) == seconds


@pytest.mark.parametrize("text", ["-1", "", "inf", "nan", "1e999", "60s", "1:00"])
def test_other_timeouts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not valid; use a number of seconds"):
        Options.timeout.parse(text)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (Options.keep, "all or failed"),
        (Options.leaks, "warn or fail"),
        (registry.STRACE_LINES, "on or off"),
        (registry.CPROFILE_CLOCK, "run, wall or cpu"),
        (registry.CPROFILE_ENGINE, "greenlet or plain"),
    ],
)
def test_a_choice_is_one_of_its_words_as_they_are_written(option: Option[Any], words: str) -> None:
    choices = re.split(", | or ", words)
    assert [option.parse(choice) for choice in choices] == choices
    for text in ("", "none", choices[0].upper(), f"{choices[0]} ", ",".join(choices)):
        with pytest.raises(ValueError, match=f"is not valid; use {words}$"):
            option.parse(text)


@pytest.mark.parametrize(
    ("text", "phases"),
    [
        ("call", {"call"}),
        ("setup,call,teardown", {"setup", "call", "teardown"}),
        (" teardown , setup", {"setup", "teardown"}),
        ("call,call", {"call"}),
    ],
)
def test_phases_are_a_comma_list_in_any_order(text: str, phases: set[str]) -> None:
    assert Options.phases.parse(text) == phases


@pytest.mark.parametrize("text", ["", "call,", "run", "call teardown", "Call", "call,run"])
def test_other_phases_are_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match="is not valid; use a comma-separated list of setup, call, teardown"
    ):
        Options.phases.parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("-e trace=network", ("-e", "trace=network")),
        ("-P '/tmp/a b'", ("-P", "/tmp/a b")),
    ],
)
def test_words_are_split_as_a_shell_does(text: str, words: tuple[str, ...]) -> None:
    assert registry.STRACE_ARGS.parse(text) == words


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256MB", 256_000_000),
        ("1g", 1_000_000_000),
        ("100 K", 100_000),
        ("200000", 200_000),
        ("0", None),
        ("0MB", None),
    ],
)
def test_a_size_has_a_unit_or_none(text: str, size: int | None) -> None:
    assert registry.STRACE_LIMIT.parse(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "1.5G", "99K", "1T", "10^6"])
def test_what_is_no_size_or_too_small_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not valid; use a size of 100K or more, such as 256MB"):
        registry.STRACE_LIMIT.parse(text)


def test_an_open_quotation_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be split into words"):
        registry.STRACE_ARGS.parse("-P '/tmp")


#: Command lines, what they name the option, and what is said of its value.
UNUSABLE = [
    (["--eventlet-hub=epol"], "--eventlet-hub", "'epol' is not an eventlet hub. Available"),
    (["--eventlet-hub="], "--eventlet-hub", "a hub's name is empty. Available"),
    (["--eventlet-hub=poll,"], "--eventlet-hub", "a hub's name is empty. Available"),
    (["--strace", "--eventlet-jobs=0"], "--eventlet-jobs", "'0' is not valid; use auto or"),
    (["--eventlet-timeout=soon"], "--eventlet-timeout", "'soon' is not valid; use a number"),
    (
        ["--cprofile", "--eventlet-keep=x"],
        "--eventlet-keep",
        "'x' is not valid; use all or failed",
    ),
    (["--eventlet-leaks=x"], "--eventlet-leaks", "'x' is not valid; use warn or fail"),
    (
        ["--eventlet-blocked", "tests/"],
        "--eventlet-blocked",
        "after an equals sign; without one, name the tests first",
    ),
    (
        ["--eventlet-blocked=1e12"],
        "--eventlet-blocked",
        "'1e12' is not valid; use a number of seconds",
    ),
    (
        ["--cprofile", "--eventlet-phases=x"],
        "--eventlet-phases",
        "'x' is not valid; use a comma-separated list",
    ),
    (["--strace", "--strace-args='"], "--strace-args", "cannot be split into words"),
    # What only says how the plugin works is read while that is switched off, too.
    (["--eventlet-keep=x"], "--eventlet-keep", "'x' is not valid; use all or failed"),
    (["--cprofile-clock=x"], "--cprofile-clock", "'x' is not valid; use run, wall or cpu"),
    (["--eventlet-redact=("], "--eventlet-redact", "'('"),
    (
        ["--strace", "--strace-limit=9"],
        "--strace-limit",
        "'9' is not valid; use a size of 100K",
    ),
    (["-o", "eventlet_hub=epol"], "eventlet_hub in the ini file", "'epol' is not"),
    (["-o", "eventlet_hub=,"], "eventlet_hub in the ini file", "a hub's name is empty"),
    (
        ["--cprofile", "-o", "eventlet_jobs=x"],
        "eventlet_jobs in the ini file",
        "'x' is not valid; use auto",
    ),
    (["-o", "eventlet_timeout=x"], "eventlet_timeout in the ini file", "'x' is not valid"),
    (["-o", "eventlet_strace=x"], "eventlet_strace in the ini file", "must be true or false"),
    (["-o", "eventlet_pcap=x"], "eventlet_pcap in the ini file", "must be true or false"),
]


def test_a_value_that_cannot_be_used_is_one_line_with_the_options_name(
    pytester: pytest.Pytester,
) -> None:
    lines = refused(pytester, [arguments for arguments, _, _ in UNUSABLE])
    for line, (_, name, words) in zip(lines, UNUSABLE, strict=True):
        assert line.startswith(f"ERROR: {name}: ")
        assert words in line


def test_failing_for_regressions_requires_a_run_to_compare_with_whatever_else_is_given(
    pytester: pytest.Pytester,
) -> None:
    line = usage_error(pytester, "--eventlet-compare-fail")
    assert line == "ERROR: --eventlet-compare-fail requires --eventlet-compare=FILE"


def test_an_ini_file_may_say_how_the_plugin_works_while_that_is_switched_off(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("def test_passes(): pass")
    ran = pytester.runpytest("-o", "eventlet_compare_fail=true", "-o", "eventlet_keep=x")
    ran.assert_outcomes(passed=1)


def test_a_path_is_told_without_detours(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(SHOW)
    result = pytester.runpytest("--eventlet-artifacts=inside/../out")
    path = pytester.path / "out"
    result.stdout.fnmatch_lines([f"*<eventlet_artifacts=PosixPath('{path}')>*"])


def test_the_environments_hub_is_named_when_it_cannot_be_used(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTLET_HUB", "epol")
    assert usage_error(pytester, "--cprofile").startswith("ERROR: EVENTLET_HUB: 'epol' is not")


def test_the_environment_names_one_hub_for_that_is_what_eventlet_reads(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTLET_HUB", "poll,selects")
    assert "use --eventlet-hub=poll,selects" in usage_error(pytester, "--cprofile")


def test_the_environments_hub_counts_with_another_option_and_ids_stay(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTLET_HUB", "select")
    pytester.makepyfile(
        """
        import os
        def test_hub(eventlet_hub):
            from eventlet.hubs import get_hub
            assert get_hub().__module__ == "eventlet.hubs.selects"
            assert eventlet_hub == os.environ["EVENTLET_HUB"] == "selects"
        """
    )
    result = pytester.runpytest("--cprofile", "-v")
    result.stdout.fnmatch_lines(["*hubs: selects*", "*::test_hub PASSED*"])


def test_every_ini_value_counts_and_the_command_line_counts_before_it(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(SHOW)
    pytester.makeini(
        """
        [pytest]
        eventlet_hub = poll
        eventlet_jobs = 2
        eventlet_timeout = 7
        eventlet_artifacts = from-ini
        eventlet_keep = failed
        eventlet_phases = setup
        eventlet_strace = true
        eventlet_strace_args = -e trace=network
        eventlet_cprofile = true
        eventlet_cprofile_clock = cpu
        eventlet_cprofile_engine = plain
        eventlet_pcap = true
        eventlet_dump_asyncio_tasks = true
        """
    )
    shown = pytester.runpytest("--collect-only").stdout.str()
    assert f"<eventlet_artifacts={pytester.path / 'from-ini'!r}>" in shown
    for expected in (
        *("<hubs=['poll']>", "<hub_in_ids=True>", "<eventlet_jobs=2>", "<eventlet_timeout=7.0>"),
        *(
            "<eventlet_keep='failed'>",
            "<phases=['setup']>",
            "<tracers=['pcap', 'cprofile', 'strace']>",
        ),
        *("<eventlet_strace=True>", "<eventlet_strace_args=('-e', 'trace=network')>"),
        *("<eventlet_cprofile_clock='cpu'>", "<eventlet_cprofile_engine='plain'>"),
        *("<eventlet_cprofile=True>", "<eventlet_pcap=True>"),
        "<eventlet_dump_asyncio_tasks=True>",
    ):
        assert expected in shown

    elsewhere = pytester.mkdir("elsewhere")
    os.chdir(elsewhere)
    shown = pytester.runpytest(
        *("--rootdir=..", "--collect-only", "--eventlet-hub=selects", "--eventlet-hub=poll"),
        *("--eventlet-jobs=3", "--eventlet-timeout=8", "--eventlet-artifacts=given"),
        *("--eventlet-keep=all", "--eventlet-phases=call", "--strace-args=-v"),
    ).stdout.str()
    assert f"<eventlet_artifacts={elsewhere / 'given'!r}>" in shown
    for expected in (
        *("<hubs=['selects', 'poll']>", "<eventlet_jobs=3>", "<eventlet_timeout=8.0>"),
        *("<eventlet_keep='all'>", "<phases=['call']>", "<eventlet_strace_args=('-v',)>"),
    ):
        assert expected in shown


def test_an_ini_value_of_false_leaves_a_switch_off(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\neventlet_cprofile = false")
    pytester.makepyfile("def test_passes(): pass")
    result = pytester.runpytest()
    assert result.ret == 0
    assert "eventlet" not in result.stdout.str().replace("eventlet-debug-", "")
    assert not Path("eventlet-debug").exists()


@pytest.mark.parametrize("name", ["hub", "leaks", "timeout", "save"])
def test_an_empty_value_ignores_the_ini_files_for_one_run(
    pytester: pytest.Pytester, name: str
) -> None:
    value = {"hub": "poll,selects", "leaks": "fail", "timeout": "60", "save": "a"}
    pytester.makeini(f"[pytest]\neventlet_{name} = {value[name]}")
    pytester.makepyfile("def test_passes(): pass")
    assert "hubs: " in pytester.runpytest().stdout.str()
    result = pytester.runpytest("-v", "-o", f"eventlet_{name}=")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*::test_passes PASSED*"])
    assert "hubs: " not in result.stdout.str()


def test_no_option_swallows_the_path_behind_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_a="def test_a(): pass", test_b="def test_b(): pass")
    for switch in ("--strace", "--cprofile", "--pcap", "--dump-asyncio-tasks"):
        result = pytester.runpytest(switch, "test_a.py")
        result.assert_outcomes(passed=1)


def test_every_option_stands_in_one_group_of_the_help(pytester: pytest.Pytester) -> None:
    lines = pytester.runpytest("--help").stdout.lines
    start = lines.index("eventlet-debug:")
    end = next(n for n in range(start + 1, len(lines)) if not lines[n].startswith(" "))
    ours = "--eventlet-|--strace|--cprofile|--pcap|--dump-asyncio"
    flags = [line.split()[0].partition("=")[0] for line in lines if re.match(f"  ({ours})", line)]
    in_group = [
        line.split()[0].partition("=")[0]
        for line in lines[start:end]
        if re.match(f"  ({ours})", line)
    ]
    assert len(flags) == 32
    assert in_group == flags


def test_an_options_name_in_the_code_says_whose_it_is_and_is_no_other_ones(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        def pytest_report_header(config):
            names = [o.dest for g in config._parser._groups for o in g.options]
            ours = [n for n in names if n and n.startswith("eventlet_")]
            assert len(ours) == len(set(ours)) == 32
            assert not {"strace", "pcap", "cprofile"}.intersection(names)
            assert all(getattr(config.option, name) is None for name in ours)
            return "all is well"
        """
    )
    pytester.runpytest().stdout.fnmatch_lines(["all is well"])
