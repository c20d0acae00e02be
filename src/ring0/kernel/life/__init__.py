"""A run's life: ordered, queued, begun, carried on, put away and woken, paused, ended."""
