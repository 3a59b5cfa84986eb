"""Two runs compared: saved runs, and the verdict on an upgrade."""
