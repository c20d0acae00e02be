"""The kernel's side of a sandbox: asks for one, starts its program, sees it end, kills it.

The making is launcher.py, a process of its own. One sandbox runs one program, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import os
import socket
import subprocess
import sys
from array import array
from typing import Final, NamedTuple

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error, SandboxFailed, SandboxUnavailable
from ring0.runtime import Runtime
from ring0.tools.sandbox import trouble
from ring0.tools.sandbox.mounts import Mount, runtime_mounts
from ring0.tools.sandbox.process import (
    Exit,
    Identity,
    Init,
    confirm_dead,
    identify,
    not_dead,
    readable,
)
from ring0.tools.sandbox.spec import SandboxLimits, SandboxSpec, launcher_fields

__all__ = [
    "Exit",
    "Identity",
    "Mount",
    "Sandbox",
    "SandboxLimits",
    "SandboxSpec",
    "confirm_dead",
    "launch",
    "runtime_mounts",
]

LAUNCHER: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")
_MESSAGE_SIZE_BYTES_MAX: Final = 8 * limits.KIB
_Doors = tuple[socket.socket, socket.socket, int]


class _Streams(NamedTuple):
    """A program's standard streams, and the transports that feed the two readers."""

    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    reading: tuple[asyncio.ReadTransport, ...]


class _Message(msgspec.Struct, frozen=True):
    """What the launcher says. Steps: born, ready, failed; started, refused, exit."""

    step: str
    pid: int = 0
    port: int = 0
    at: str = ""
    errno: int = 0
    detail: str = ""
    code: int | None = None
    signal: int | None = None


class Sandbox:
    """A sandbox that is made. Nothing of the tenant's runs before `go`.

    The caller ends every sandbox with `kill`, and closes the listeners `tcp` and `unix`, which are
    its own from here on (non-blocking, already listening)."""

    def __init__(
        self, spec: SandboxSpec, runtime: Runtime, control: _Control, init: Init,
        streams: _Streams, doors: _Doors | None,
    ) -> None:  # fmt: skip
        self.identity: Identity = init.identity
        self.stdin, self.stdout, self.stderr, self._reading = streams
        self.tcp: socket.socket | None = doors[0] if doors else None
        self.unix: socket.socket | None = doors[1] if doors else None
        self.tcp_port: int = doors[2] if doors else 0
        self._spec = spec
        self._runtime = runtime
        self._control = control
        self._init = init
        self._went = False
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = runtime.start(self._watch(), name=f"sandbox-{init.identity.pid}")

    @property
    def uid(self) -> int:
        """The uid of its processes, as the host sees it."""
        own = os.geteuid()
        return own if own != 0 or self._spec.host_uid is None else self._spec.host_uid

    async def go(self) -> None:
        """Start the program, once. `InvalidInput` if it isn't there, `SandboxFailed` if the sandbox
        is dead."""
        if self._went:
            raise SandboxFailed("The sandbox has been started before: it runs one program, once.")
        self._went = True
        with contextlib.suppress(OSError):  # it is dead: _watch finds out and says so
            self._control.send(b"go")
        try:
            await self._runtime.wait_for(asyncio.shield(self._started), limits.SANDBOX_START_S_MAX)
        except TimeoutError:
            await self.kill()
            raise SandboxFailed(
                "The sandbox did not start its program.",
                why=f"It took more than {limits.SANDBOX_START_S_MAX} s.",
            ) from None

    async def wait(self) -> Exit:
        """How the program ended; returns when every process of the sandbox is gone."""
        return await asyncio.shield(self._ended)

    async def kill(self) -> None:
        """End every process of the sandbox; returns when they are gone, any number of times.
        What was printed and not read yet may be lost. `SandboxFailed` if they don't go."""
        self._init.kill()
        try:
            await self._runtime.wait_for(asyncio.shield(self._ended), limits.SANDBOX_KILL_S_MAX)
        except TimeoutError:
            raise not_dead(self.identity) from None
        self.stdin.close()
        for transport in self._reading:
            transport.close()

    async def _watch(self) -> Exit:
        """Until the end. Init is ours, but it has the tenant's uid: what it says is not trusted."""
        said: Exit | None = None
        while (received := await self._control.receive()) is not None:
            message, fds = received
            for fd in fds:
                os.close(fd)
            if message.step == "started":
                self._settle(None)
            elif message.step == "refused":
                program, cwd = self._spec.argv[0], self._spec.cwd
                self._settle(trouble.not_started(message.at, message.errno, program, cwd))
            elif message.step == "exit":
                said = Exit(message.code, message.signal)
            else:
                self._init.kill()
        seen = await self._init.gone()
        self._control.close()
        self._settle(SandboxFailed("The sandbox is dead.", why="It ended before its program ran."))
        return said or seen

    def _settle(self, error: Ring0Error | None) -> None:
        if self._started.done():
            return
        if error is None:
            self._started.set_result(None)
        else:
            self._started.set_exception(error)
            self._started.exception()  # if nobody ever calls go, that is no fault


