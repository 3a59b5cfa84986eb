"""What the plugin changes in pytest, where no other test sees it."""

from __future__ import annotations

import pytest


def test_the_plugins_modules_are_imported_as_any_others(pytester: pytest.Pytester) -> None:
    # As pytest does where the plugin was installed from a wheel.
    marks = "import pytest\npytest.register_assert_rewrite('pytest_eventlet_debug')"
    pytester.makepyfile(
        marks=marks,
        test_x="""
        import sys

        def test_loaders():
            ours = sys.modules["pytest_eventlet_debug.activation"]
            assert type(ours.__spec__.loader).__name__ == "SourceFileLoader"
            assert type(__spec__.loader).__name__ == "AssertionRewritingHook"
        """,
    )
    pytester.syspathinsert()
    pytester.runpytest("-p", "marks", "--eventlet-hub=poll").assert_outcomes(passed=1)
