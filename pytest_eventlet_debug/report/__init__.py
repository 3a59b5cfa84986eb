"""Where people look: the HTML report, a job's summary, and the ways to open what was recorded."""
