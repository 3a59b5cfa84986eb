"""JSON files of ours: written whole or not at all, read with a bound and checked by their type.

msgspec does the work, which a test that patches :mod:`json` does not reach.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import msgspec

from pytest_eventlet_debug.system import files

#: Nothing that this plugin writes comes near.
MAX_BYTES = 256 << 20

_T = TypeVar("_T")

# Taken here, before a test can patch them. msgspec takes no lone surrogates, which the node
# ids of files have whose names are not UTF-8.
_surrogates_encoder = json.JSONEncoder(indent=1)
_surrogates_decoder = json.JSONDecoder()


def write(path: Path, value: object) -> None:
    """Write a file whole or not at all.

    :param value: a structure, or whatever else msgspec encodes.
    :raises OSError: the disk is full, or the directory is gone.
    """
    files.replace(path, encode(value) + b"\n")


def write_first(path: Path, value: object) -> None:
    """Write a file that nobody looks for yet, as :func:`.files.write_first` does.

    :raises OSError: as :func:`write` does.
    """
    files.write_first(path, encode(value) + b"\n")


def encode(value: object) -> bytes:
    """Return JSON with an indentation of one space."""
    try:
        return msgspec.json.format(msgspec.json.encode(value), indent=1)
    except UnicodeEncodeError:
        return _surrogates_encoder.encode(msgspec.to_builtins(value)).encode("ascii")


def read(path: Path, kind: type[_T]) -> _T:
    """Return what a file holds.

    :raises OSError: it cannot be read, is no regular file or larger than :data:`MAX_BYTES`.
    :raises msgspec.DecodeError: it is no JSON; :class:`msgspec.ValidationError` is raised for
        JSON of another type.
    """
    return decode(content(path), kind)


def read_ours(path: Path, kind: type[_T]) -> _T | None:
    """Return what a file holds, or ``None`` where there is none of ours."""
    try:
        return read(path, kind)
    except (OSError, msgspec.DecodeError):
        return None


def decode(raw: bytes, kind: type[_T]) -> _T:
    """Return what JSON says.

    :raises msgspec.DecodeError: as :func:`read` does.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except RecursionError:
        raise msgspec.DecodeError("JSON is nested too deep") from None
    except UnicodeDecodeError as error:  # in a string; elsewhere it is a DecodeError
        raise msgspec.DecodeError(str(error)) from None
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        if b"\\ud" not in raw.lower():
            raise
    try:
        return msgspec.convert(_surrogates_decoder.decode(raw.decode()), kind)
    except (ValueError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def content(path: Path) -> bytes:
    """Return the bytes of a file.

    :raises OSError: as :func:`read` does.
    """
    return files.read(path, MAX_BYTES)
