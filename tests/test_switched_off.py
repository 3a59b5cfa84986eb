"""As long as nothing of the plugin is asked for, it is as if it were not installed."""

from __future__ import annotations

from pathlib import Path
import shutil
import sys

import pytest

REPORT = """
    import os, sys
    AT_START = dict(os.environ)

    def pytest_unconfigure(config):
        heavy = {"eventlet", "greenlet", "psutil", "asyncio", "dns", "ctypes", "cProfile"}
        print("loaded:", *sorted(
            name for name in sys.modules
            if name in heavy or name.startswith("pytest_eventlet_debug")
        ))
        changes = set(os.environ.items()) ^ set(AT_START.items())
        print("changed:", *sorted(k for k, v in changes if k != "PYTEST_CURRENT_TEST"), end=".\\n")
        print("plugins:", *sorted(
            name for name, plugin in config.pluginmanager.list_name_plugin()
            if plugin is not None and "eventlet" in name
        ))
"""

NOTHING_LOADED = "loaded: " + " ".join(
    [
        # pdb imports it there, and pytest pdb.
        *(["asyncio"] if sys.version_info >= (3, 14) else []),
        "pytest_eventlet_debug",
        "pytest_eventlet_debug.artifact_names",
        "pytest_eventlet_debug.option_types",
        "pytest_eventlet_debug.options",
        "pytest_eventlet_debug.plugin",
        "pytest_eventlet_debug.redaction",
        "pytest_eventlet_debug.tracer_registry",
    ]
)


@pytest.fixture(autouse=True)
def alone(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, unmeasured: None) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_eventlet_debug.plugin")
    pytester.makeconftest(REPORT)
    pytester.makepyfile("def test_one(): pass\ndef test_two(request): pass")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--eventlet-jobs=2", "--eventlet-artifacts=x", "--eventlet-keep=failed"],
        ["-o", "eventlet_strace=false"],
    ],
)
def test_a_run_imports_nothing_writes_nothing_and_changes_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("EVENTLET_HUB", "poll")  # alone it does not turn the plugin on
    result = pytester.runpytest("-s", "-v", *arguments)
    result.stdout.fnmatch_lines(
        [
            "*::test_one PASSED",
            "*::test_two PASSED",
            NOTHING_LOADED,
            "changed:.",
            "plugins: pytest_eventlet_debug.plugin",
        ]
    )
    assert "hubs:" not in result.stdout.str()
    made = {path.name for path in pytester.path.iterdir() if path.is_dir()}
    assert made - {"__pycache__"} == {".pytest_cache", "runpytest-0", "runpytest-current"}


def test_a_test_under_a_marker_loads_what_the_marker_needs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.eventlet_hub("poll", "selects", "epolls", "asyncio", "kqueue")
        def test_marked(): pass
        """
    )
    result = pytester.runpytest("-s", "--strict-markers")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["loaded:* pytest_eventlet_debug.hubs *", "changed:."])


def test_the_fixture_of_the_hubs_name_works_without_any_option(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENTLET_HUB", raising=False)
    pytester.makepyfile(
        """
        def test_name(eventlet_hub):
            import eventlet.hubs
            assert type(eventlet.hubs.get_hub()).__module__ == f"eventlet.hubs.{eventlet_hub}"
        """
    )
    result = pytester.runpytest("-v")
    result.stdout.fnmatch_lines(["*::test_name PASSED*"])
    assert not Path("eventlet-debug").exists()


def test_what_a_fixture_cannot_use_is_one_line_of_its_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_name(eventlet_hub): pass
        def test_directory(eventlet_artifacts): pass
        def test_block(eventlet_trace): eventlet_trace("cprofile")
        """
    )
    result = pytester.runpytest("--eventlet-artifacts=x", "-o", "eventlet_keep=some")
    assert result.parseoutcomes() == {"errors": 3}
    told = [line for line in result.outlines if line.startswith("eventlet_keep in the ini file: ")]
    assert len(told) == 3
    assert "plugin.py" not in result.stdout.str()

    result = pytester.runpytest("--eventlet-artifacts=/proc/x")
    assert result.parseoutcomes() == {"passed": 1, "errors": 1, "failed": 1}
    told = [
        line for line in result.outlines if line.startswith("cannot write artifacts to /proc/x")
    ]
    assert len(told) == 2
    assert "artifacts.py" not in result.stdout.str()


def test_one_hub_named_imports_neither_tracers_nor_what_runs_several_hubs(
    pytester: pytest.Pytester,
) -> None:
    shown = pytester.runpytest("-s", "--eventlet-hub=poll").stdout
    (line,) = (line for line in shown.lines if line.startswith("loaded: "))
    loaded = {name.removeprefix("pytest_eventlet_debug.") for name in line.split()}
    assert "activation" in loaded
    parts = ("recording", "isolation", "profiling", "recordings", "upgrade", "alive", "tracers")
    for part in parts:
        assert not {name for name in loaded if name.split(".")[0] == part}
    assert not {"children.controller", "children.process", "psutil", "ctypes"} & loaded
    # Nor what is for files that nobody writes.
    assert not {"artifacts", "assignment"} & loaded


def test_what_looks_at_tests_and_traces_them_leaves_ctypes_alone(
    pytester: pytest.Pytester,
) -> None:
    pytest.importorskip("pytest_eventlet_debug.alive._heap", reason="nothing was compiled")
    arguments = ["--dump-asyncio-tasks", "--eventlet-leaks=warn"]
    if shutil.which("strace") and not Path("/proc/sys/kernel/yama").exists():
        arguments.append("--strace")
    shown = pytester.runpytest("-s", "--eventlet-hub=asyncio", *arguments).stdout
    (line,) = (line for line in shown.lines if line.startswith("loaded: "))
    assert "pytest_eventlet_debug.alive.leaks" in line
    assert " ctypes" not in line
