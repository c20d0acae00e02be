"""The built-in tool `derive`: sums, selections and dates whose labels are known exactly."""

from ring0.tools.deriving.tool import DESCRIPTION, SCHEMA, Derive, drivers

__all__ = ["DESCRIPTION", "SCHEMA", "Derive", "drivers"]
