"""What was found about a test, attached to its result for allure.

allure-pytest writes a result as soon as its test is over, in the process of the test. What the
recordings tell is known when the run is over, so the attachment is added to the file then. The
recordings themselves are not attached: they hold secrets, and a report is often published.
"""

from __future__ import annotations

from collections.abc import Iterator
import json
import os
from pathlib import Path
from typing import Any
import uuid

from pytest_eventlet_debug.artifact_names import PAGE_FILE
from pytest_eventlet_debug.artifact_records import ListedTest
from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.recordings.findings import text as findings_text
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.report.data import Run
from pytest_eventlet_debug.report.opening import address_of
from pytest_eventlet_debug.report_properties import DIRECTORY_PROPERTY

#: What the attachment is called.
NAME = "eventlet-debug"


def attach(run: Run, folder: Path) -> None:
    """Attach findings, and where the recordings are, to results of tests that have them.

    Tests have something to show that failed, or in whose recordings something was found.

    :param folder: where allure's results are.
    :raises OSError: a file cannot be written.
    """
    texts = dict(_texts(run))
    if not texts:
        return
    for path in folder.glob("*-result.json"):
        content = path.read_bytes()
        if DIRECTORY_PROPERTY.encode() in content:
            result = json.loads(content)
            text = texts.get(_directory(result))
            # Results of earlier runs may lie there too.
            if text is not None and result.get("start", 0) >= run.facts.started_ns // 10**6:
                _attach(path, result, text)


def _texts(run: Run) -> Iterator[tuple[str, str]]:
    """Yield the directory of each attempt that has something to show, and that."""
    for test, row in run.cells.items():
        for cell in row.values():
            for attempt in cell.attempts:
                findings = cell.found[attempt.directory]
                if findings or BAD.intersection([cell.result.outcome, *attempt.outcomes.values()]):
                    text = "\n".join(_lines(run, test, attempt, findings))
                    yield str(run.directory.absolute() / attempt.directory), text


def _lines(
    run: Run, test: str, attempt: ListedTest, findings: tuple[Finding, ...]
) -> Iterator[str]:
    for finding in findings:
        yield from findings_text.with_evidence(finding)
    if findings:
        yield ""
    directory = run.directory.absolute() / attempt.directory
    yield f"recorded in {directory}:"
    yield from (f"  {name}" for name in attempt.artifacts)
    yield f"report: {address_of(run.directory.absolute() / PAGE_FILE, test)}"


def _directory(result: dict[str, Any]) -> str:
    labels = {each.get("name"): each.get("value") for each in result.get("labels", ())}
    return os.path.abspath(str(labels.get(DIRECTORY_PROPERTY)))


def _attach(path: Path, result: dict[str, Any], text: str) -> None:
    source = path.with_name(f"{uuid.uuid4()}-attachment.txt")
    source.write_text(text, "utf-8", "backslashreplace")
    attachment = {"name": NAME, "source": source.name, "type": "text/plain"}
    result["attachments"] = [*result.get("attachments", ()), attachment]
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(json.dumps(result, ensure_ascii=False), "utf-8", "surrogatepass")
    draft.replace(path)
