"""`logs`: the journal as lines, of one tree of runs or of all, filtered, and followed as it grows.

Not here: a run with its values as a tree (tree.py), what its process prints (`follow`).
"""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args

import typer
from rich.text import Text

from ring0 import limits
from ring0.cli import lengths, output
from ring0.cli.outlet import forgive
from ring0.cli.output import console, line, put, text
from ring0.cli.parts import STYLES, named
from ring0.cli.parts import place as place_of_call
from ring0.cli.place import Json, Place, place_of, run_named, work
from ring0.errors import InvalidInput
from ring0.kernel.trees import beneath
from ring0.observability.telemetry import lines
from ring0.store import events as ev
from ring0.store.sqlite import SqliteStore
from ring0.types import ApprovalState, CallKind, CallState, Reason, Run, RunState, VerdictKind


def add_to(app: typer.Typer) -> None:
    app.command("logs")(logs)


@dataclass(frozen=True)
class Filter:
    """Which lines are wanted. What is empty keeps nothing back."""

    kinds: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    words: str = ""
    since_us: int = 0

    def wants(self, entry: ev.Entry, told: dict[str, Any]) -> bool:
        if entry.at_us < self.since_us:
            return False
        if self.kinds and not {told["event"], told.get("kind")} & {*self.kinds}:
            return False
        if self.states and told.get("state") not in self.states:
            return False
        if self.verdicts and told.get("verdict") not in self.verdicts:
            return False
        if self.rules and not {*told.get("rules", ())} & {*self.rules}:
            return False
        said = json.dumps(told, ensure_ascii=False).casefold() if self.words else ""
        return self.words.casefold() in said


