"""Orders for finishers, the processes that complete what was recorded: the helper's side.

There is one while tests run. Where somebody waits for the end, and orders with them, there will be
as many as there are CPUs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence
import contextlib
from functools import partial
import os

from pytest_eventlet_debug.artifact_names import TEST_FILE
from pytest_eventlet_debug.helper.capture import Capture
from pytest_eventlet_debug.helper.finisher_process import FinisherProcess
from pytest_eventlet_debug.helper.finisher_process import Order
from pytest_eventlet_debug.helper.loop import Answer
from pytest_eventlet_debug.helper.loop import Loop
from pytest_eventlet_debug.helper.loop import Reply
from pytest_eventlet_debug.helper.profiles import Profiles
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system import wait_status

#: Seconds after which a waiting test process hears how much is left.
PATIENCE_SECONDS = 5.0

#: Seconds of waiting after which a further finisher helps. It takes 0.1 s to be ready.
_SPREAD_SECONDS = 0.05

#: Orders that wait from which on a finisher has the next one before it asks. To ask takes a fifth
#: of the time that a short test's takes; what is behind a long one has to wait for it.
_FAR_BEHIND = 8

#: Problems that fit into one answer.
_TOLD_AT_ONCE = 10


class Finishing:
    """Orders for finishers, which do one at a time; the first is started with them, or before."""

    def __init__(
        self, loop: Loop, libraries: Sequence[str], capture: Capture, profiles: Profiles
    ) -> None:
        """Start nothing yet; events come through *loop*.

        :param libraries: the directories of what a finisher imports.
        :param capture: what holds the packets of tests.
        :param profiles: what holds their counts.
        """
        self._loop = loop
        self._libraries = libraries
        self._capture = capture
        self._profiles = profiles
        capture.when_complete(self._next)
        self._pattern: str | None = None
        self._tracers: Sequence[str] = ()
        self._orders: deque[Order] = deque()
        self._finishers: list[FinisherProcess] = []
        self._problems: list[str] = []
        self._waiting: Reply | None = None
        self._alarm: int | None = None
        self._spreading: int | None = None
        self._then: Callable[[], None] | None = None
        self._lost: list[str] = []
        self._end = ""
        self._has_hung = False

    def redact(self, answer: Answer, *, pattern: str) -> None:
        """Have what matches a regular expression left out of all that is completed."""
        self._pattern = pattern
        answer()

    def prepare(self, answer: Answer, *, tracers: Sequence[str] = ()) -> None:
        """Start a finisher ahead of the first order, which it takes its time to be ready for.

        :param tracers: those whose recordings there will be to complete.
        """
        answer()
        self._tracers = tracers
        if not self._finishers:
            with contextlib.suppress(OSError):  # the first order tries again, and says so
                self._start()

    def order(
        self,
        answer: Reply,
        *,
        directory: str,
        shared: bool,
        ports: list[int] | None,
        data: bytes = b"",
    ) -> None:
        """Have a test's directory completed soon.

        :param data: its ``test.json``.
        :param shared: whether other programs use the same network.
        :param ports: those that the test process used, if they are known.
        """
        try:
            files.extend(f"{directory}/{TEST_FILE}", data)
        except OSError as error:
            answer(f"{directory}/{TEST_FILE} cannot be written: {error.strerror}")
            if not files.is_there(f"{directory}/{TEST_FILE}"):  # nobody would know what it is
                self._profiles.forget(directory)
                with contextlib.suppress(OSError):
                    files.remove(directory)
                return
        self._add(Order(directory, shared=shared, ports=ports))

    def complain(self, problem: str) -> None:
        """Tell what could not be done when the test process waits for the end."""
        self._problems.append(problem)

    def add(self, directory: str, died_ns: int, *, alone: bool) -> None:
        """Have the directory of a test completed whose process has died.

        :param died_ns: when that was seen, nanoseconds since the epoch.
        :param alone: whether no other process notes it.
        """
        self._add(Order(directory, shared=True, died_ns=died_ns, alone=alone))

    def _add(self, order: Order) -> None:
        self._capture.keep(order.directory)
        self._profiles.keep(order.directory)
        self._orders.append(order)
        self._next()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call *callback* once all is done, perhaps at once; no test runs any more."""
        self._then = callback
        if self._is_done:
            callback()
        else:
            self._spread_later()

    @property
    def _at_work(self) -> list[FinisherProcess]:
        return [finisher for finisher in self._finishers if finisher.orders]

    @property
    def _is_done(self) -> bool:
        return not self._at_work and not self._orders

    def wait(self, answer: Reply) -> None:
        """Answer when all is done, or after a while, with how much is ``left`` to tell or do.

        With it comes what went wrong since the last time, as ``problems``.
        """
        self._waiting = answer
        for finisher in self._finishers:
            finisher.spent = finisher.cpu_time
            finisher.hurry()
        self._loop.cancel(self._alarm)
        self._alarm = self._loop.call_later(PATIENCE_SECONDS, self._be_impatient)
        self._spread_later()
        self._capture.settle()
        if self._is_done:
            self._tell()

    def close(self) -> None:
        """Give up what is not done, and wait for the end of the processes."""
        for alarm in (self._alarm, self._spreading):
            self._loop.cancel(alarm)
        self._give_up(self._finishers)
        self._write_down_all()

    def _give_up(self, finishers: Sequence[FinisherProcess]) -> None:
        """End processes, and write down what they were at; others can have the rest."""
        gone = list(finishers)
        for finisher in gone:
            finisher.begin_end()
        for finisher in gone:
            self._forget(finisher)
            finisher.end()
            if finisher.orders:
                self._write_down(finisher.orders.popleft())
            self._orders.extendleft(reversed(finisher.orders))

    def _forget(self, finisher: FinisherProcess) -> None:
        self._loop.unwatch(finisher.output)
        self._finishers.remove(finisher)

    def _write_down(self, order: Order) -> None:
        """Write what no finisher has completed, as it is."""
        self._problems += order.write_down()

    def _write_down_all(self) -> None:
        for order in self._orders:
            self._write_down(order)
        self._orders.clear()

    def _be_impatient(self) -> None:
        """End finishers that have used no CPU since, and do not wait for one either."""
        hung = [each for each in self._at_work if 0 < each.spent == each.cpu_time]
        if hung:
            self._lost += [each.orders[0].directory for each in hung]
            self._end = f"did nothing for {PATIENCE_SECONDS:g} s and was ended"
            self._give_up(hung)
            self._has_hung = True
        if hung and not self._finishers:
            self._lost += [order.directory for order in self._orders]
            self._write_down_all()
        self._next()  # of what those that are gone had besides
        self._tell()

    def _tell(self) -> None:
        self._loop.cancel(self._alarm)
        answer, self._waiting = self._waiting, None
        if answer is not None:
            self._name_lost()
            told, self._problems = self._problems[:_TOLD_AT_ONCE], self._problems[_TOLD_AT_ONCE:]
            left = len(self._orders) + len(self._at_work) + len(self._problems)
            answer(left=left, problems=told)

    def _name_lost(self) -> None:
        """Say in one line what finishers did not complete, for they have the same cause."""
        if self._lost:
            more = f" and {len(self._lost) - 1} more" if len(self._lost) > 1 else ""
            self._problems.append(
                f"the process that completes recordings {self._end}; what was recorded in "
                f"{self._lost[0]}{more} has no findings"
            )
            self._lost = []

    def _next(self) -> None:
        """Give orders to those who take them; say so where all is done."""
        while self._orders and self._capture.is_ready(self._orders[0].directory):
            finisher = self._free()
            if self._finishers and finisher is None:
                return
            order = self._orders.popleft()
            self._take(order)
            try:
                finisher = finisher or self._start()
                finisher.give(order, self._pattern)
            except OSError as error:
                self._problems.append(f"{order.directory} is not completed: {error}")
                self._write_down(order)
        if self._is_done:
            self._tell()
            then, self._then = self._then, None
            if then is not None:
                then()

    def _free(self) -> FinisherProcess | None:
        """Return who is to have the next order, if anybody is."""
        most = 1 if len(self._orders) >= _FAR_BEHIND else 0
        free = [each for each in self._finishers if len(each.orders) <= most]
        return min(free, key=lambda each: len(each.orders), default=None)

    def _take(self, order: Order) -> None:
        """Take what there is in memory for an order."""
        if order.unwritten is None:  # a finisher that has died may have had it
            captures, problems = self._capture.take(order.directory)
            order.unwritten = [*captures, *self._profiles.take(order.directory)]
            self._problems += problems

    def _spread_later(self) -> None:
        self._loop.cancel(self._spreading)
        self._spreading = self._loop.call_later(_SPREAD_SECONDS, self._spread)

    def _spread(self) -> None:
        """Let one more finisher help, and later another; no test runs that they would disturb.

        But not where one has hung: the next may wait for the same thing, and so on.
        """
        self._spreading = None
        most = 0 if self._has_hung else len(os.sched_getaffinity(0))
        if self._orders and len(self._finishers) < most:
            with contextlib.suppress(OSError):  # those that are there do it all
                self._start(nice=False)
                self._spread_later()
            self._next()

    def _start(self, *, nice: bool = True) -> FinisherProcess:
        finisher = FinisherProcess(self._libraries, self._tracers, nice=nice)
        self._finishers.append(finisher)
        self._loop.watch(finisher.output, partial(self._listen, finisher))
        return finisher

    def _listen(self, finisher: FinisherProcess) -> None:
        said = finisher.listen()
        if said is None:
            self._died(finisher)
        for problem in said or ():
            if problem is not None:
                self.complain(" ".join(problem.split())[:1000])
            finisher.orders.popleft()
        self._next()

    def _died(self, finisher: FinisherProcess) -> None:
        """Give what it was at to another one, but once only: it may be what ends finishers."""
        self._forget(finisher)
        self._end = f"ended ({wait_status.describe(finisher.reap())})"
        if not finisher.orders:
            return
        order = finisher.orders[0]
        if order.tried:
            self._lost.append(order.directory)
            self._write_down(finisher.orders.popleft())
        order.tried = True
        self._orders.extendleft(reversed(finisher.orders))
