"""Several hubs as one run: a pytest for each hub, and the one that reports for them all."""
