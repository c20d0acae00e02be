"""One MCP server of an agent: started for a run at its first call, checked against its pin, ended
when it misbehaves and started anew for the next call.

Calls of one run go one after the other, so that whatever a server does harms only the call that is
in flight. A server's own state ends with its sandbox.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error, SandboxFailed, ToolFailed
from ring0.runtime import Runtime
from ring0.tools.driver import CallContext, Sandboxes
from ring0.tools.mcp import pins, program
from ring0.tools.mcp.code import Digests
from ring0.tools.mcp.pins import Offer, Pin, Unit
from ring0.tools.mcp.program import Program
from ring0.tools.mcp.settings import Settings
from ring0.tools.reach import Outlet, Reach, open_outlet
from ring0.tools.sandbox import Sandbox
from ring0.tools.sandbox.beneath import Beneath
from ring0.tools.workspace.files import Workspace
from ring0.tools.workspace.inside import Collected, LaidOut, collect, lay_out
from ring0.types import Integrity, Label, ToolManifest

if TYPE_CHECKING:
    from ring0.tools.mcp.http import Requests, Send
    from ring0.tools.mcp.session import Reached, Session

T = TypeVar("T")

_SESSION = "ring0.tools.mcp.session"
"""Imports the library, which takes half a second: in a thread, when the first server starts."""


class Done(msgspec.Struct, Generic[T], kw_only=True):
    """What came of a call."""

    answer: T
    collected: Collected | None
    label: Label
    """Of what the server could read of the run's files."""


class CutOff(Exception):
    """The call was sent, and no answer came; the message says why."""


class _Live(msgspec.Struct, kw_only=True):
    """A server at work for one run."""

    lock: asyncio.Lock
    session: Session | None = None
    requests: Requests | None = None
    """Its wire, where it runs elsewhere."""
    sandbox: Sandbox | None = None
    sandboxes: Sandboxes | None = None
    outlet: Outlet | None = None
    code: tuple[Unit, ...] = ()
    laid: LaidOut
    watched: frozenset[str] = frozenset()
    """Resources of which the run wants to hear when they change."""
    suspect: bool = False
    """A call was cancelled, and nobody has looked since whether it still answers."""


