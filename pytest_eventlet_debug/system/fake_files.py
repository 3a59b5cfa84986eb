"""pyfakefs, which puts a file system in memory in the place of the real one, for every module."""

from __future__ import annotations

import sys

_PATCHER = "pyfakefs.fake_filesystem_unittest"


def keep_out() -> None:
    """Have it leave this package alone, as it does debuggers, if it is loaded.

    Otherwise a recording is written where nobody finds it. And a descriptor of a faked file is a
    number that stands for another file in those calls that it does not fake, such as fchmod(2).
    """
    patcher = getattr(sys.modules.get(_PATCHER), "Patcher", None)
    # By modules that are loaded: the prefixes of those that are left alone.
    left_alone = getattr(patcher, "RUNTIME_SKIPMODULES", None)
    if type(left_alone) is dict:
        package = __name__.partition(".")[0]
        left_alone[package] = [package]
