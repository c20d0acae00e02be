"""The built-in tools `python` and `shell`."""

from ring0.tools.programs.tool import drivers

__all__ = ["drivers"]
