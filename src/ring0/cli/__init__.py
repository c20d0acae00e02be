"""The command line: one module a verb group, no logic of its own."""
