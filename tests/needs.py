"""What some tests need that is not there on every machine."""

from __future__ import annotations

import os
import shutil

import pytest

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do that")
