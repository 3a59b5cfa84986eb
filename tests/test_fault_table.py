"""The table of faults and the tests that inject them name the same ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
import re

TESTS = Path(__file__).parent
TABLE = TESTS.parent / "docs" / "faults.rst"


def marked(path: Path) -> Iterator[str]:
    """Yield the names in each mark ``fault`` of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
            for argument in node.args:
                yield ast.literal_eval(argument)


def test_each_fault_has_one_row_in_the_documentation_and_a_test() -> None:
    rows = re.findall(
        r"^   \* - (?!Name$)(.+)\n     - .+(?:\n       .+)*\n     - .", TABLE.read_text(), re.M
    )
    assert len(rows) == len(set(rows)) >= 60
    assert {name for path in TESTS.rglob("*.py") for name in marked(path)} == set(rows)
