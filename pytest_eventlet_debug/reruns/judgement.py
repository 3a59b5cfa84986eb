"""Whether a test depends on its hub, from how it ended each time it ran: a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Literal
from typing import NamedTuple

from pytest_eventlet_debug.outcomes.gathering import Attempt
from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.outcomes.outcomes import Outcome

Kind = Literal["same", "differs", "flaky", "fails differently"]


class Ending(NamedTuple):
    """How one attempt of a test ended.

    :param error: the type of the exception, such as ``KeyError``; ``""`` where there is none.
    """

    outcome: Outcome
    error: str = ""

    @property
    def bad(self) -> bool:
        """Whether the attempt failed, in whichever way."""
        return self.outcome in BAD


def ending_of(attempt: Attempt) -> Ending:
    """Return what counts of how an attempt ended when it is compared with others."""
    ending = Ending(attempt.outcome)
    if not ending.bad or attempt.cause is None or attempt.outcome in ("hung", "crashed"):
        return ending
    return Ending(attempt.outcome, attempt.cause.kind)


class Judgement(NamedTuple):
    """What all the attempts of a test say of it.

    :param kind: ``flaky`` where attempts on one hub do not end alike; ``fails differently``
        where it fails on several hubs, on each in its own way every time.
    :param hubs: for each hub how often it failed there, in words.
    """

    kind: Kind
    hubs: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """All of it in one line."""
        return ", ".join(f"{hub} {words}" for hub, words in self.hubs)


def judge(attempts: Mapping[str, Sequence[Ending]]) -> Judgement:
    """Judge a test.

    :param attempts: for each hub, in the order to show, at least one attempt.
    """
    kind = _kind(attempts)
    with_errors = kind == "fails differently"
    return Judgement(
        kind, tuple((hub, _counts(endings, with_errors)) for hub, endings in attempts.items())
    )


def _kind(attempts: Mapping[str, Sequence[Ending]]) -> Kind:
    if any(len({each.bad for each in endings}) > 1 for endings in attempts.values()):
        return "flaky"
    ways = [set(endings) for endings in attempts.values()]
    # Two hubs that can end in the same way are not told apart by having ended otherwise.
    if all(a & b for a in ways for b in ways):
        return "same"
    all_bad = all(endings[0].bad for endings in attempts.values())
    return "fails differently" if all_bad else "differs"


def _counts(endings: Sequence[Ending], with_errors: bool) -> str:
    """Say how attempts on one hub ended: ``failed 2 of 3 (KeyError)``, or ``passed``."""
    worst = [each for each in endings if each.bad]
    if not worst:
        return endings[0].outcome if len(endings) == 1 else f"failed 0 of {len(endings)}"
    word = worst[0].outcome if len({each.outcome for each in worst}) == 1 else "failed"
    times = "" if len(endings) == 1 else f" {len(worst)} of {len(endings)}"
    errors = ", ".join(dict.fromkeys(each.error for each in worst if each.error))
    return f"{word}{times}" + (f" ({errors})" if errors and with_errors else "")
