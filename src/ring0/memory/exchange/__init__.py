"""Memory as files: our own JSON Lines, and what mem0 and Letta export.

What is read here is a stranger's file: bounded, typed, and never more than what it says. Not here:
what is believed of it (kernel/memory/exchanging.py).
"""

from ring0.memory.exchange.bundle import Bundle, Imported
from ring0.memory.exchange.lines import header, line
from ring0.memory.exchange.reading import read

__all__ = ["Bundle", "Imported", "header", "line", "read"]
