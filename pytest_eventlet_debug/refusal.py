"""How a subcommand says that it cannot do what it was asked for."""

from __future__ import annotations

import sys

#: The exit status then; argparse has the same.
USAGE_ERROR = 2


def refuse(why: str, status: int = USAGE_ERROR) -> int:
    """Print a line to stderr; return the exit status."""
    print(f"pytest-eventlet-debug: {why}", file=sys.stderr)
    return status
