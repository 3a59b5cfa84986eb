"""Every command in README and the documentation is one that works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import re
import shlex
from typing import NamedTuple
from typing import get_args

import pytest

from pytest_eventlet_debug import cli
from pytest_eventlet_debug import options
from pytest_eventlet_debug.recordings.findings import stalls
from pytest_eventlet_debug.recordings.findings import tally
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.registry import DETECTORS
from pytest_eventlet_debug.recordings.findings.wire import Wire
from pytest_eventlet_debug.settings import Settings

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "README.rst",
    ROOT / "CONTRIBUTING.rst",
    *sorted(ROOT.glob("docs/*.rst")),
    *sorted(ROOT.glob("docs/findings/*.rst")),
)

#: Programs of others. What they are given is theirs to judge.
OTHERS = frozenset(("cd", "git", "kcachegrind", "pip", "python", "sudo", "wireshark", "xdg-open"))


class Command(NamedTuple):
    """A command in a console block."""

    page: str
    words: tuple[str, ...]


def commands() -> Iterator[Command]:
    """Yield each line with a prompt, without the variables that it sets."""
    for page in PAGES:
        for block in re.findall(
            r"^( *)\.\. code-block:: console\n((?:\n|\1 +.*\n)+)", page.read_text(), re.MULTILINE
        ):
            lines = block[1].replace("\\\n", " ").splitlines()
            for line in lines:
                if line.lstrip().startswith("$ "):
                    words = shlex.split(line.strip()[2:].replace("<", "").replace(">", ""), True)
                    while re.match(r"[A-Z_]+=", words[0]):
                        del words[0]
                    yield Command(page.name, tuple(words))


class OurOptions:
    """The plugin's options, without what they do."""

    pytest_addoption = staticmethod(options.add_options)


def test_pytest_takes_every_command_line_in_the_documentation(pytester: pytest.Pytester) -> None:
    pytester.plugins.append(OurOptions())
    found = {words[1:] for _, words in commands() if Path(words[0]).name == "pytest"}
    assert len(found) > 30
    for words in found:
        config = pytester.parseconfig("-p", "no:eventlet-debug", *words)
        asked_for = {word.lstrip("-") for word in words} & {"strace", "pcap", "cprofile"}
        assert {kind.name for kind in Settings(config).tracers} == asked_for


def test_the_documentation_names_only_targets_of_make_that_there_are() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {command.words[1] for command in commands() if command.words[0] == "make"}
    assert named
    assert named <= targets


def test_each_link_to_our_own_site_leads_to_a_page_that_there_is() -> None:
    site = "https://pytest-eventlet-debug.readthedocs.io/en/latest/"
    linking = (ROOT / "pyproject.toml", *PAGES)
    linked = {
        name for page in linking for name in re.findall(rf"{site}([\w/-]+)\.html", page.read_text())
    }
    assert len(linked) > 15
    sources = {path.with_suffix("") for path in (ROOT / "docs").rglob("*") if path.is_file()}
    assert {ROOT / "docs" / name for name in linked} <= sources


def test_our_own_command_takes_every_argument_in_the_documentation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = {words[1:] for _, words in commands() if words[0] == "pytest-eventlet-debug"}
    assert found
    for name, *arguments in found:
        with pytest.raises(SystemExit) as stopped:
            cli.main([name, "--help"])
        assert stopped.value.code == 0
        help = capsys.readouterr().out
        assert all(word in help for word in arguments if word.startswith("-"))


def test_each_kind_of_finding_has_a_page_that_says_what_to_do() -> None:
    kinds = get_args(Kind)
    assert {detector.kind for detector in (*DETECTORS, Wire)} | {stalls.KIND, tally.KIND} <= {
        *kinds
    }
    pages = {path.stem: path.read_text() for path in ROOT.glob("docs/findings/*.rst")}
    # Of what a comparison shows, which is no finding.
    parted = pages.pop("parted")
    assert sorted(pages) == sorted(kind.replace(" ", "-") for kind in kinds)
    parts = ["What it says", "What causes it", "How sure it is", "What to do"]
    for text in (*pages.values(), parted):
        assert re.findall(r"^(\w.*)\n---", text, re.MULTILINE) == parts
    overview = (ROOT / "docs" / "findings.rst").read_text()
    for kind in kinds:
        slug = kind.replace(" ", "-")
        assert f"{kind}\n{'=' * len(kind)}\n" in pages[slug]
        assert f":doc:`{kind} <findings/{slug}>`" in overview


def test_every_other_command_in_the_documentation_is_known() -> None:
    known = OTHERS | {"make", "pytest", "pytest-eventlet-debug", "towncrier", "pre-commit", "tox"}
    assert {Path(command.words[0]).name for command in commands()} <= known
