"""What is said where this Python is not as the plugin expects it."""

from __future__ import annotations

import sys
import warnings

import pytest

import pytest_eventlet_debug
from pytest_eventlet_debug import fallbacks
from pytest_eventlet_debug import warning_types
from pytest_eventlet_debug.profiling.choice import native_engine
from pytest_eventlet_debug.tracers import tls_keys


def test_every_warning_can_be_named_in_a_filter() -> None:
    kinds = [name for name in vars(warning_types) if name.endswith("Warning")]
    assert len(kinds) >= 4
    for name in kinds:
        kind = getattr(pytest_eventlet_debug, name)
        assert (kind.__module__, kind.__name__) == ("pytest_eventlet_debug", name)
        assert name in pytest_eventlet_debug.__all__


def test_a_warning_is_given_once_and_never_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallbacks, "_said", set())
    with pytest.warns(pytest_eventlet_debug.EventletFallbackWarning, match="One"):
        fallbacks.warn("One")
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        fallbacks.warn("One")
    assert not given
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fallbacks.warn("One")
        fallbacks.warn("Two")


def test_no_tls_keys_are_sought_in_a_python_that_nobody_has_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls_keys, "_callback", None)
    monkeypatch.setattr(tls_keys, "_KNOWN", ((3, 98), (3, 99)))
    assert not tls_keys.install()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio has no TaskGroup")
def test_each_part_that_does_less_says_so_in_one_warning_of_the_run(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        import asyncio
        import sys
        from pytest_eventlet_debug.alive import endings
        from pytest_eventlet_debug.profiling import trial

        del asyncio.TaskGroup._abort
        endings._set_cancel = lambda *_: False
        trial.trouble = lambda kind: "a trial failed"
        sys.modules["pytest_eventlet_debug.stalls._watcher"] = None
        """
    )
    pytester.makepyfile("def test_a(): import eventlet\ndef test_b(): pass\ndef test_c(): pass")
    options = ("--cprofile", "--eventlet-blocked=9", "--dump-asyncio-tasks")
    result = pytester.runpytest("-Wdefault", *options)
    result.assert_outcomes(passed=3)
    said = [line for line in result.outlines if "EventletFallbackWarning" in line]
    expected = {
        "*Profiling is many times slower, by the engine in Python: a trial failed",
        "*What holds the hub is noticed only when it is over: *",
        "*Who cancels a task stays unknown: *",
        "*Tasks that a TaskGroup cancels are shown as they are afterwards: *",
    }
    if native_engine() is None:
        expected = {each for each in expected if "slower" not in each}
    assert len(said) == len(expected)
    result.stdout.fnmatch_lines_random(sorted(expected))
