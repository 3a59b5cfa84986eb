"""Where a dump on demand begins and ends, for who writes, awaits and reads it."""

from __future__ import annotations

#: The first line without its end, which a trace of the write shows escaped.
TITLE = "-- what is alive --"
#: The first line, written before anything is looked at.
BEGIN = f"{TITLE}\n"
#: The last line of a dump that is complete.
END = "-- end of what is alive --\n"
#: What a dump may take; then no further part of it is begun.
MAX_SECONDS = 5.0
#: Begins the line of what the test waits for.
WAITS = "the test waits "
#: Begins the line of what another thread was to wake and does not.
NEVER = "a timer in the hub of another thread "
#: What a dump is called in the report on a test that hung.
SECTION = "What is alive"
