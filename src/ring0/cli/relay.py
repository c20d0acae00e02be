"""What agents' processes print, as lines of the terminal: marked, harmless, and bounded a run.

Not here: when they are shown (view.py).
"""

from __future__ import annotations

from typing import Final

from rich.console import Console

from ring0.cli import output

PARTIAL_CHARS_MAX: Final = 4_000
RELAY_BYTES_MAX: Final = 256 * 1024
"""Of what one run prints, so much is shown, its marks included."""
RELAY_MARK: Final = "    │ "
"""Begins every line that an agent's process printed, and no line of the kernel's."""
RELAY_COLUMNS: Final = 8
"""The mark's, where `│` may be two wide, and one that stays free."""


class Relay:
    """Makes lines of what comes in pieces."""

    def __init__(self, console: Console) -> None:
        self._out = console
        self._partial: dict[str, str] = {}
        """By run: the line that it has begun."""
        self._room: dict[str, int] = {}
        """By run: how many bytes of what it prints may still be shown."""

    def has_begun_a_line(self, run: str) -> bool:
        return run in self._partial

    def lines(self, run: str, said: str) -> list[str]:
        """Those that are whole now; a line that grows without end is cut."""
        room = self._room.get(run, RELAY_BYTES_MAX)
        if room <= 0:
            return []
        *whole, rest = (self._partial.pop(run, "") + output.safe(said)).split("\n")
        if len(rest) > PARTIAL_CHARS_MAX:
            whole, rest = [*whole, rest], ""
        if rest:
            self._partial[run] = rest
        lines, is_terminal = [], self._out.is_terminal
        columns = max(1, output.columns_of(self._out) - RELAY_COLUMNS)
        for part in whole:
            for piece in output.broken(part, columns) if is_terminal else [part]:
                lines.append(RELAY_MARK + piece.rstrip())
                room -= len(lines[-1].encode()) + 1
            if room <= 0:
                self._partial.pop(run, None)
                lines.append(f"    More of what it prints: ring0 show {run} --output")
                break
        self._room[run] = room
        return lines
