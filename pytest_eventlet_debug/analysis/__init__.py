"""From recorded files to findings: pure functions that never import eventlet or pytest."""
