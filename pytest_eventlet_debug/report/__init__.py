"""What was found, shown to people."""
