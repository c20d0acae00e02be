"""What the commands print: tables, JSON, errors. Every text that comes from a run is hostile here.

Nothing from outside is ever read as markup or reaches a terminal with a control character in it:
it goes through `safe` and into a `rich.text.Text`. `--json` is plain ASCII.
"""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ring0.errors import Ring0Error
from ring0.kernel.agent.printed import plain

NOT_A_TERMINAL_COLUMNS: Final = 160
"""How wide the lines are that no terminal shows: enough that nothing in a table is cut."""
BRIEF_CHARS: Final = 200
_UNSEEN: Final = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Characters that turn the reading direction, have no width, or break lines: a text with them looks
like another text."""
_HIDDEN: Final = re.compile(f"{_UNSEEN.pattern}|[\x7f-\x9f]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def safe(text: str) -> str:
    """A text from outside, fit for a terminal: what one sees is what it says. Keeps line breaks."""
    return _SURROGATE.sub("\ufffd", _UNSEEN.sub("", plain(text)))


def line(text: str, most: int = BRIEF_CHARS) -> str:
    """The same on one line, cut to `most` characters."""
    flat = " ".join(safe(text).split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def value_line(value: Any, most: int = BRIEF_CHARS) -> str:
    """Any JSON value on one line: a string is itself, the rest is JSON."""
    if isinstance(value, str):
        return line(value, most)
    return line(json.dumps(value, ensure_ascii=False), most)


def escaped(value: Any, most: int) -> str:
    """A JSON value in its own notation: a line break in it, or a character that nobody would see,
    is seen as `\\n`, `\\u202e`."""
    shown = json.dumps(value, ensure_ascii=False)
    text = safe(_HIDDEN.sub(lambda found: f"\\u{ord(found.group()):04x}", shown))
    return text if len(text) <= most else text[: most - 1] + "…"


def console(*, error: bool = False) -> Console:
    """A console that interprets nothing: no markup, no emoji codes, no highlighting."""
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else NOT_A_TERMINAL_COLUMNS
    return Console(file=stream, markup=False, emoji=False, highlight=False, width=width)


def text(*parts: str | tuple[str, str]) -> Text:
    """A Text of parts, each with its style or without. The parts are made safe."""
    made = Text()
    for part in parts:
        words, style = part if isinstance(part, tuple) else (part, "")
        made.append(safe(words), style=style or None)
    return made


def columns_of(out: Console) -> int:
    """How wide the terminal really is: COLUMNS may say that it is wider."""
    try:
        real = os.get_terminal_size(out.file.fileno()).columns
    except (OSError, ValueError):
        return out.width
    return min(out.width, real) if real > 0 else out.width


def put(out: Console, what: Text, columns: int = 0, *, mark: str = "") -> None:
    """Prints a text set in by `columns`. In a terminal it is broken to fit, and each further line
    begins with `mark`; elsewhere a line stays whole, and none has blanks at its end."""
    parts = list(what.split("\n", allow_blank=True)) or [Text()]
    hang = columns + (2 if mark else 0)
    if out.is_terminal:
        room = max(4, columns_of(out) - hang - len(mark) - 1)
        parts = [row for part in parts for row in (part.wrap(out, room) or [Text()])]
    for number, part in enumerate(parts):
        part.rstrip()
        begins = Text(" " * hang + mark, style="dim") if number else Text(" " * columns)
        out.print(begins + part, soft_wrap=True)


def broken(words: str, room: int) -> list[str]:
    """A line in pieces that no terminal shows wider than `room` columns, tabs expanded.

    What some terminals show in two columns counts as two, and nothing counts as none: a line that
    is broken too early harms nobody, one that a terminal breaks by itself loses its mark.
    """
    pieces, piece, width = [], "", 0
    for letter in words.expandtabs(8):
        takes = 1 if letter < "\x7f" or not _may_be_wide(letter) else 2
        if width + takes > room and piece:
            pieces.append(piece)
            piece, width = "", 0
        piece, width = piece + letter, width + takes
    return [*pieces, piece]


def _may_be_wide(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in "WFA" or unicodedata.category(letter) in (
        "So",
        "Cn",
        "Co",
    )


def indented(what: RenderableType, columns: int) -> Padding:
    """Wrapped lines begin where the first one does: no text passes itself off as ours."""
    return Padding(what, (0, 0, 0, columns), expand=False)


def table(heads: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Plain columns. The first column is never cut: it is what one copies."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, head in enumerate(heads):
        made.add_column(head, no_wrap=number == 0, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(line(cell)) for cell in row))
    return made


def builtins(value: Any) -> Any:
    """A value as JSON has it, with every field of every struct: no default is left out."""
    if isinstance(value, msgspec.Struct):
        return {key: builtins(part) for key, part in msgspec.structs.asdict(value).items()}
    if isinstance(value, dict):
        return {str(key): builtins(part) for key, part in value.items()}
    if isinstance(value, list | tuple | frozenset):
        return [builtins(part) for part in value]
    return msgspec.to_builtins(value)


def print_json(value: Any) -> None:
    """One JSON value on standard output, in ASCII."""
    sys.stdout.write(json.dumps(builtins(value), ensure_ascii=True, indent=2) + "\n")
    sys.stdout.flush()


def print_error(error: Ring0Error, *, as_json: bool) -> None:
    """What happened, why, and what to do: on standard error, or as JSON on standard output."""
    if as_json:
        print_json({"error": error.as_dict()})
        return
    out = console(error=True)
    put(out, text(("ring0: ", "bold red"), (error.what, "bold")))
    for name, part in (("Why", error.why), ("Do", error.todo)):
        if part:
            put(out, text((f"{name}: ", "dim"), part), 2)


def count(number: int, noun: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {noun}s"


def moment(at_us: int) -> str:
    """A time for people: UTC, to the second."""
    return datetime.fromtimestamp(at_us / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def lasted(from_us: int, to_us: int) -> str:
    """A duration for people."""
    took_us = max(0, to_us - from_us)
    if took_us < 1_000_000:
        return f"{took_us // 1_000} ms"
    seconds = took_us / 1_000_000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def money(microusd: int) -> str:
    """An amount for people: `$0.0042`; nothing spent is `$0`."""
    return f"${microusd / 1_000_000:.4f}" if microusd else "$0"
