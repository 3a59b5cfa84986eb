"""The installed distributions: which there are, and which of them a file belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from importlib import metadata
import os
from pathlib import Path
from pathlib import PurePosixPath
import re

from pytest_eventlet_debug.upgrade.saved_run import Distribution
from pytest_eventlet_debug.versions import editable_folder
from pytest_eventlet_debug.versions import origin

_SITE = re.compile(r"(?:^|/)(?:site|dist)-packages/")
# What lies beside the packages in a source tree.
_NOT_INSTALLED = frozenset({"conftest", "noxfile", "setup", "src", "test", "tests", "versioneer"})
_MODULE_SUFFIXES = frozenset({".py", ".pyc", ".so", ".pyd"})


def normalized(name: str) -> str:
    """Return a distribution's name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Installed:
    """The distributions that this interpreter finds now, and their files."""

    def __init__(self) -> None:
        self._found: dict[str, metadata.Distribution] = {}
        for each in metadata.distributions():
            if "Name" in each.metadata:  # not in what a broken uninstall leaves
                self._found.setdefault(normalized(each.metadata["Name"]), each)
        self.distributions: Mapping[str, Distribution] = {
            name: Distribution(_version(each), _packages(each))
            for name, each in sorted(self._found.items())
        }
        self._by_package: dict[str, list[str]] = {}
        for name, distribution in self.distributions.items():
            for package in distribution.packages:
                self._by_package.setdefault(package, []).append(name)
        self._folders = {
            folder: name
            for name, each in self._found.items()
            if (folder := editable_folder(each)) is not None
        }

    def owners(self, paths: Iterable[str], directory: Path) -> tuple[str, ...]:
        """Return the distributions that files belong to, in order, each once.

        :param paths: as a traceback has them.
        :param directory: what relative ones are relative to.
        """
        found = (self._owner(path, directory) for path in paths)
        return tuple(dict.fromkeys(name for name in found if name is not None))

    def _owner(self, path: str, directory: Path) -> str | None:
        parts = _SITE.split(path)
        if len(parts) > 1:
            return self._owner_in_site(PurePosixPath(parts[-1]))
        absolute = Path(os.path.normpath(directory / path))
        for folder, name in self._folders.items():
            if absolute.is_relative_to(folder):
                top, *below = absolute.relative_to(folder).parts
                if top == "src" and below:
                    top = below[0]
                if top.partition(".")[0] in self.distributions[name].packages:
                    return name
        return None

    def _owner_in_site(self, path: PurePosixPath) -> str | None:
        names = self._by_package.get(path.parts[0].partition(".")[0], [])
        if len(names) < 2:
            return names[0] if names else None
        for name in names:  # parts of one namespace
            if any(PurePosixPath(file) == path for file in self._found[name].files or ()):
                return name
        return None


def _version(distribution: metadata.Distribution) -> str:
    """Return the version, and the commit of what was installed from a repository."""
    commit = origin(distribution).get("vcs_info", {}).get("commit_id")
    return f"{distribution.version} (commit {commit[:12]})" if commit else distribution.version


def _packages(distribution: metadata.Distribution) -> tuple[str, ...]:
    """Return the names under which a distribution is imported."""
    folder = editable_folder(distribution)
    if folder is not None:
        return _packages_in(folder)
    stated = distribution.read_text("top_level.txt")
    if stated is not None:
        return tuple(sorted(stated.split()))
    found = set()
    for file in distribution.files or ():
        top = file.parts[0]
        if file.suffix in _MODULE_SUFFIXES and top != ".." and not top.endswith("-info"):
            found.add(top.partition(".")[0])
    return tuple(sorted(name for name in found if name.isidentifier() and name != "__pycache__"))


def _packages_in(folder: Path) -> tuple[str, ...]:
    """Return the packages and modules in a source tree, but for its tests."""
    found = set()
    for parent in (folder, folder / "src"):
        found |= {path.parent.name for path in parent.glob("*/__init__.py")}
        found |= {path.stem for path in parent.glob("*.py")}
    return tuple(sorted(found - _NOT_INSTALLED))
