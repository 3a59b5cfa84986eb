"""Greenthreads that held the hub for too long: who, how long, and at which line."""
