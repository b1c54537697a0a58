"""Takes a tagged candidate to its users, or back: what the counters say, and what to do about it."""
