"""What is read out of a failure's text."""

from __future__ import annotations

import re

import pytest

from pytest_eventlet_debug.outcomes.failure_text import MESSAGE_LENGTH
from pytest_eventlet_debug.outcomes.failure_text import error_line
from pytest_eventlet_debug.outcomes.failure_text import files
from pytest_eventlet_debug.outcomes.failure_text import modules
from pytest_eventlet_debug.outcomes.failure_text import one_line

LONG = """
    def test_x():
>       resolve()

tests/dns_test.py:5:
_ _ _ _ _ _ _ _ _ _
../venv/lib/python3.12/site-packages/eventlet/support/greendns.py:50: in resolve
    return dns.query.udp()
../venv/lib/python3.12/site-packages/dns/query.py:7: in udp
    raise OSError("no: way")
E   OSError: no: way

During handling of the above exception, another exception occurred:
tests/dns_test.py:9: in test_x
    fail()
E   ValueError: the second
E   with a line more

tests/dns_test.py:9: ValueError
"""

NATIVE = """Traceback (most recent call last):
  File "/src/tests/my tests.py", line 5, in test_x
    resolve()
  File "/venv/lib/python3.12/site-packages/dns/query.py", line 7, in udp
OSError: no
"""

IMPORT = """ImportError while importing test module '/src/tests/dns_test.py'.
Hint: make sure your test modules/packages have valid Python names.
Traceback:
tests/dns_test.py:3: in <module>
    from dns.resolver import nonsense
E   ImportError: cannot import name 'nonsense' from 'dns.resolver' (/venv/dns/resolver.py)
"""

SYNTAX = """/venv/lib/python3.12/site-packages/_pytest/python.py:498: in importtestmodule
    mod = import_path(
E     File "/src/tests/b.py", line 1
E       x = = 1
E           ^
E   SyntaxError: invalid syntax
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            LONG,
            (
                "tests/dns_test.py",
                "../venv/lib/python3.12/site-packages/dns/query.py",
                "../venv/lib/python3.12/site-packages/eventlet/support/greendns.py",
            ),
        ),
        (NATIVE, ("/venv/lib/python3.12/site-packages/dns/query.py", "/src/tests/my tests.py")),
        ("  | " + NATIVE.splitlines()[1].strip(), ("/src/tests/my tests.py",)),
        ("see README.py: nothing at 12:30", ()),
        ("", ()),
    ],
)
def test_files_come_innermost_first_and_once(text: str, expected: tuple[str, ...]) -> None:
    assert files(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LONG, "ValueError: the second"),
        (
            IMPORT,
            "ImportError: cannot import name 'nonsense' from 'dns.resolver' "
            "(/venv/dns/resolver.py)",
        ),
        (SYNTAX, "SyntaxError: invalid syntax"),
        (NATIVE, "OSError: no"),
        ("E   assert 1 == 2\nE    +  where 1 = f()", "assert 1 == 2"),
        ("E   KeyboardInterrupt", "KeyboardInterrupt"),
        ("just words\n\n", "just words"),
        ("", ""),
    ],
)
def test_the_error_is_the_last_one_in_one_line(text: str, expected: str) -> None:
    assert error_line(text) == expected


def test_a_long_line_is_cut_in_its_middle() -> None:
    assert one_line("x" * MESSAGE_LENGTH) == "x" * MESSAGE_LENGTH
    long = "Task " + "x" * MESSAGE_LENGTH + " is attached to a different loop"
    assert len(one_line(long)) == MESSAGE_LENGTH
    assert re.fullmatch(r"Task x+\.\.\.x+ is attached to a different loop", one_line(long))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("ModuleNotFoundError: No module named 'dns.zone'", ("dns.zone",)),
        ("cannot import name 'x' from 'dns.resolver' (/venv/dns/resolver.py)", ("dns.resolver",)),
        (
            "cannot import name 'x' from partially initialized module 'dns' (most likely)",
            ("dns",),
        ),
        ("AttributeError: module 'dns.query' has no attribute 'udp'", ("dns.query",)),
        ("AttributeError: 'dns' object has no attribute 'udp'", ()),
        ("assert 'dns.query' == 'module'", ()),
    ],
)
def test_the_module_that_an_error_blames_is_found(message: str, expected: tuple[str, ...]) -> None:
    assert modules(message) == expected
