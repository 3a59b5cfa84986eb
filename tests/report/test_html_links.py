"""The row of a test in pytest-html's report."""

from __future__ import annotations

from html.parser import HTMLParser
import json
from typing import Any
from urllib.parse import unquote

import pytest


class Data(HTMLParser):
    """Finds what pytest-html has stored in its page."""

    tests: dict[str, list[dict[str, Any]]]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "data-jsonblob":
                self.tests = json.loads(value or "")["tests"]


@pytest.mark.parametrize("hubs", ["poll", "poll,selects"])
def test_a_row_links_to_what_was_recorded_of_its_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, hubs: str
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:asyncio")
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest(f"--eventlet-hub={hubs}", "--cprofile", "--html=out/page.html")
    data = Data()
    data.feed((pytester.path / "out" / "page.html").read_text())
    for hub in hubs.split(","):
        rows = data.tests[f"test_a_row_links_to_what_was_recorded_of_its_test.py::test_it[{hub}]"]
        links = {link["name"]: link["content"] for link in rows[-1]["extras"]}
        assert sorted(links) == ["profile", "report"]
        page, _, test = links["report"].partition("#/test/")
        assert unquote(test).endswith(".py::test_it")
        assert links["profile"] == f"{links['report']}?tab=profile"
        assert (pytester.path / "out" / page).exists()
