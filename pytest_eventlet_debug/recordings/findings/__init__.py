"""What recordings tell."""
