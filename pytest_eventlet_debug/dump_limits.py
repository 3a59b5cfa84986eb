"""Where a dump on demand begins and ends, for who writes, awaits and reads it."""

from __future__ import annotations

BEGIN = "-- what is alive --\n"
"""The first line, written before anything is looked at."""
END = "-- end of what is alive --\n"
"""The last line of a dump that is complete."""
MAX_SECONDS = 5.0
"""What a dump may take; then no further part of it is begun."""
