"""How the demo looks: a hundred columns at most, one line a call. Every text of a run is hostile
here: control characters are taken out of it, and none of it is ever read as markup.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from ring0.kernel.agent.printed import plain
from ring0.types import Approval, Origin, Shown, Verdict

COLUMNS: Final = 100
_MARK_COLUMNS: Final = 9
_NAME_COLUMNS: Final = 15
_LONG_CHARS: Final = 400
_ROWS_SHOWN: Final = 2
"""Of each table, in a held call's dry run."""

Part = str | tuple[str, str]


def text(*parts: Part) -> Text:
    """A Text of parts, each alone or with its style, fit for a terminal."""
    made = Text()
    for part in parts:
        words, style = part if isinstance(part, tuple) else (part, "")
        made.append(plain(words), style=style or None)
    return made


def line(value: Any, most: int) -> str:
    """A value on one line of at most `most` characters: a text as it is, the rest as JSON."""
    words = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    flat = " ".join(plain(words).split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


class Screen:
    """Prints; decides nothing."""

    def __init__(self) -> None:
        widest = None if sys.stdout.isatty() else COLUMNS
        self.console = Console(markup=False, emoji=False, highlight=False, width=widest)
        if self.console.width > COLUMNS:
            self.console = Console(markup=False, emoji=False, highlight=False, width=COLUMNS)

    def part(self, title: str) -> None:
        """A heading."""
        self.console.print()
        self.console.print(Rule(text((title, "bold")), align="left", style="dim"))

    def say(self, *parts: Part, indent: int = 2) -> None:
        """A paragraph; its wrapped lines begin where the first does."""
        for one in text(*parts).wrap(self.console, self.console.width - indent):
            one.rstrip()
            self.console.print(Text(" " * indent) + one, no_wrap=True, crop=True)

    def fact(self, name: str, *parts: Part) -> None:
        """`name  what it is`; wrapped lines begin where the value does."""
        width = self.console.width - 2 - _MARK_COLUMNS
        for number, one in enumerate(text(*parts).wrap(self.console, width)):
            one.rstrip()
            head = text((f"  {'' if number else name:<{_MARK_COLUMNS}}", "cyan"))
            self.console.print(head + one, no_wrap=True, crop=True)

    def call(self, mark: str, style: str, name: str, what: str, end: str = "") -> None:
        """One call on one line: `allowed  crm.query  SELECT …  read → 1 row`."""
        room = self.console.width - 6 - _MARK_COLUMNS - _NAME_COLUMNS
        end = line(end, room // 2)
        what = line(what, max(8, room - len(end) - 2))
        self.say(
            (f"{mark:<{_MARK_COLUMNS}}", style),
            (f"{line(name, 14):<{_NAME_COLUMNS}}", "bold"),
            what,
            " " * (room - len(what) - len(end)),
            "  " if end else "",
            (end, "dim"),
        )

    def under(self, *parts: Part) -> None:
        """A paragraph that belongs to the call above."""
        self.say(*parts, indent=2 + _MARK_COLUMNS)

    def reasons(self, verdict: Verdict) -> None:
        """Each rule that decided, in its own words."""
        for reason in verdict.reasons:
            self.under((f"rule {reason.rule}: ", "bold"), line(reason.text, _LONG_CHARS))

    def output(self, printed: str) -> None:
        """What an agent's own code printed, bounded."""
        for one in printed.splitlines()[:16]:
            self.under(("│ ", "dim"), (line(one, 180), "dim"))

    def held(self, approval: Approval, shown: Shown) -> None:
        """All that a human needs: what it would take, where it came from, the way back."""
        body = text((line(shown.arguments.get("statement", shown.tool), _LONG_CHARS), "bold"))
        if (given := shown.arguments.get("parameters")) is not None:
            body.append(f"   with {line(given, 80)}")
        body.append("\n\nIt would take, in every table:\n", style="dim")
        for change in _few_rows(shown.dry_run):
            is_row = change.startswith(" ")
            body.append_text(
                text(
                    (
                        "  " + ("  " if is_row else "") + line(change, 86) + "\n",
                        "dim" if is_row else "bold red",
                    )
                )
            )
        body.append("Where its arguments came from:\n", style="dim")
        for origin in shown.origins:
            body.append_text(text("  ", *_origin(origin), "\n"))
        body.append("Why it is held:\n", style="dim")
        for reason in shown.reasons:
            body.append_text(text("  ", (f"{reason.rule}: ", "bold"), line(reason.text, 200), "\n"))
        body.append_text(text(("The way back: ", "dim"), line(shown.reversal, 100)))
        title = text((f"HELD: {line(shown.title, 80)}", "bold yellow"))
        foot = text((f"{approval.id}; also from another terminal: ring0 approve / deny", "dim"))
        self.console.print(
            Panel(
                body,
                title=title,
                title_align="left",
                border_style="yellow",
                subtitle=foot,
                subtitle_align="left",
                width=self.console.width,
            )
        )

    def origins(self, origins: Sequence[Origin]) -> None:
        """The same for a call that was refused."""
        for origin in origins:
            self.under(("its words: ", "dim"), *_origin(origin))

    def check(self, is_good: bool, what: str, detail: str = "") -> None:
        """A check that was made just now, and how it came out."""
        mark = ("ok      ", "bold green") if is_good else ("FAILED  ", "bold red")
        fits = len(what) + len(detail) < self.console.width - 2 - _MARK_COLUMNS - 2
        self.say(
            mark,
            " ",
            (what, "" if is_good else "bold red"),
            (f"  {detail}" if detail and fits else "", "dim"),
        )
        if detail and not fits:
            self.under((line(detail, _LONG_CHARS), "dim"))

    def commands(self, lines: Iterable[tuple[str, str]]) -> None:
        """What to type next; never wrapped, so that it can be copied."""
        for command, what in lines:
            self.console.print(text(("  # " + what, "dim")))
            self.console.print(text("  " + command), soft_wrap=True)


def _few_rows(dry_run: Sequence[str]) -> list[str]:
    """The lines of a dry run with at most two rows of each table: the counts are all there."""
    shown: list[str] = []
    rows: Counter[str] = Counter()
    for change in dry_run:
        table = " ".join(change.split()[:2]) if change.startswith(" ") else ""
        rows[table] += bool(table)
        if rows[table] <= _ROWS_SHOWN:
            shown.append(change)
    return shown


def _origin(origin: Origin) -> tuple[Part, ...]:
    sources = ", ".join(line(source, 60) for source in origin.sources[:3])
    where = sources or "nowhere that the kernel has seen: the model wrote it"
    return (
        f"{line(origin.argument, 30)} = {line(origin.value, 40)}",
        (" ← ", "dim"),
        (where, "bold"),
        (f"  [{origin.integrity}]", "dim"),
    )
