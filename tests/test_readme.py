"""README and ``--help`` say the same."""

from __future__ import annotations

from pathlib import Path
import re
from typing import NamedTuple

import pytest

README = Path(__file__).parent.parent / "README.rst"


class Row(NamedTuple):
    """An option as README's table or ``--help`` has it."""

    option: str
    ini: str
    default: str


def in_readme() -> list[Row]:
    text = README.read_text().partition("\nOptions\n-------\n")[2].partition("\n\n\n")[0]
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
        rows.append(Row(option.strip(), ini, stated[1] if stated else ""))
    return rows


def test_the_table_of_options_in_readme_is_that_of_the_help(pytester: pytest.Pytester) -> None:
    readme, help = in_readme(), in_help(pytester)
    assert [row[:2] for row in readme] == [row[:2] for row in help]


def test_readme_states_the_defaults_that_the_help_states(pytester: pytest.Pytester) -> None:
    readme = {row.option: row.default for row in in_readme()}
    stated = {row.option: row.default for row in in_help(pytester) if row.default}
    said_otherwise = {
        "--eventlet-phases=PHASES": "all three for --strace and --pcap, call for --cprofile"
    }
    assert len(stated) == 12
    for option, default in stated.items():
        assert default in (readme[option], said_otherwise.get(option))
    assert set(readme.values()) - set(stated.values()) == {
        "off",
        "none",
        "all; call for --cprofile",
    } - set(stated.values())
