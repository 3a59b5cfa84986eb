"""Tracebacks as the interpreter prints them, found in what a test printed."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys

import pytest

from pytest_eventlet_debug.outcomes.tracebacks import Frame
from pytest_eventlet_debug.outcomes.tracebacks import Traceback
from pytest_eventlet_debug.outcomes.tracebacks import chains
from pytest_eventlet_debug.outcomes.tracebacks import first_printed


def printed(tmp_path: Path, program: str) -> str:
    """Run a program that fails, and return what it wrote to stderr."""
    path = tmp_path / "program.py"
    path.write_text(program)
    ran = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    return ran.stderr


def test_the_first_traceback_gives_error_and_place(tmp_path: Path) -> None:
    text = printed(tmp_path, "def a():\n    raise KeyError('k')\n\na()\n")
    found = first_printed(["nothing", f"Program output:\n---\n{text}\n---\n"])
    assert found == Traceback(
        "KeyError: 'k'",
        (
            Frame(f"{tmp_path}/program.py", 4, "<module>"),
            Frame(f"{tmp_path}/program.py", 2, "a"),
        ),
    )
    assert found.describe() == f"KeyError: 'k' ({tmp_path}/program.py:2 in a)"


def test_a_file_is_shown_as_it_is_called_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = first_printed([printed(tmp_path, "{}['k']")])
    monkeypatch.chdir(tmp_path)
    assert found is not None
    assert found.describe() == "KeyError: 'k' (program.py:1 in <module>)"


def test_an_error_without_a_message_is_told_by_the_line_that_raised_it(tmp_path: Path) -> None:
    text = printed(tmp_path, "done = False\n\ndef a():\n    assert done\n\na()\n")
    found = first_printed([text])
    assert found is not None
    assert found.describe() == f"AssertionError: assert done ({tmp_path}/program.py:4 in a)"


def test_of_an_error_without_words_no_line_of_code_is_taken_for_them(tmp_path: Path) -> None:
    text = printed(tmp_path, "def a():\n    raise KeyError\n\na()\n")
    found = first_printed([text])
    assert found is not None
    assert found.describe() == f"KeyError ({tmp_path}/program.py:2 in a)"


@pytest.mark.parametrize("how", ["", " from error"])
def test_of_a_chain_the_last_exception_counts(tmp_path: Path, how: str) -> None:
    program = f"try:\n    {{}}['k']\nexcept KeyError as error:\n    raise ValueError('v'){how}\n"
    text = printed(tmp_path, program)
    found = first_printed([text])
    assert found is not None
    assert found.error == "ValueError: v"
    assert [each.error for each in next(chains(text))] == ["KeyError: 'k'", "ValueError: v"]


def test_exceptions_one_after_the_other_are_no_chain(tmp_path: Path) -> None:
    text = printed(tmp_path, "{}['k']") + printed(tmp_path, "1/0")
    assert [[each.error for each in chain] for chain in chains(text)] == [
        ["KeyError: 'k'"],
        ["ZeroDivisionError: division by zero"],
    ]


def test_a_recursion_of_one_function_is_named_by_it(tmp_path: Path) -> None:
    found = first_printed([printed(tmp_path, "def f():\n    f()\n\nf()\n")])
    assert found is not None
    assert [frame.function for frame in found.cycle] == ["f"]
    assert found.repeats > 900
    assert len(found.frames) < 5


def test_a_recursion_through_two_functions_is_named_by_both(tmp_path: Path) -> None:
    program = "def f():\n    g()\n\ndef g():\n    f()\n\nf()\n"
    found = first_printed([printed(tmp_path, program)])
    assert found is not None
    assert sorted(frame.function for frame in found.cycle) == ["f", "g"]
    assert found.repeats > 400
    assert "f (" in found.describe()
    assert "g (" in found.describe()


def test_the_users_frame_is_the_innermost_outside_of_libraries(tmp_path: Path) -> None:
    text = printed(tmp_path, "import json\n\ndef load():\n    json.loads('{')\n\nload()\n")
    found = first_printed([text])
    assert found is not None
    assert found.raised is not None
    assert found.raised.file.endswith("json/decoder.py")
    assert found.users == Frame(f"{tmp_path}/program.py", 4, "load")


def test_a_frame_of_the_plugins_is_not_the_users(tmp_path: Path) -> None:
    ours = "from pytest_eventlet_debug.phrasing import span"
    text = printed(tmp_path, f"{ours}\n\ndef load():\n    span(None)\n\nload()\n")
    found = first_printed([text])
    assert found is not None
    assert found.raised is not None
    assert found.raised.file.endswith("pytest_eventlet_debug/phrasing.py")
    assert found.users == Frame(f"{tmp_path}/program.py", 4, "load")


def test_words_that_a_logger_puts_before_each_line_are_passed_over(tmp_path: Path) -> None:
    text = printed(tmp_path, "def a():\n    raise KeyError('k')\n\na()\n")
    logged = "".join(f"worker 3: {line}\n" for line in text.splitlines())
    found = first_printed([logged])
    assert found is not None
    assert found.describe() == f"KeyError: 'k' ({tmp_path}/program.py:2 in a)"


def test_a_traceback_that_breaks_off_is_not_taken(tmp_path: Path) -> None:
    text = printed(tmp_path, "def a():\n    raise KeyError('k')\n\na()\n")
    cut = text[: text.index("KeyError: ")]
    assert first_printed([cut]) is None
    assert first_printed([cut, printed(tmp_path, "1/0")]) is not None


def test_text_without_a_traceback_has_none() -> None:
    assert first_printed(["", 'File "x.py", line 1\nValueError: no traceback']) is None
