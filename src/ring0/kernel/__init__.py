"""The kernel: the gate, and a run's life around it."""
