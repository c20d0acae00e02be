"""What is said wherever a profile asks nobody. Light on purpose: every command imports it."""

from typing import Final

OBSERVED: Final = "observe: nothing is held for a person; what would be asked is let through"
