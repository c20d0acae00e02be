"""Telemetry at work: spans are sent to who is to have them, numbers are taken of a kernel."""
