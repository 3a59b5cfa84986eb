"""What a test patches does not reach the recorder: every public function that our code could call.

A suite of one test for each of them replaces that function by one that raises where our code
calls it, if need be by way of the standard library, and lets everybody else through.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pathlib
from pathlib import Path
import sys

import pytest

import pytest_eventlet_debug

EVERYTHING = (
    *("--strace", "--cprofile", "--pcap", "--dump-asyncio-tasks", "--eventlet-leaks=warn"),
    "--eventlet-phases=call",
)

IN_THE_CALL = """
def test_patched(target, monkeypatch):
    owner, name = target
    monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
"""

AROUND_THE_TEST = """
@pytest.fixture(scope="module")
def patched(target):
    owner, name = target
    before = getattr(owner, name)
    setattr(owner, name, failing(before))
    yield
    setattr(owner, name, before)

def test_patched(patched):
    pass
"""

SUITE = """
import importlib
import sys
import sysconfig

import pytest

STANDARD = (sysconfig.get_path("stdlib"), "<frozen")
getframe = sys._getframe

def called_by_the_plugin():
    frame = getframe(2)
    while frame is not None and frame.f_code.co_filename.startswith(STANDARD):
        if "site-packages" in frame.f_code.co_filename:
            return False
        frame = frame.f_back
    return frame is not None and "/pytest_eventlet_debug/" in frame.f_code.co_filename

def failing(function):
    def fail(*args, **kwargs):
        if called_by_the_plugin():
            raise RuntimeError("a test has patched this")
        return function(*args, **kwargs)
    return fail

@pytest.fixture(scope="module", params={functions!r}, ids="/".join)
def function(request):
    return request.param

@pytest.fixture(scope="module")
def target(function):
    module, *path, name = function
    target = importlib.import_module(module)
    for each in path:
        target = getattr(target, each)
    return target, name
"""


def standard_modules() -> list[str]:
    """Return the modules of the standard library that our code imports."""
    found = set()
    for path in Path(pytest_eventlet_debug.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return sorted(name for name in found if name.partition(".")[0] in sys.stdlib_module_names)


def public_functions() -> list[tuple[str, ...]]:
    """Return the public functions of these modules, and of pathlib's class."""
    functions: list[tuple[str, ...]] = [("builtins", "open")]
    for name in standard_modules():
        if name in ("__future__", "builtins", "typing"):
            continue
        module = importlib.import_module(name)
        functions += [
            (name, each)
            for each, value in vars(module).items()
            if not each.startswith("_") and callable(value) and not inspect.isclass(value)
        ]
    functions += [
        ("pathlib", "Path", each)
        for each, value in inspect.getmembers(pathlib.Path, inspect.isfunction)
        if not each.startswith("_")
    ]
    return functions


@pytest.mark.parametrize("how", [IN_THE_CALL, AROUND_THE_TEST], ids=["in the call", "around it"])
def test_no_function_that_a_test_patches_makes_it_fail_when_it_is_recorded(
    pytester: pytest.Pytester, how: str
) -> None:
    functions = public_functions()
    assert len(functions) > 500
    pytester.makepyfile(SUITE.format(functions=functions) + how)
    result = pytester.runpytest("-q", "--tb=short", *EVERYTHING)
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    result.assert_outcomes(passed=len(functions))
