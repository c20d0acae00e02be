"""What all verbs share: the data folder they mean, how they read it, how they run and are stopped.

Reading verbs open the journal without a lock, beside a kernel that is at work or none.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

import typer
import uvloop
from typer.core import TyperCommand

from ring0 import limits
from ring0.cli import output, parts
from ring0.cli.folder import check_home, check_journal
from ring0.errors import Interrupted, InvalidInput, NotFound
from ring0.kernel.undo.planning import AGENT
from ring0.runtime import Runtime
from ring0.store.events import ValuesErased
from ring0.store.sqlite import SqliteStore, open_store
from ring0.store.sqlite.opening import JOURNAL
from ring0.types import Call, Run

T = TypeVar("T")

KEPT: Final = "What was on record is kept."
RUN_KEPT: Final = "The run is kept: `ring0 recover` goes on with it."

_COMMAND: Final = "ring0.command"
_TYPED: Final = "ring0.typed"

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, the beginning of it, or `last`.")
]
Note = Annotated[str, typer.Option("--note", help="Why; it goes on record.")]


@dataclass(frozen=True)
class Place:
    """Where a command works."""

    home: Path
    environment: Mapping[str, str]
    runtime: Runtime

    @property
    def is_new(self) -> bool:
        """Has nothing run here yet?"""
        return not (self.home / JOURNAL).exists()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[SqliteStore]:
        """The journal, to read. Raises StoreDamaged, InvalidInput."""
        check_journal(self.home)
        store = open_store(self.home, self.runtime, write=False)
        try:
            yield store
        finally:
            await store.close()


class WithCommand(TyperCommand):
    """Keeps what follows `--` apart: it is the user's program, and not ours to read."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[_COMMAND] = tuple(args[at + 1 :])
            args = args[:at]
        ctx.meta[_TYPED] = tuple(args)
        return super().parse_args(ctx, args)


def typed_in(context: typer.Context) -> tuple[str, ...]:
    """The words of a `WithCommand` before `--`, as they were typed."""
    found: tuple[str, ...] = context.meta.get(_TYPED, ())
    return found


def command_of(context: typer.Context) -> tuple[str, ...] | None:
    """What followed `--`, of a `WithCommand`; None where there was no `--`."""
    found: tuple[str, ...] | None = context.meta.get(_COMMAND)
    return found


def place_of(context: typer.Context, *, write: bool = False) -> Place:
    """What the global options said. Raises InvalidInput where that can be no data folder."""
    found = context.find_object(Place)
    assert found is not None, "the app's callback sets it"
    check_home(found.home, write=write)
    return found


def work(body: Callable[[], Coroutine[Any, Any, T]], *, kept: str = KEPT) -> T:
    """Runs a command's body. The first Ctrl-C (or SIGTERM, SIGHUP) stops it in order; the second
    ends this process at once and says what is `kept`. Raises Interrupted."""
    stopped = False

    async def guarded() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop(*_: object) -> None:
            nonlocal stopped
            if stopped:
                _end_at_once(kept)
            stopped = True
            try:
                loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:  # The loop is closed: nothing is left to be stopped in order.
                raise KeyboardInterrupt from None

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, stop)
        return await body()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(guarded())
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise Interrupted("Interrupted.", todo="What was on record is kept.") from None
    finally:
        # From here on there is no loop that could be told.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)


def _end_at_once(kept: str) -> NoReturn:
    try:
        os.write(2, f"\nring0: Ended at once. {kept}\n".encode())
    finally:
        os._exit(Interrupted.exit_code)


async def run_named(store: SqliteStore, name: str) -> Run:
    """The run of that id, or that begins so, or the `last` one. Raises NotFound, InvalidInput."""
    if name == "last":
        newest = next(
            (
                row
                for row in await store.runs(most=limits.RUNS_LISTED_MAX)
                if not row.parent and row.agent != AGENT
            ),
            None,
        )
        if newest is None:
            raise NotFound("There is no run yet.", todo='Start one: `ring0 run FILE.py "task"`.')
        return newest
    wanted = name if name.startswith("r-") else f"r-{name}"
    row = await store.run(wanted)
    if row is not None:
        return row
    found = await store.runs_named(wanted) if len(wanted) > 2 else []
    if len(found) > 1:
        raise InvalidInput(
            f"Several runs begin with {name[:40]!r}: {', '.join(found)}.",
            todo="Give more of the id.",
        )
    row = await store.run(found[0]) if found else None
    if row is None:
        raise NotFound(f"There is no run {name[:40]!r}.", todo="`ring0 ps --all` lists them.")
    return row


async def whole_run_named(store: SqliteStore, name: str) -> Run:
    """As `run_named`, for what needs the run's values. Raises InvalidInput where they were erased:
    that is no damage."""
    row = await run_named(store, name)
    if not row.erased:
        return row
    async for entry in store.entries(row.id):
        if isinstance(entry.body, ValuesErased):
            by, note = entry.body.by, f": {entry.body.note}" if entry.body.note else ""
            raise InvalidInput(
                f"What {row.id} was told, said and returned was erased, for good.",
                why=f"{output.line(f'By {by}{note}', 300)}. Its events stand, and their proofs.",
                todo=f"`ring0 show {row.id}` has what is left of it.",
            )
    return row


def _begins(call: str, run: str, name: str) -> bool:
    """Whether a call that is known by its digest is meant by `name`: the beginning of it, or the
    short form in which it is shown."""
    return call.startswith(f"{run}/{name}") or parts.place(call) == name


async def call_named(store: SqliteStore, run: Run | None, name: str) -> Call:
    """A call by its id, by its place in the run (`0/3`), or by its seq (`#12`). Without a run, by
    its id alone. Raises NotFound, InvalidInput."""
    if run is None:
        if not (name.startswith("r-") and "/" in name):
            raise InvalidInput(
                f"{name[:80]!r} is not the full id of a call.",
                why="No run is named here, so a place in a run or a seq could be any run's.",
                todo="Give the full id, `r-…/0/3`: `ring0 show RUN` and `ring0 recover` print it"
                " with each call that is unknown.",
            )
        start, _, rest = name.partition("/")
        run = await run_named(store, start)
        name = rest
    calls = await store.calls(run.id)
    rest = name.removeprefix(f"{run.id}/")
    for call in calls:
        if rest == call.id.removeprefix(f"{run.id}/") or name == f"#{call.seq}":
            return call
    begun = [call for call in calls if rest.startswith("~") and _begins(call.id, run.id, rest)]
    if len(begun) == 1:
        return begun[0]
    raise NotFound(
        f"There is no call {name[:80]!r} in {run.id}.",
        todo=f"`ring0 show {run.id}` lists them: by id, `0/3`, or by seq, `'#12'`.",
    )
