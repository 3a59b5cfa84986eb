"""Tests that run again, in fresh processes."""
