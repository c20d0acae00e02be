"""The client matrix: programs of other frameworks, unmodified, under ring0 (`make compat`)."""
