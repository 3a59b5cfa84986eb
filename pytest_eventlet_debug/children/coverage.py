"""One coverage report over all hubs: the children measure, the controller combines.

pytest-cov combines every data file beside its own that has its name and a suffix.
"""

from __future__ import annotations

from pathlib import Path
import shutil
from typing import Any

import pytest

_SUFFIX = ".coverage"


def environment(config: pytest.Config, beside: Path) -> dict[str, str]:
    """Return what a child's environment needs to keep its data apart, if it measures."""
    if _data_file(config) is None:
        return {}
    return {"COVERAGE_FILE": str(beside.with_suffix(_SUFFIX))}


def gather(config: pytest.Config, directory: Path) -> None:
    """Put the children's data where pytest-cov, about to finish, combines it."""
    data_file = _data_file(config)
    if data_file is None:
        return
    # As pytest-cov does where pytest-xdist's workers measure: that this process has imported
    # nothing says nothing.
    measured: Any = config.pluginmanager.getplugin("_cov").cov_controller.cov
    measured._warn_no_data = measured._warn_unimported_source = False
    for path in directory.glob(f"*{_SUFFIX}"):
        shutil.move(path, data_file.with_name(f"{data_file.name}.{path.stem}"))


def is_asked_for(options: Any) -> bool:
    """Say whether pytest-cov is to measure."""
    return bool(getattr(options, "cov_source", None))


def quiet(options: Any) -> None:
    """Let pytest-cov measure in a child, and leave the report to the controller."""
    if is_asked_for(options):
        options.cov_report = {"": None}
        options.cov_fail_under = 0


def _data_file(config: pytest.Config) -> Path | None:
    controller = getattr(config.pluginmanager.getplugin("_cov"), "cov_controller", None)
    if controller is None:
        return None
    return Path(controller.topdir, controller.cov.config.data_file)
