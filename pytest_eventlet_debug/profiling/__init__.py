"""Profiles that are right where greenlets switch: engines, their clock, what they write."""
