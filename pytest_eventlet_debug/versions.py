"""Which versions of packages are in use, which need not be the installed ones."""

from __future__ import annotations

from importlib import metadata
from importlib import util
import json
from pathlib import Path
import re
import sys
from typing import Any
from urllib.parse import unquote
from urllib.parse import urlsplit

from pytest_eventlet_debug.patterns import lazily

#: What is said of a package that does not tell its version.
UNKNOWN = "unknown"

# In a source tree, as setuptools-scm and hatch-vcs write it too.
_SAID = lazily(r"""^__version__\s*(?::[^=\n]*)?=\s*(?:\w+\s*=\s*)?["']([^"']+)["']""", re.M)

_STATED = lazily(r"^Version:[ \t]*(\S+)[ \t]*$", re.M)


def in_use(name: str) -> str:
    """Return the version of the package that ``import NAME`` finds; nothing is imported for it.

    A source tree in front on ``sys.path`` hides what is installed, and has no metadata there.

    :param name: a package's, which is its distribution's as well.
    :return: :data:`UNKNOWN` if neither metadata nor the package tells it.
    """
    folder = _folder(name)
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        distribution = None
    if distribution is not None and (folder is None or _has(distribution, name, folder)):
        return _stated(distribution)
    module = sys.modules.get(name)
    return str(getattr(module, "__version__", "")) or _said(folder) or UNKNOWN


def _stated(distribution: metadata.Distribution) -> str:
    """Return the version that metadata states, of which this is one of the first lines."""
    # To parse the whole of it takes ten times as long.
    header, _, _ = (distribution.read_text("METADATA") or "").partition("\n\n")
    stated = _STATED.search(header)
    return stated[1] if stated is not None else distribution.version


def _folder(name: str) -> Path | None:
    try:
        spec = util.find_spec(name)
    except ValueError:  # what is imported under that name is no package
        return None
    places = (spec.submodule_search_locations if spec is not None else None) or ()
    return next((Path(each).resolve() for each in places), None)


def _has(distribution: metadata.Distribution, name: str, folder: Path) -> bool:
    """Say whether a package's folder is the one that a distribution has installed."""
    tree = editable_folder(distribution)
    if tree is not None:
        return folder.is_relative_to(tree.resolve())
    return Path(str(distribution.locate_file(name))).resolve() == folder


def _said(folder: Path | None) -> str:
    for name in ("_version.py", "__init__.py"):
        try:
            text = (folder / name).read_text("utf-8") if folder is not None else ""
        except (OSError, ValueError):
            continue
        if said := _SAID.search(text):
            return said[1]
    return ""


def editable_folder(distribution: metadata.Distribution) -> Path | None:
    """Return the source tree of a distribution that is installed from there."""
    found = origin(distribution)
    if not found.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(found.get("url", "")).path))


def origin(distribution: metadata.Distribution) -> dict[str, Any]:
    """Return what pip noted of where a distribution came from (PEP 610)."""
    try:
        found = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
