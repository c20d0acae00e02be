"""Recorded runs as tests of a project: a plugin for pytest. Nothing else of ring0 needs it."""
