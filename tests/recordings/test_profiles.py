"""What is written of counts, and how pyprof2calltree is imported for that."""

from __future__ import annotations

import io
from pathlib import Path
import pstats
import subprocess
import sys

import pyprof2calltree
import pytest

from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.recordings import profiles
from pytest_eventlet_debug.recordings.profile_file import ProfileCounts
from pytest_eventlet_debug.recordings.profile_file import ProfileFacts

ROOT = Path(__file__).parent.parent.parent

INNER = ("/suite/test_x.py", 9, "inner")
COUNTS = ProfileCounts(
    facts=ProfileFacts(
        engine="native", clock="run", seconds=1.0, self_seconds=0.0, switching_seconds=0.0
    ),
    parts=[
        Part(
            [
                (("/suite/test_x.py", 1, "test_x"), 1, 0, 1.0, 0.25, [(INNER, 3, 1, 0.75, 0.75)]),
                (INNER, 3, 1, 0.75, 0.75, [(INNER, 1, 0, 0.5, 0.5)]),
                (("/suite/other.py", 5, "inner"), 1, 0, 0.5, 0.5, []),
                (("/suite/test_x.py", 20, "inner"), 1, 0, 0.125, 0.125, []),
                (("~", 0, "<built-in method time.sleep>"), 1, 0, 0.5, 0.5, []),
            ]
        )
    ],
    has_greenlets=True,
)


def complete_twice(directory: Path, before: str, after: str = "") -> tuple[str, Path, Path]:
    """Complete a profile in a process of its own and in this one.

    :param before: what that process does first.
    :return: what it printed, and where both are.
    """
    program = (
        f"import sys; from pathlib import Path\n{before}\n"
        "from pytest_eventlet_debug.recordings import profiles\n"
        "profiles.complete(Path(sys.argv[1]), 'a::b', Path(sys.argv[2]).read_bytes())\n" + after
    )
    counts, alone, whole = (directory / name for name in ("counts", "alone", "whole"))
    counts.write_bytes(COUNTS.encode())
    alone.mkdir()
    whole.mkdir()
    command = [sys.executable, "-c", program, alone, counts]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    profiles.complete(whole, "a::b", COUNTS.encode())
    return done.stdout, alone, whole


def test_what_pyprof2calltree_does_not_need_is_not_imported_and_changes_nothing(
    tmp_path: Path,
) -> None:
    before = (
        "from pytest_eventlet_debug.recordings import profiles\n"
        "before = set(sys.modules); profiles.import_converter()"
    )
    after = "print({'argparse', 'pstats', 'subprocess', 'tempfile'} & set(sys.modules) - before)"
    printed, alone, whole = complete_twice(tmp_path, before, after)
    assert printed == "set()\n"
    names = {"profile.callgrind", "profile.cprof", "profile.json"}
    assert {path.name for path in alone.iterdir()} == names
    # Not the bytes of this one: marshal writes down which objects others refer to, too.
    counts, others = (pstats.Stats(str(each / "profile.cprof")) for each in (alone, whole))
    assert vars(counts)["stats"] == vars(others)["stats"]
    names.remove("profile.cprof")
    assert all((alone / name).read_bytes() == (whole / name).read_bytes() for name in names)


def test_callgrind_is_what_pyprof2calltree_makes_of_the_file_of_pstats(tmp_path: Path) -> None:
    profiles.complete(tmp_path, "a::b", COUNTS.encode())
    text = io.StringIO()
    pyprof2calltree.convert(pstats.Stats(str(tmp_path / "profile.cprof")), text)
    _, _, theirs = text.getvalue().partition("\nsummary: ")
    _, _, ours = (tmp_path / "profile.callgrind").read_text().partition("\nsummary: ")
    assert "fn=inner:9\n" in ours
    assert ours.splitlines()[1:] == theirs.splitlines()[1:]


def test_pyprof2calltree_works_with_a_cprofile_that_has_no_labels(tmp_path: Path) -> None:
    # As that of Python 3.15.
    before = "import cProfile; vars(cProfile).pop('label', None)"
    _, alone, whole = complete_twice(tmp_path, before)
    name = "profile.callgrind"
    assert (alone / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("in_file", [False, True])
def test_what_one_has_begun_that_was_killed_is_written_anew(tmp_path: Path, in_file: bool) -> None:
    (tmp_path / "profile.callgrind").write_text("half")
    if in_file:
        (tmp_path / "profile.counts").write_bytes(COUNTS.encode())
    profiles.complete(tmp_path, "a::b", None if in_file else COUNTS.encode())
    assert (tmp_path / "profile.callgrind").read_text().startswith("cmd: pytest a::b\n")
    assert not (tmp_path / "profile.counts").exists()