async def launch(spec: SandboxSpec, runtime: Runtime) -> Sandbox:
    """Make a sandbox, up to where its program could start. `SandboxUnavailable` when this machine
    can't, with the step and what to do; `SandboxFailed` when it should have; `InvalidInput` for a
    spec that can't be."""
    making = _Making(launcher_fields(spec))
    try:
        doors = await runtime.wait_for(making.finish(), limits.SANDBOX_START_S_MAX)
        assert making.init is not None, "finish() returns only after it was born"
        sandbox = Sandbox(spec, runtime, making.control, making.init, await making.streams(), doors)
    except BaseException as error:
        await making.undo(runtime)
        if isinstance(error, TimeoutError):
            raise SandboxFailed(
                "The sandbox was not ready in time.",
                why=f"It took more than {limits.SANDBOX_START_S_MAX} s.",
                todo="Look at the machine's load.",
            ) from None
        raise
    return sandbox


class _Control:
    """Our end of the control socket. While it is open, the sandbox lives."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def send(self, data: bytes) -> None:
        self._sock.send(data)

    async def receive(self) -> tuple[_Message, list[int]] | None:
        """The next message and the descriptors that came with it; None at the end."""
        await readable(self._sock.fileno())
        return self.take()

    def take(self) -> tuple[_Message, list[int]] | None:
        """The same without waiting: BlockingIOError where there is none yet."""
        try:
            data, ancillary, _, _ = self._sock.recvmsg(
                _MESSAGE_SIZE_BYTES_MAX, socket.CMSG_SPACE(4 * 4), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return None
        fds = array("i")
        for _, _, packed in ancillary:
            fds.frombytes(packed[: len(packed) - len(packed) % fds.itemsize])
        if not data:
            return None
        try:
            return msgspec.json.decode(data, type=_Message), list(fds)
        except msgspec.MsgspecError:
            return _Message(step="unreadable"), list(fds)

    def close(self) -> None:
        self._sock.close()


class _Output(asyncio.StreamReaderProtocol):
    """What a program prints. Its pipe is closed at the end; uvloop would keep it open."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


