"""The kernel's side of a sandbox: starts its program, sees it end, kills it.

How one is made is host.py. One sandbox runs one program, once.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final, NamedTuple

from ring0 import limits
from ring0.errors import Ring0Error, SandboxFailed
from ring0.runtime import Runtime
from ring0.tools.sandbox import cgroups, trouble
from ring0.tools.sandbox.beneath import Beneath
from ring0.tools.sandbox.cgroups import Group, Usage
from ring0.tools.sandbox.control import Control
from ring0.tools.sandbox.process import Exit, Identity, Init, not_dead, program_dead
from ring0.tools.sandbox.spec import SandboxSpec, class_of, program_fields

TIER: Final = "ns"
_OWN_INIT: Final = (TIER, "landlock")
"""Tiers whose first process is an init of ours, and what that began first is the program."""


class Streams(NamedTuple):
    """A program's standard streams, and the transports that feed the two readers."""

    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    reading: tuple[asyncio.ReadTransport, ...]


class Handed(NamedTuple):
    """What a sandbox gave away when it was ready. All of it non-blocking, the sockets listening."""

    tcp: socket.socket | None = None
    unix: socket.socket | None = None
    proxy: socket.socket | None = None
    files: Beneath | None = None

    def close(self) -> None:
        for part in self:
            if part is not None:
                part.close()


class Parts(NamedTuple):
    """What a sandbox is made of, on this side."""

    init: Init
    control: Control
    go: Control
    streams: Streams
    handed: Handed
    group: Group | None


class Sandbox:
    """A sandbox that is made. Nothing of the tenant's runs before `go`.

    The caller ends every sandbox with `kill`, and closes `tcp`, `unix`, `proxy` and `files`, which
    are its own from here on; `close` does all of that."""

    def __init__(self, spec: SandboxSpec, runtime: Runtime, parts: Parts) -> None:
        self.identity: Identity = parts.init.identity
        self.stdin, self.stdout, self.stderr, self._reading = parts.streams
        self.tcp, self.unix, self.proxy, self.files = parts.handed
        self.tcp_port: int = limits.DOOR_PORT if self.tcp else 0
        self.tier: str = TIER
        self.stopped: str = ""
        """The total that it used up, `memory` or `cpu`, where it was ended for that."""
        self._spec = spec
        self._class = class_of(spec)
        self._uid = spec.host_uid
        self._runtime = runtime
        self._parts = parts
        self._went = False
        self._usage: Usage | None = None
        self._totals: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._ended = runtime.start(self._watch(), name=f"sandbox-{self.identity.pid}")

    @property
    def uid(self) -> int:
        """The uid of its processes, as the host sees it."""
        own = os.geteuid()
        return own if own != 0 or self._uid is None else self._uid

    @property
    def alive(self) -> bool:
        """False once every process of it is gone."""
        return not self._ended.done()

    def take_up(self, spec: SandboxSpec) -> None:
        """Give a parked sandbox the program that it is for: `spec` is of the same class."""
        assert not self._went, "it has run"
        assert class_of(spec) == self._class, "a sandbox of another class"
        self._spec = spec

    async def go(self) -> None:
        """Start the program, once. `InvalidInput` if it isn't there, `SandboxFailed` if the sandbox
        is dead."""
        if self._went:
            raise SandboxFailed("The sandbox has been started before: it runs one program, once.")
        self._went = True
        program = program_fields(self._spec)
        try:
            self._send(program)
            group = self._parts.group
            if group is not None and self.alive:  # one that is parked uses up nothing
                self._totals = self._runtime.start(self._watch_totals(group), name="totals")
            refused = await self._runtime.wait_for(self._answer(), limits.SANDBOX_START_S_MAX)
        except TimeoutError:
            await self.kill()
            raise SandboxFailed(
                "The sandbox did not start its program.",
                why=f"It took more than {limits.SANDBOX_START_S_MAX} s.",
            ) from None
        finally:
            self._parts.go.close()
        if refused is not None:
            raise refused

    async def wait(self) -> Exit:
        """How the program ended; returns when every process of the sandbox is gone."""
        return await asyncio.shield(self._ended)

    async def dead(self) -> None:
        """Returns the moment the program is known to be over: before its cgroup is cleared away,
        and before the last of its processes is gone."""
        if self.tier not in _OWN_INIT:
            await self._over.wait()
            return
        watching = self._runtime.start(program_dead(self.identity.pid), name="program")
        over = self._runtime.start(self._over.wait(), name="over")
        try:
            await asyncio.wait({watching, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            over.cancel()

    async def kill(self) -> None:
        """End every process of the sandbox; returns when they are gone, any number of times.
        What was printed and not read yet may be lost. `SandboxFailed` if they don't go."""
        self._parts.init.kill()
        try:
            await self._runtime.wait_for(asyncio.shield(self._ended), limits.SANDBOX_KILL_S_MAX)
        except TimeoutError:
            raise not_dead(self.identity) from None
        self.stdin.close()
        for transport in self._reading:
            transport.close()

    async def close(self) -> None:
        """`kill`, and let go of what it handed over."""
        try:
            await self.kill()
        finally:
            self._parts.handed.close()

    def stats(self) -> Usage:
        """What it has used so far, or had used in the end; -1 for what this machine can't tell."""
        if self._usage is not None:
            return self._usage
        return self._parts.group.usage() if self._parts.group else Usage()

    def _send(self, program: dict[str, object]) -> None:
        try:
            self._parts.go.send(program, announced=True)
        except OSError:
            raise _dead() from None

    async def _answer(self) -> Ring0Error | None:
        """What became of the start. The socket's end says that it runs: another program has taken
        the place of the process (which has said that it would), or Python runs the source. (One
        that is killed at this very moment has started, and `wait` tells of its end.)"""
        going = bool(self._spec.code)
        while (heard := await self._parts.go.receive()) is not None:
            message, fds = heard
            _close(fds)
            if message.step == "refused":
                name, cwd = (self._spec.argv or ("-c",))[0], self._spec.cwd
                return trouble.not_started(message.at, message.errno, name, cwd, message.detail)
            going = message.step == "going"
        return None if going else _dead()

    async def _watch(self) -> Exit:
        """Until the end. Init is ours, but it has the tenant's uid: what it says is not trusted."""
        said: Exit | None = None
        group = self._parts.group
        try:
            while (heard := await self._parts.control.receive()) is not None:
                message, fds = heard
                _close(fds)
                self._over.set()
                if message.step == "exit":
                    said = Exit(message.code, message.signal)
                else:
                    self._parts.init.kill()
            self._over.set()  # Nobody is at the other end: init is dead, or as good as that.
            seen = await self._parts.init.gone()
        finally:
            self._over.set()
            if self._totals is not None:
                self._totals.cancel()
        self._parts.control.close()
        self._parts.go.close()
        if group is not None:
            self._usage = group.usage()
            self.stopped = self.stopped or ("memory" if self._usage.memory_kills else "")
            group.give_back()
        return said or seen

    async def _watch_totals(self, group: Group) -> None:
        await self._runtime.sleep(limits.SANDBOX_WATCH_MS / 1_000)
        self.stopped = await cgroups.watch(group, self._spec.limits.cpu_s, self._runtime)
        self._parts.init.kill()


def _dead() -> SandboxFailed:
    return SandboxFailed("The sandbox is dead.", why="It ended before its program ran.")


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
