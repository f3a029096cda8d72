"""What outside structures can be held to. Shipped, and used by tests alone."""
