"""What scanning one text may cost: counted in characters that are looked at, never by the clock.

Every rule takes time in proportion to what it looks at, so this bounds the time, and the same text
always ends at the same place. What is left over was not scanned, and says so.
"""

from __future__ import annotations

import msgspec

from ring0 import limits


class Budget(msgspec.Struct):
    """Characters that may be looked at. One budget may serve several texts of one call."""

    chars: int = limits.SCAN_CHARS_MAX
    spent: int = 0
    exhausted: bool = False
    """Something was wanted that there was nothing left for."""

    @property
    def left(self) -> int:
        return max(0, self.chars - self.spent)

    def spend(self, chars: int) -> bool:
        """Takes `chars`, or nothing: then it is exhausted."""
        if chars > self.left:
            self.exhausted = True
            return False
        self.spent += chars
        return True
