"""README, the documentation and ``--help`` say the same."""

from __future__ import annotations

from pathlib import Path
import re
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent


class Row(NamedTuple):
    """An option as the documentation's table or ``--help`` has it."""

    option: str
    ini: str
    default: str


def in_docs() -> list[Row]:
    text = (ROOT / "docs" / "options.rst").read_text().partition("\n\n\n")[0]
    rows = re.split(r"^   \* - ", text, flags=re.MULTILINE)[2:]
    found = []
    for row in rows:
        row = re.split(r"\n\n(?! )", row)[0]
        option, ini, _, default = re.split(r"^     - ", row, flags=re.MULTILINE)
        found.append(Row(option.strip().strip("`"), ini.strip().strip("`"), words(default)))
    return found


def words(text: str) -> str:
    return " ".join(text.replace("`", "").split())


def in_help(pytester: pytest.Pytester) -> list[Row]:
    text = pytester.runpytest("--help").stdout.str()
    group = re.split(r"\n(?=\S)", text.partition("\neventlet-debug:\n")[2])[0]
    inis = re.findall(r"^  (eventlet_\w+) \((?:string|bool)\):", text, re.MULTILINE)
    entries = re.split(r"^  (?=--)", group, flags=re.MULTILINE)[1:]
    rows = []
    for entry in entries:
        option, _, rest = (
            entry.partition("\n")
            if "  " not in entry.split("\n")[0]
            else (entry.split()[0], "", entry.partition("  ")[2])
        )
        dest = "eventlet_" + re.split("[= ]", option)[0].strip("-").removeprefix("eventlet-")
        ini = dest.replace("-", "_") if dest.replace("-", "_") in inis else "none"
        stated = re.search(r"Default: (.*)\.$", words(rest))
        # argparse and pytest put the brackets so where a value may be left out.
        option = option.strip().replace("=[", "[=")
        rows.append(Row(option, ini, stated[1] if stated else ""))
    return rows


def test_the_documentation_has_each_option_that_the_help_has(pytester: pytest.Pytester) -> None:
    docs, help = in_docs(), in_help(pytester)
    assert [row[:2] for row in docs] == [row[:2] for row in help]


def test_the_documentation_states_the_defaults_that_the_help_states(
    pytester: pytest.Pytester,
) -> None:
    docs = {row.option: row.default for row in in_docs()}
    stated = {row.option: row.default for row in in_help(pytester) if row.default}
    said_otherwise = {
        "--eventlet-phases=PHASES": "all three for --strace and --pcap, call for --cprofile"
    }
    assert len(stated) == 18
    for option, default in stated.items():
        assert default in (docs[option], said_otherwise.get(option))
    assert set(docs.values()) - set(stated.values()) == {
        "off",
        "none",
        "all; call for --cprofile",
    } - set(stated.values())


def test_the_short_table_in_readme_has_options_as_the_documentation_has_them() -> None:
    text = (ROOT / "README.rst").read_text().partition("\nOptions\n-------\n")[2]
    short = re.findall(r"^``(--.*?)``", text, re.MULTILINE)
    assert len(short) == 14
    assert set(short) <= {row.option for row in in_docs()}


def test_the_index_that_shows_readme_has_its_images() -> None:
    images = re.findall(r"^\.\. image:: (.*)", (ROOT / "README.rst").read_text(), re.MULTILINE)
    own = "https://raw.githubusercontent.com/eventlet/pytest-eventlet-debug/main/"
    assert images
    assert all((ROOT / image.removeprefix(own)).is_file() for image in images)
    assert all(image.startswith(own) for image in images)


def test_the_index_that_shows_readme_can_follow_each_of_its_links() -> None:
    text = (ROOT / "README.rst").read_text()
    links = re.findall(r"^\.\. _.*?: (.*)", text, re.MULTILINE)
    assert links
    assert all(link.startswith("https://") for link in links)
    assert "<docs/" not in text
    for page in re.findall(r"/en/latest/([\w-]+)\.html", text):
        assert [path for path in (ROOT / "docs").iterdir() if path.stem == page]
