"""ring0 as a daemon: a supervisor that outlives its worker, and the worker, which is the kernel."""
