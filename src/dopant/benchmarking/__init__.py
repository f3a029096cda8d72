"""What a compressed model gains in time, against the best that others offer for the dense one."""
