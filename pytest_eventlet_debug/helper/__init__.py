"""The process beside a test process: what starts tracers. Standard library alone."""
