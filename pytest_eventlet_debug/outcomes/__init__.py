"""How tests ended."""
