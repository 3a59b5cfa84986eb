"""``--eventlet-isolate``: when which process gets a network of its own, and gives up its rights."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import functools
import posix

import pytest

from pytest_eventlet_debug.system import network
from pytest_eventlet_debug.system import pids
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.tracers.shared_helper import SharedHelper


class Isolation:
    """The network of one process that runs tests, or of the children of one that does not."""

    def __init__(self, helper: SharedHelper, *, is_worker: bool, is_born_isolated: bool) -> None:
        """Do nothing yet.

        :param helper: keeps the right to capture, which this process gives up.
        :param is_worker: whether pytest-xdist started this process from one of ours.
        :param is_born_isolated: whether this process has had a network and process ids of its
            own from its beginning.
        """
        self._helper = helper
        self._is_worker = is_worker
        self._is_born_isolated = is_born_isolated
        self._has_rights_for_workers = False
        self._has_entered = False
        #: Whether the children have process ids of their own, too.
        self.own_pids = False

    def try_apart(self, function: Callable[[], list[str]]) -> list[str]:
        """Try, as long as this process has one thread, what its children will do.

        :param function: what else to try there; its result is returned.
        :raises pytest.UsageError: it does not work.
        """
        with_pids = functools.partial(pids.enter, posix.getpid())
        try:
            try:
                result = network.run_apart(function, with_pids)
                self.own_pids = True
            except network.IsolationError:
                # Many containers forbid it. A network alone is worth having, too.
                result = network.run_apart(function)
        except (network.IsolationError, RuntimeError) as error:
            raise pytest.UsageError(str(error)) from None
        assert isinstance(result, list)
        return result

    def enter(self, *, for_workers: bool) -> None:
        """Give this process a network of its own.

        :param for_workers: whether workers of pytest-xdist will be started from here, which
            need the right to enter one themselves.
        :raises pytest.UsageError: that cannot be; says why and what to do.
        """
        try:
            if self._is_worker:
                network.enter_again()
            elif self._is_born_isolated:
                network.keep_rights(for_workers=for_workers)
            else:
                network.enter(for_workers=for_workers)
        except network.IsolationError as error:
            raise pytest.UsageError(str(error)) from None
        except OSError as error:
            raise pytest.UsageError(network.explain(error)) from None
        self._has_entered = True
        self._has_rights_for_workers = for_workers
        if not for_workers:
            self._drop()

    def settle(self, *, distributes: bool) -> None:
        """Give up rights that were kept for workers where there turn out to be none.

        :param distributes: what pytest-xdist has decided.
        :raises pytest.UsageError: there are workers, but no rights for them.
        """
        if self._has_rights_for_workers and not distributes:
            self._drop()
        has_rights = self._has_rights_for_workers or not posix.geteuid()
        if distributes and self._has_entered and not has_rights:
            raise pytest.UsageError(
                "--eventlet-isolate: pytest-xdist was switched on too late to give its "
                "workers a network of their own; use -n on the command line"
            )

    def _drop(self) -> None:
        self._has_rights_for_workers = False
        # The helper keeps the right to capture, which this process gives up.
        with contextlib.suppress(TracerError):
            self._helper.start()
        network.drop()
