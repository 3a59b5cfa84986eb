"""eventlet's hubs: which there are, how tests say theirs, and which one was in force."""
