"""What happened, and is it still what it was: verification now; proofs, traces, metrics later."""

from ring0.observability.verify import Report, verify

__all__ = ["Report", "verify"]
