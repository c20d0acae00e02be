"""Makes one sandbox, up to where its program could start, or nothing at all.

Everything that is open half-way is in one place, so that an error or a cancel leaves no process, no
descriptor and no cgroup behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Callable, Sequence
from io import FileIO
from typing import Literal, Protocol

from ring0 import limits
from ring0.errors import Ring0Error, SandboxFailed
from ring0.runtime import Runtime
from ring0.tools.sandbox import cgroups, trouble
from ring0.tools.sandbox.beneath import Beneath
from ring0.tools.sandbox.cgroups import Group
from ring0.tools.sandbox.control import Control
from ring0.tools.sandbox.mounts import Mount, runtime_mounts
from ring0.tools.sandbox.process import Exit, Identity, Init, confirm_dead, not_dead
from ring0.tools.sandbox.sandbox import Handed, Parts, Sandbox, Streams
from ring0.tools.sandbox.spec import SandboxLimits, SandboxSpec, making_fields, program_fields
from ring0.tools.sandbox.zygote import Zygote, ZygoteGone, Zygotes

__all__ = [
    "Exit",
    "Identity",
    "Mount",
    "Sandbox",
    "SandboxLimits",
    "SandboxSpec",
    "confirm_dead",
    "launch",
    "make",
    "runtime_mounts",
]


async def launch(spec: SandboxSpec, runtime: Runtime, zygotes: Zygotes | None = None) -> Sandbox:
    """Make a sandbox, up to where its program could start. `SandboxUnavailable` when this machine
    can't, with the step and what to do; `SandboxFailed` when it should have; `InvalidInput` for a
    spec that can't be.

    With `zygotes`, from one that is kept; without, from one that is started and ended for this."""
    program_fields(spec)
    return await make(spec, runtime, zygotes)


async def make(spec: SandboxSpec, runtime: Runtime, zygotes: Zygotes | None = None) -> Sandbox:
    """`launch`, where what is to run is not known yet (the pool)."""
    fields = making_fields(spec)
    image = spec.image
    if zygotes is None:
        apart = Zygotes(runtime) if image else None
        zygote = apart.of(image) if apart else Zygote(site=bool(spec.code))
        made = None
        try:
            made = await make_from(spec, fields, runtime, zygote)
        finally:
            leaving = apart.close() if apart else zygote.close(runtime)
            ending = runtime.start(leaving, name="zygote-ends")
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:  # else nobody would know of what was made
                await ending
                if made is not None:
                    await made.close()
                raise
        return made
    try:
        return await make_from(spec, fields, runtime, zygotes.of(image))
    except ZygoteGone:  # once more, with the next one
        return await make_from(spec, fields, runtime, zygotes.of(image))


class Maker(Protocol):
    """What a sandbox's init comes from: a zygote, or what another tier has in its place."""

    async def clone(self, fds: Sequence[int], *, user_namespace: bool) -> Init: ...

    def kill(self) -> None: ...


async def make_from(
    spec: SandboxSpec,
    fields: dict[str, object],
    runtime: Runtime,
    zygote: Maker,
    kind: Callable[[SandboxSpec, Runtime, Parts], Sandbox] = Sandbox,
) -> Sandbox:
    """`make`, of what the other tiers ask for."""
    making = _Making(spec, runtime)
    try:
        parts = await runtime.wait_for(making.finish(fields, zygote), limits.SANDBOX_START_S_MAX)
    except BaseException as error:
        await making.undo(zygote)
        if isinstance(error, TimeoutError):
            raise SandboxFailed(
                "The sandbox was not ready in time.",
                why=f"It took more than {limits.SANDBOX_START_S_MAX} s.",
                todo="Look at the machine's load.",
            ) from None
        raise
    return kind(spec, runtime, parts)


