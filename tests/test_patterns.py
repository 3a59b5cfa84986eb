"""Regular expressions that wait to be used."""

from __future__ import annotations

import re
from unittest import mock

import pytest

from pytest_eventlet_debug import patterns
from pytest_eventlet_debug.patterns import lazily


def test_a_pattern_is_compiled_once_and_not_before_it_is_used() -> None:
    with mock.patch.object(patterns, "_compile", wraps=re.compile) as compile:
        words = lazily(r"\w+", re.ASCII)
        assert not compile.called
        for _ in range(3):
            assert words.findall("a b") == ["a", "b"]
        compile.assert_called_once_with(r"\w+", re.ASCII)


def test_it_does_what_a_compiled_one_does() -> None:
    assert lazily(rb"(?i)X").sub(b"y", b"x") == b"y"
    assert lazily(r"a(b)").match("ab")[1] == "b"  # type: ignore[index]
    assert lazily("a").pattern == "a"
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = lazily("a").nonsense  # type: ignore[attr-defined]


def test_a_test_that_patches_compile_does_not_reach_it() -> None:
    with mock.patch("re.compile", side_effect=RuntimeError):
        assert lazily("a+").fullmatch("aaa")
