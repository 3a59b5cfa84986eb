"""The pytest hooks: options, fixtures, the marker, and the switch for all the rest.

While nothing of ours is asked for, nothing but this module and the options is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
from contextlib import AbstractContextManager
from pathlib import Path
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_eventlet_debug import options

if TYPE_CHECKING:
    from pytest_eventlet_debug.activation import Activation

_activation_key = pytest.StashKey["Activation"]()

_MARKERS = (
    "eventlet_hub(name, ...): run the test under these eventlet hubs only, and skip it "
    "under others.",
    "eventlet_blocks(seconds): allow the test to hold the hub for this long, whatever "
    "--eventlet-blocked says; without a number, for any length of time.",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


def pytest_plugin_registered(plugin: object) -> None:
    """Keep hooks of ours around a test out of the traceback of what fails within them."""
    module = type(plugin).__module__
    if module.startswith(f"{__package__}."):
        vars(sys.modules[module])["__tracebackhide__"] = _has_traceback


def _has_traceback(error: pytest.ExceptionInfo[BaseException]) -> bool:
    """Tell it from ``pytest.fail(pytrace=False)``, of which no frame is shown anyway."""
    return bool(getattr(error.value, "pytrace", True))


# A wrapper, to be ahead of other plugins' implementations: pytest-cov starts to measure
# in one, and the first conftest is imported in another.
@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config,
) -> Generator[None, object, object]:
    if options.is_asked_for(early_config):
        try:
            _activate(early_config).prepare()
        except KeyboardInterrupt:
            # Pytest catches none before it has configured itself.
            raise SystemExit(pytest.ExitCode.INTERRUPTED) from None
    else:
        options.check(early_config)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    activation = config.stash.get(_activation_key, None)
    if activation is not None:
        activation.own_command_line()
        config.pluginmanager.register(activation, "eventlet-debug-activation")
    try:
        return (yield)
    except KeyboardInterrupt:
        if activation is None:
            raise
        # Pytest catches one while tests run, but none while it ends the session.
        return pytest.ExitCode.INTERRUPTED


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("eventlet_hub") is not None]
    if marked:
        from pytest_eventlet_debug.hubs.marker import apply_marker  # only where it is used

        apply_marker(marked, _activate(config).hub)


def _activate(config: pytest.Config) -> Activation:
    """Return what is switched on in this process, made now if it is the first need."""
    if _activation_key not in config.stash:
        from pytest_eventlet_debug.pytest_internals import leave_asserts_alone

        leave_asserts_alone(config, __package__)
        from pytest_eventlet_debug.system.collector import made_to_stay

        with made_to_stay():
            from pytest_eventlet_debug.activation import Activation  # costs start-up time

            config.stash[_activation_key] = Activation(config)
    return config.stash[_activation_key]


def _activate_for_fixture(config: pytest.Config) -> Activation:
    try:
        return _activate(config)
    except pytest.UsageError as error:  # in the environment or the ini file, that nobody looked at
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture(scope="session")
def eventlet_hub(pytestconfig: pytest.Config) -> str:
    """The name of the eventlet hub that the tests run under."""
    return _activate_for_fixture(pytestconfig).hub.name


@pytest.fixture
def eventlet_artifacts(request: pytest.FixtureRequest) -> Path:
    """The test's own directory among the artifacts; it exists."""
    return _activate_for_fixture(request.config).directory(request.node)


@pytest.fixture
def eventlet_trace(
    request: pytest.FixtureRequest,
) -> Callable[..., AbstractContextManager[Path]]:
    """Record one block: ``with eventlet_trace("strace", "pcap") as directory:``.

    The names are those of the options ``--strace``, ``--cprofile`` and ``--pcap``, none of
    which needs to be given.
    """
    activation = _activate_for_fixture(request.config)

    def trace(*names: str) -> AbstractContextManager[Path]:
        __tracebackhide__ = True
        return activation.trace(request.node, names)

    return trace
