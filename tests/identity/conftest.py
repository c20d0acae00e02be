"""Lets these tests import `issuer` and what the kernel's tests have, in every import mode."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
for folder in (
    HERE.parent / "gateway",
    HERE.parent / "kernel",
    HERE.parent / "tools",
    HERE.parent,
    HERE,
):
    sys.path.insert(0, str(folder))
