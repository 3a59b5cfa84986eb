"""What is recorded around each test: system calls, packets, a profile."""