def logs(
    context: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", help="A run, with all beneath it; else all of them.")
    ] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as the journal grows; Ctrl-C ends it.")
    ] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="Events, or kinds of call: tool, model, call-refused, ….",
                     show_default=False),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", help="ok, error, refused, waiting, done, ….", show_default=False),
    ] = None,
    verdict: Annotated[
        list[str] | None,
        typer.Option("--verdict", help="allow, deny or ask.", show_default=False),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", help="Decided by this rule.", show_default=False),
    ] = None,
    grep: Annotated[str, typer.Option("--grep", help="With these words in the line.")] = "",
    since: Annotated[str, typer.Option("--since", help="Not older: 30 s, 10 min, 2 h.")] = "",
    last: Annotated[
        int, typer.Option("--last", min=0, max=limits.LOGS_LAST_MAX, help="The newest; 0: all.")
    ] = 0,
    why: Annotated[bool, typer.Option("--why", help="With the reasons of each verdict.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Print the journal as lines; as JSON, one object a line, with run, seq, trace and span ids."""
    place = place_of(context)
    _check("--kind", kind, _KINDS)
    _check("--state", state, _STATES)
    _check("--verdict", verdict, _VERDICTS)
    wanted = Filter(
        tuple(kind or ()), tuple(state or ()), tuple(verdict or ()), tuple(rule or ()), grep,
        _since_us(since, place.runtime.now_us()),
    )  # fmt: skip
    work(lambda: _logs(place, run, wanted, last, follow=follow, why=why, as_json=as_json))


_KINDS = frozenset(CallKind) | {str(event.__struct_config__.tag) for event in get_args(ev.AnyEvent)}
_STATES = frozenset(CallState) | frozenset(RunState) | frozenset(ApprovalState)
_VERDICTS = frozenset(VerdictKind)


def _check(option: str, given: Sequence[str] | None, words: Iterable[str]) -> None:
    """A word that no line can have would read as "there was none". Raises InvalidInput."""
    for word in given or ():
        if word not in words:
            raise InvalidInput(
                f"{option} {word[:40]!r} is in no journal.",
                why="It would find nothing, as if nothing had happened.",
                todo=f"One of {', '.join(sorted(words))}.",
            )


def _since_us(given: str, now_us: int) -> int:
    if not given:
        return 0
    since_s = lengths.seconds(given)
    if since_s is None:
        raise InvalidInput(
            f"--since {given[:40]!r} is no length of time.", todo="Write it like 30 s, 10 min, 2 h."
        )
    return now_us - since_s * 1_000_000


async def _logs(
    place: Place, run: str, wanted: Filter, last: int, *, follow: bool, why: bool, as_json: bool
) -> None:
    forgive(sys.stdout)
    async with place.reading() as store:
        row = await run_named(store, run) if run else None
        book = _Book(store, row.root if row else "")
        place_now = (await store.head()).size - 1
        found = _all(store, place_now) if row is None else await _placed(store, row, place_now)
        tail: deque[Line] = deque(maxlen=last or None)
        for entry in found:
            said = await book.line(entry, wanted)
            if said is not None and last:
                tail.append(said)
            elif said is not None:
                _print(said, why=why, as_json=as_json)
        for said in tail:
            _print(said, why=why, as_json=as_json)
        while follow:
            for index, _, entry in store.stored_after(place_now, limits.LOGS_PAGE_ENTRIES):
                place_now = index
                if not await book.is_of_tree(entry.run):
                    continue
                if (said := await book.line(entry, wanted)) is not None:
                    _print(said, why=why, as_json=as_json)
            await place.runtime.sleep(limits.RUN_FOLLOWED_POLL_S)


def _all(store: SqliteStore, through: int) -> Iterator[ev.Entry]:
    index = -1
    while page := store.stored_after(index, limits.LOGS_PAGE_ENTRIES):
        for index, _, entry in page:
            if index > through:
                return
            yield entry


async def _placed(store: SqliteStore, row: Run, through: int) -> Iterator[ev.Entry]:
    """Those of a run and of all beneath it, in the order of the log."""
    found: list[tuple[int, ev.Entry]] = []
    for run in await beneath(store, row):
        found += [placed async for placed in store.placed(run.id) if placed[0] <= through]
    return iter([entry for _, entry in sorted(found, key=lambda one: one[0])])


Line = tuple[dict[str, Any], tuple[Reason, ...]]
"""What is told of an entry, and the reasons of the verdict that it tells of."""


@dataclass
class _Book:
    """Rows that lines are made with."""

    store: SqliteStore
    root: str
    """Of the tree that is looked at; empty: all of them."""
    runs: dict[str, Run] = field(default_factory=dict)

    async def run(self, name: str) -> Run | None:
        if name == ev.KERNEL:
            return None
        if name not in self.runs:
            row = await self.store.run(name)
            if row is None:
                return None
            if len(self.runs) >= limits.OTLP_KEPT_RUNS_MAX:
                self.runs.clear()
            self.runs[name] = row
        return self.runs[name]

    async def line(self, entry: ev.Entry, wanted: Filter) -> Line | None:
        """None where it is not wanted."""
        name = lines.call_of(entry)
        call = await self.store.call(name) if name else None
        told = lines.told(entry, await self.run(entry.run), call)
        if not wanted.wants(entry, told):
            return None
        decides = isinstance(entry.body, ev.CallIntended | ev.CallRefused | ev.ApprovalAsked)
        return told, call.verdict.reasons if decides and call is not None else ()

    async def is_of_tree(self, run: str) -> bool:
        if not self.root:
            return True
        row = await self.run(run)
        return row is not None and row.root == self.root


def _print(said: Line, *, why: bool, as_json: bool) -> None:
    told, reasons = said
    if as_json:
        more = {"reasons": [reason.text for reason in reasons]} if why else {}
        sys.stdout.write(json.dumps(told | more, ensure_ascii=True) + "\n")
        sys.stdout.flush()
        return
    out = console()
    put(out, _shown(told))
    for reason in reasons if why else ():
        put(out, text((f"{line(reason.rule, 80)}: ", "dim bold"), (line(reason.text), "dim")), 4)


def _shown(told: dict[str, Any]) -> Text:
    moment = told["at"][11:23]
    parts: list[str | tuple[str, str]] = [
        (moment, "dim"), "  ", (f"{told['run']:<14} ", "cyan"), (f"#{told['seq']:<5} ", "dim"),
        (f"{told['event']:<18}", "bold"),
    ]  # fmt: skip
    if "call" in told:
        name = named(told["kind"], told["name"])
        parts += [f"{place_of_call(told['call'])}  ", (line(name, 100), "")]
        if told["event"] in ("call-intended", "call-refused"):
            parts.append((f"  by {line(', '.join(told['rules']), 200)}", "dim"))
    if state := told.get("state"):
        parts.append((f"  {state}", STYLES.get(state, "")))
    if waits := told.get("waiting_for"):
        parts.append(f" ({line(waits, 40)})")
    if "took_us" in told:
        parts.append((f"  {output.lasted(0, told['took_us'])}", "dim"))
    if cost := told.get("cost_microusd"):
        parts.append(f"  {output.money(cost)}")
    if tokens := told.get("tokens"):
        parts.append((f"  {tokens:,} tokens", "dim"))
    if by := told.get("by"):
        parts.append((f"  by {line(by, 100)}", "dim"))
    return text(*parts)