class Server:
    """A server as its agent's manifest names it."""

    def __init__(
        self,
        instance: str,
        settings: Settings,
        folder: Path,
        runtime: Runtime,
        *,
        send: Send | None = None,
        reach: Reach | None = None,
    ) -> None:
        self.instance = instance
        self.settings = settings
        self._folder = folder
        self._runtime = runtime
        self._send = send
        self._reach = reach
        self._program: Program | None = None
        self._live: dict[str, _Live] = {}
        self._hearing: dict[str, Callable[[str], None]] = {}

    async def call(
        self, pin: Pin, ask: Callable[[Session], Awaitable[T]], wall_s: float,
        manifest: ToolManifest, context: CallContext,
    ) -> Done[T]:  # fmt: skip
        """One call: what `ask` says to it. Raises ToolFailed before or after it was done cleanly,
        ToolChanged where the server is another one, CutOff where nobody knows."""
        live = self._live.setdefault(context.run.id, _Live(lock=asyncio.Lock(), laid=LaidOut()))
        async with live.lock:
            if live.requests is not None:
                live.requests.by = context  # Whose call it is, says whose token it gets.
            session = await self._ready(live, pin, context)
            if self.settings.workspace:
                # For the whole call: what another call has written and not recorded yet is not
                # in the workspace, and would be taken out of /work as if it had been removed.
                await context.workspace.turn()
                live.laid = await lay_out(context.workspace, _files(live), self._runtime, live.laid)
            laid = live.laid.label
            outlet = live.outlet
            async with outlet.during(manifest, context) if outlet else nullcontext():
                answer = await self._ask(live, session, ask, wall_s)
            source = f"{manifest.name}@{context.call}"
            said = Label(integrity=Integrity.UNTRUSTED, sources=(source,))
            label = context.run.label.join(said).join(laid)
            collected = await self._collected(live, context.workspace, label)
            return Done(answer=answer, collected=collected, label=laid)

    def hear(self, run: str, updated: Callable[[str], None]) -> None:
        """`updated` is told of each resource that has changed and that the run watches."""
        self._hearing[run] = updated

    async def watch(self, run: str, session: Session, uri: str, *, on: bool) -> Reached:
        """Whether the run hears of that resource. Raises ToolFailed, Gone."""
        live = self._live[run]
        wanted = live.watched | {uri} if on else live.watched - {uri}
        if len(wanted) > limits.MCP_WATCHED_MAX:
            raise ToolFailed(
                f"{limits.MCP_WATCHED_MAX} resources of {self.instance} are watched already.",
                todo="Watch fewer.",
            )
        reached = await session.watch(wanted, lambda changed: self._updated(run, changed))
        live.watched = wanted
        return reached

    def _updated(self, run: str, uri: str) -> None:
        if (hears := self._hearing.get(run)) is not None:
            hears(uri)

    async def close(self) -> None:
        """Ends it for every run. Any number of times."""
        for live in list(self._live.values()):
            await self._end(live)

    # --- one call -------------------------------------------------------------------------------

    async def _ask(
        self, live: _Live, session: Session, ask: Callable[[Session], Awaitable[T]], wall_s: float
    ) -> T:
        from ring0.tools.mcp.session import Gone

        try:
            return await self._runtime.wait_for(ask(session), wall_s)
        except TimeoutError:
            if not await session.answers():
                await self._end(live)
            raise CutOff(f"it took longer than {wall_s:g} s") from None
        except Gone as error:
            await self._end(live)
            raise CutOff(str(error)) from None
        except asyncio.CancelledError:
            live.suspect = True  # The server has been told; whether it heard is seen next time.
            raise
        finally:
            if session.over:
                await self._end(live)

    async def _collected(self, live: _Live, workspace: Workspace, label: Label) -> Collected | None:
        if not self.settings.workspace or live.sandbox is None:
            return None
        try:
            collected = await collect(workspace, _files(live), live.laid, self._runtime, label)
        except Ring0Error as error:
            raise ToolFailed(
                f"What {self.instance} left in /work was not taken: {error.what}",
                why=error.why,
                todo=error.todo,
            ) from None
        live.laid = collected.laid
        return collected

    # --- a server's life ------------------------------------------------------------------------

    async def _ready(self, live: _Live, pin: Pin, context: CallContext) -> Session:
        """The server at work, and still the one that was approved."""
        if live.session is not None and live.suspect and not await live.session.answers():
            await self._end(live)
        live.suspect = False
        if live.session is not None and live.session.over:
            await self._end(live)
        if live.session is None:
            return await self._start(live, pin, context)
        age_us = self._runtime.monotonic_us() - live.session.listed_us
        if live.session.list_changed or age_us > limits.MCP_LISTING_AGE_S_MAX * 1_000_000:
            # Its code, too: a program may load more of it at any time.
            await self._check_code(live, pin)
            await self._compare(live, live.session, pin)
        return live.session

    async def _check_code(self, live: _Live, pin: Pin) -> None:
        """Raises ToolChanged, and ends the server, where its code is not what was approved."""
        live.code = await self.code()
        if live.code != pin.code:
            await self._end(live)
            raise pins.changed(self.instance, self._lines(pin, live.code, pin.offer))

    async def _start(self, live: _Live, pin: Pin, context: CallContext) -> Session:
        await self._check_code(live, pin)  # Before any of it runs.
        try:
            session = await self._open(live, context.run.id, context.sandboxes, context)
            await self._compare(live, session, pin)
            if live.watched:  # By the one that ended.
                run = context.run.id
                await session.watch(live.watched, lambda uri: self._updated(run, uri))
        except BaseException:
            await self._end(live)
            raise
        return session

    async def _compare(self, live: _Live, session: Session, pin: Pin) -> None:
        """Raises ToolChanged, and ends the server, where it is not what was approved."""
        offer = await session.offer()
        if self._now(live.code, offer).digest != pin.digest:
            await self._end(live)
            raise pins.changed(self.instance, self._lines(pin, live.code, offer))

    async def _open(
        self, live: _Live, run: str, sandboxes: Sandboxes, context: CallContext | None
    ) -> Session:
        """Starts it and shakes hands. `context`: the call that needs it; None: a person does."""
        await self._runtime.in_thread(importlib.import_module, _SESSION)
        from ring0.tools.mcp.http import Requests
        from ring0.tools.mcp.session import Session
        from ring0.tools.mcp.wire import Pipes, Wire

        wire: Wire
        if self.settings.command:
            live.laid = LaidOut()
            live.sandboxes = sandboxes
            sandbox = live.sandbox = await self._sandbox(live, run, sandboxes)
            wire = Pipes(sandbox.stdin, sandbox.stdout, sandbox.stderr)
        else:
            assert self._send is not None, "drivers() looked"
            wire = live.requests = Requests(self.settings.url, self._send, self._runtime)
            wire.by, wire.answering = context, bool(self.settings.answers)
        session = Session(wire, self._runtime, self.instance, self.settings.answers)
        await session.open()
        live.session = session
        return session

    async def _sandbox(self, live: _Live, run: str, sandboxes: Sandboxes) -> Sandbox:
        assert self._program is not None, "its code was looked at"

        async def before_go(sandbox: Sandbox) -> None:
            if self.settings.egress and self._reach is not None:
                live.outlet = await open_outlet(self._reach, sandbox, self.settings.egress)

        spec = program.spec(self.settings, self._program)
        return await sandboxes.start(run, spec, f"mcp {self.instance}", before_go)

    async def _end(self, live: _Live) -> None:
        session, sandbox, outlet = live.session, live.sandbox, live.outlet
        live.session = live.sandbox = live.outlet = live.requests = None
        live.laid = LaidOut()
        if outlet is not None:
            await outlet.close()
        if session is not None:
            await session.close()
        if sandbox is not None and live.sandboxes is not None:
            await live.sandboxes.end(sandbox)
            if sandbox.files is not None:
                sandbox.files.close()

    # --- what it is -----------------------------------------------------------------------------

    async def code(self) -> tuple[Unit, ...]:
        """The digests of all its code, as it is now. Raises ManifestInvalid."""
        if not self.settings.command:
            return ()
        return await self._runtime.in_thread(self._code)

    def _code(self) -> tuple[Unit, ...]:
        self._program = program.find(self.instance, self.settings, self._folder)
        return program.units(self.instance, self._program, _DIGESTS)

    async def inspect(self, sandboxes: Sandboxes) -> Pin:
        """Starts it, asks what it offers, and ends it. For a person who decides whether to approve
        it. Raises ToolFailed, ManifestInvalid, SandboxUnavailable."""
        live = _Live(lock=asyncio.Lock(), laid=LaidOut())
        live.code = await self.code()
        try:
            session = await self._open(live, "kernel", sandboxes, None)
            offer = await session.offer()
        finally:
            await self._end(live)
        return self._now(live.code, offer)

    def _now(self, code: tuple[Unit, ...], offer: Offer) -> Pin:
        said = self.settings
        return Pin(
            command=said.command, env=said.env, url=said.url, workspace=said.workspace,
            code=code, offer=offer,
        )  # fmt: skip

    def _lines(self, pin: Pin, code: tuple[Unit, ...], offer: Offer) -> list[str]:
        return pins.differences(pin, self._now(code, offer))


_DIGESTS = Digests()
"""Of files that nobody has touched since: for all servers of this process."""


def _files(live: _Live) -> Beneath:
    if live.sandbox is None or live.sandbox.files is None:
        raise SandboxFailed(
            "The sandbox has no folder for the run's files.",
            why="Its tier gave none.",
            todo="Name another `tier` for the server; `ring0 doctor` lists them.",
        )
    return live.sandbox.files