class _Output(asyncio.StreamReaderProtocol):
    """What a program prints. Its pipe is closed at the end; uvloop would keep it open."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


class _Making:
    """One sandbox on its way. Holds what is open until a Sandbox owns it."""

    def __init__(self, spec: SandboxSpec, runtime: Runtime) -> None:
        self._spec = spec
        self._runtime = runtime
        self._birth: asyncio.Task[Init] | None = None
        self._group: Group | None = None
        self._handed = Handed()
        self._transports: list[asyncio.BaseTransport] = []
        self._theirs: list[int] = []
        self._pipes: list[int] = []
        self._ours: list[Control] = []

    async def finish(self, fields: dict[str, object], zygote: Maker) -> Parts:
        """All the steps. Raises what the zygote or init says otherwise."""
        try:
            control, go = self._open()
            self._ask(fields, control)
        except OSError as error:
            raise SandboxFailed(
                "The sandbox could not be made.",
                why=str(error.strerror),
                todo="Look at how many files this process has open, and may have.",
            ) from None
        # In a task of its own, which nobody cancels: the sandbox may be born at any moment.
        self._birth = self._runtime.start(
            zygote.clone(self._theirs, user_namespace=not fields["host_uid"]), name="birth"
        )
        init = await asyncio.shield(self._birth)
        self._close_theirs()
        streams = await self._streams()
        await self._ready(control)
        return Parts(init, control, go, streams, self._handed, self._group)

    def _open(self) -> tuple[Control, Control]:
        for _ in range(2):
            ours, theirs = Control.pair()
            self._ours.append(ours)
            self._theirs.append(theirs)
        for ours_at in (1, 0, 0):
            pipe = os.pipe()
            self._pipes.append(pipe[ours_at])
            self._theirs.append(pipe[1 - ours_at])
        return self._ours[0], self._ours[1]

    def _ask(self, fields: dict[str, object], control: Control) -> None:
        """Tell the init that is to be what to make, and where to go first. It waits in the socket,
        so that the zygote never sees it."""
        name = self._runtime.new_id("box")
        self._group = cgroups.take(name, self._spec.limits)
        fds = self._group.join_fds() if self._group else []
        try:
            control.send(fields, fds)
        finally:
            for fd in fds:
                os.close(fd)

    async def _streams(self) -> Streams:
        """The program's standard streams, ours from here on."""
        loop = asyncio.get_running_loop()
        readers = asyncio.StreamReader(), asyncio.StreamReader()
        reading: list[asyncio.ReadTransport] = []
        for reader in reversed(readers):
            told = functools.partial(_Output, reader)
            heard, _ = await loop.connect_read_pipe(told, self._next_pipe("rb"))
            reading.append(heard)
            self._transports.append(heard)
        # A reader protocol for a writing end: the only public one that knows flow control.
        transport, writing = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), self._next_pipe("wb")
        )
        self._transports.append(transport)
        writer = asyncio.StreamWriter(transport, writing, None, loop)
        return Streams(writer, *readers, reading=tuple(reading))

    def _next_pipe(self, mode: Literal["rb", "wb"]) -> FileIO:
        """Whoever is given it closes it, also where a cancel comes; the others stay in the list."""
        return os.fdopen(self._pipes.pop(), mode, 0)

    async def _ready(self, control: Control) -> None:
        """Until init says so."""
        while (heard := await control.receive()) is not None:
            message, fds = heard
            if message.step == "built":
                self._take(fds)
                continue
            for fd in fds:
                os.close(fd)
            if message.step == "ready":
                return
            if message.step == "failed":
                raise trouble.refused_by_linux(message.at, message.errno, message.detail)
        raise SandboxFailed("The sandbox ended while it was being made.")

    def _take(self, fds: list[int]) -> None:
        spec = self._spec
        wanted = (spec.doors, spec.doors, spec.egress, spec.workspace)
        if len(fds) != sum(wanted):
            for fd in fds:
                os.close(fd)
            raise SandboxFailed("The sandbox did not hand over what was asked for.")
        rest = iter(fds)
        tcp, unix, proxy = (
            socket.socket(fileno=next(rest)) if asked else None for asked in wanted[:3]
        )
        for listener in (tcp, unix, proxy):
            if listener is not None:
                listener.setblocking(False)
        self._handed = Handed(tcp, unix, proxy, Beneath(next(rest)) if spec.workspace else None)

    async def undo(self, zygote: Maker) -> None:
        """End a half-made sandbox, however far it came."""
        init = await self._born(zygote)
        self._close_theirs()
        for ours in self._ours:
            ours.close()
        for fd in self._pipes:
            os.close(fd)
        for transport in self._transports:
            transport.close()
        self._handed.close()
        if init is not None:
            init.kill()
            try:
                await self._runtime.wait_for(init.gone(), limits.SANDBOX_KILL_S_MAX)
            except TimeoutError:
                raise not_dead(init.identity) from None
        if self._group is not None:
            self._group.give_back()

    async def _born(self, zygote: Maker) -> Init | None:
        """The init, if there is one. A zygote that doesn't say is killed."""
        if self._birth is None:
            return None
        with contextlib.suppress(Ring0Error):
            try:
                return await self._runtime.wait_for(
                    asyncio.shield(self._birth), limits.SANDBOX_KILL_S_MAX
                )
            except TimeoutError:
                zygote.kill()
                return await self._birth
        return None

    def _close_theirs(self) -> None:
        for fd in self._theirs:
            os.close(fd)
        self._theirs = []
