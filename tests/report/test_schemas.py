"""The JSON Schemas in docs are those of the files that runs write."""

from __future__ import annotations

import json
from pathlib import Path
import subprocess
import sys

from hostile_run import Recorded
import jsonschema
import pytest

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "docs" / "schemas"


def test_the_schemas_are_those_of_the_types_that_read_the_files(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "artifact-schemas", tmp_path], check=True)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in SCHEMAS.iterdir()}


@pytest.mark.parametrize("name", ["run", "test", "findings", "results"])
def test_what_a_run_writes_fits_its_schema(recorded: Recorded, name: str) -> None:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    files = [
        *recorded.directory.glob(f"{name}.json"),
        *recorded.directory.glob(f"*/{name}.json"),
    ]
    assert files
    for path in files:
        jsonschema.validate(json.loads(path.read_text()), schema)
