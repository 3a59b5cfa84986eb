"""The operating system, out of the tests' reach and sight."""