class _Making:
    """One launch: starts the launcher, holds what is open until a Sandbox owns it."""

    def __init__(self, fields: dict[str, object]) -> None:
        self.init: Init | None = None
        self._sockets: list[socket.socket] = []
        self._pipes: list[int] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.control = _Control(ours)
        spec = os.memfd_create("sandbox")
        with contextlib.ExitStack() as passed:  # what is the launcher's, closed here once it has it
            passed.callback(theirs.close)
            passed.callback(os.close, spec)
            with os.fdopen(os.dup(spec), "wb") as file:
                file.write(marshal.dumps(fields))
            os.lseek(spec, 0, os.SEEK_SET)
            ends = []
            for ours_at in (1, 0, 0):
                pipe = os.pipe()
                self._pipes.append(pipe[ours_at])
                ends.append(pipe[1 - ours_at])
                passed.callback(os.close, pipe[1 - ours_at])
            handed = (theirs.fileno(), spec)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", LAUNCHER, *map(str, handed)],
                    env={},  # a tenant's init must not hold the kernel's environment
                    cwd="/",
                    stdin=ends[0], stdout=ends[1], stderr=ends[2],
                    pass_fds=handed,
                    start_new_session=True,  # Ctrl-C is for the kernel, not for its sandboxes
                )  # fmt: skip
            except OSError as error:
                self._close()
                raise SandboxUnavailable(
                    "The sandbox's launcher can't be started.",
                    why=f"{sys.executable}: {error.strerror}",
                    todo="Run ring0 with a Python that is a file on this machine.",
                ) from None

    async def finish(self) -> _Doors | None:
        """Until the launcher says "ready". Raises what it says otherwise."""
        doors: _Doors | None = None
        failure: Ring0Error | None = None
        ready = False
        while not (ready and self.init):
            received = await self.control.receive()
            if received is None:
                raise failure or SandboxFailed("The sandbox's launcher ended without a word.")
            message, fds = received
            if message.step == "born":
                self.init = Init(fds[0], identify(message.pid))
            elif message.step == "ready":
                ready = True
                self._sockets = [socket.socket(fileno=fd) for fd in fds]
                for listener in self._sockets:
                    listener.setblocking(False)
                if self._sockets:
                    doors = self._sockets[0], self._sockets[1], message.port
            else:  # go on until the end: "born" may come after this
                failure = trouble.refused_by_linux(message.at, message.errno, message.detail)
        await self._bury_launcher()
        return doors

    async def streams(self) -> _Streams:
        """The program's standard streams, ours from here on."""
        loop = asyncio.get_running_loop()
        stdin, stdout, stderr = (os.fdopen(fd, "wb" if i == 0 else "rb", 0)
                                 for i, fd in enumerate(self._pipes))  # fmt: skip
        self._pipes = []
        readers = asyncio.StreamReader(), asyncio.StreamReader()
        out, _ = await loop.connect_read_pipe(lambda: _Output(readers[0]), stdout)
        err, _ = await loop.connect_read_pipe(lambda: _Output(readers[1]), stderr)
        # A reader protocol for a writing end: the only public one that knows flow control.
        transport, writing = await loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), stdin
        )
        writer = asyncio.StreamWriter(transport, writing, None, loop)
        return _Streams(writer, *readers, reading=(out, err))

    async def undo(self, runtime: Runtime) -> None:
        """End a half-made sandbox, however far it came.

        The launcher is left to end by itself, which takes milliseconds: killed between making a
        process and naming it, it would leave one that nobody knows."""
        try:
            await runtime.wait_for(self._bury_launcher(), limits.SANDBOX_KILL_S_MAX)
        except TimeoutError:
            self._process.kill()
            self._process.wait()  # it is dead
        with contextlib.suppress(BlockingIOError):
            while (received := self.control.take()) is not None:
                message, fds = received
                if message.step == "born":
                    self.init = Init(fds.pop(0), identify(message.pid))
                for fd in fds:
                    os.close(fd)
        self._close()
        if self.init:
            self.init.kill()
            try:
                await runtime.wait_for(self.init.gone(), limits.SANDBOX_KILL_S_MAX)
            except TimeoutError:
                raise not_dead(self.init.identity) from None

    async def _bury_launcher(self) -> None:
        """It ends by itself right after "born"; wait for that, or it stays as a zombie."""
        if self._process.poll() is not None:
            return
        pidfd = os.pidfd_open(self._process.pid)
        try:
            await readable(pidfd)
        finally:
            os.close(pidfd)
        self._process.wait()

    def _close(self) -> None:
        self.control.close()
        for listener in self._sockets:
            listener.close()
        for fd in self._pipes:
            os.close(fd)
        self._pipes = []
