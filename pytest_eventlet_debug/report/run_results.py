"""Put what was gathered of a run into the form of its results file."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import asdict
from msgspec.structs import replace

from pytest_eventlet_debug.outcomes.gathering import Attempt
from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.outcomes.texts import Texts
from pytest_eventlet_debug.report.results import Result
from pytest_eventlet_debug.report.results import Results
from pytest_eventlet_debug.report.results import Section
from pytest_eventlet_debug.reruns.verdicts import Verdict


def results_of(
    gathering: Gathering,
    run: str,
    verdicts: tuple[Verdict, ...] = (),
    upgrade: tuple[str, ...] = (),
) -> Results:
    """Return how the tests have ended so far, in the order in which they began.

    :param run: names the run.
    :param verdicts: on the tests that the hubs set apart.
    :param upgrade: what a comparison with an earlier run says.
    """
    modules = [
        _result(
            module,
            hub if hub in gathering.hubs else gathering.hubs[0],
            Attempt(module, found.outcome, found.cause),
            found.texts,
        )
        for (module, hub), found in gathering.uncollected.items()
    ]
    tests = [_result_of(gathering, nodeid) for nodeid in gathering.nodeids]
    return Results(
        run=run,
        hubs=gathering.hubs,
        tests=(*modules, *tests),
        verdicts=verdicts,
        upgrade=upgrade,
    )


def _result_of(gathering: Gathering, nodeid: str) -> Result:
    test, hub = gathering.key(nodeid)
    texts = gathering.texts(nodeid)
    return _result(test, hub, gathering.attempt(nodeid), texts, tuple(gathering.earlier(nodeid)))


def _result(
    test: str,
    hub: str,
    attempt: Attempt,
    texts: Texts,
    earlier: tuple[Outcome, ...] = (),
) -> Result:
    return Result(
        test=test,
        hub=hub,
        nodeid=attempt.nodeid,
        outcome=attempt.outcome,
        seconds=round(attempt.seconds, 6),
        earlier=earlier,
        reason=attempt.cause.error if attempt.cause is not None else "",
        printed="; ".join(attempt.cause.more) if attempt.cause is not None else "",
        failure=texts.failure,
        sections=tuple(Section(title, text) for title, text in texts.sections.items()),
    )


#: What a result is found by.
_NAMES = ("test", "hub", "nodeid", "outcome")


def redacted(results: Results, redact: Callable[[str], str]) -> Results:
    """Return results without what *redact* takes out of their texts."""
    tests = tuple(
        replace(
            each,
            **{
                name: redact(text)
                for name, text in asdict(each).items()
                if isinstance(text, str) and name not in _NAMES
            },
            sections=tuple(Section(one.title, redact(one.text)) for one in each.sections),
        )
        for each in results.tests
    )
    verdicts = tuple(
        replace(
            each,
            hubs=tuple((hub, redact(words)) for hub, words in each.hubs),
            reasons=tuple(map(redact, each.reasons)),
            parting=tuple(map(redact, each.parting)),
        )
        for each in results.verdicts
    )
    return replace(
        results, tests=tests, verdicts=verdicts, upgrade=tuple(map(redact, results.upgrade))
    )
