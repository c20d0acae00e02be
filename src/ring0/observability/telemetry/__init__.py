"""What standard tools are told of runs: spans (OTLP), numbers (Prometheus), lines (JSON).

All of it is made from the journal and from rows; nothing here sends, listens or remembers. Sending
is the kernel's (kernel/telemetry/), the doors are the gateway's.
"""
