"""Whether pytest-xdist runs the tests: our answer before it has decided, and its own."""

from __future__ import annotations

import pytest

# The answer as early as ours is needed, and what pytest-xdist has come to in the end.
COMPARE = """
    import pytest
    from pytest_eventlet_debug import roles

    @pytest.hookimpl(wrapper=True)
    def pytest_load_initial_conftests(early_config):
        early_config.early = roles.distributes(early_config.known_args_namespace)
        return (yield)

    def pytest_report_header(config):
        late = roles.distributes(config.option)
        xdist = config.pluginmanager.hasplugin("dsession")
        return f"<early={config.early} late={late} xdist={xdist}>"
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], False),
        (["-n2"], True),
        (["-n0"], False),
        (["-nauto"], True),
        (["-nlogical"], True),
        (["-nauto", "--pdb"], False),
        (["-n2", "--collect-only"], False),
        (["-d", "--tx=2*popen"], True),
        (["-d", "--tx=2*popen", "-n0"], False),
        (["--dist=load", "--tx=popen"], True),
        (["--tx=2*popen"], False),
        (["--dist=load"], False),
        (["-p", "no:xdist"], False),
    ],
)
def test_it_is_known_from_the_beginning_and_is_what_xdist_does(
    pytester: pytest.Pytester, arguments: list[str], expected: bool
) -> None:
    pytester.makepyfile(compare=COMPARE)
    pytester.makepyfile("def test_passes(): pass")
    pytester.syspathinsert()
    shown = pytester.runpytest("-p", "compare", *arguments).stdout.str()
    assert f"<early={expected} late={expected} xdist={expected}>" in shown
