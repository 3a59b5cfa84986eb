"""What is alive in this process: asyncio tasks, greenthreads, the hub's own lists."""
