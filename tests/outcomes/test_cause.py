"""What a test's report says of why it failed."""

from __future__ import annotations

import pytest

from pytest_eventlet_debug.outcomes.cause import cause_of

NATIVE = '''
    import unittest

    class Shown(Exception):
        """As testtools has it: a text in place of a traceback."""

    class TestA(unittest.TestCase):
        def run(self, result):
            result.startTest(self)
            text = (
                'Traceback (most recent call last):\\n  File "a.py", line 7, in test_a\\n'
                "    self.fail()\\nlib.Mismatch: 1 != 2\\n"
            )
            result.addFailure(self, (Shown, Shown(text), None))
            result.stopTest(self)

        def test_a(self):
            pass
'''


def test_of_an_error_that_pytest_cannot_represent_the_one_in_its_text_is_told(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(NATIVE)
    _, _, (report,) = pytester.inline_run().listoutcomes()
    assert isinstance(report, pytest.TestReport)
    assert "NOTE: Incompatible Exception Representation" in report.longreprtext
    assert cause_of(report).error == "lib.Mismatch: 1 != 2"
