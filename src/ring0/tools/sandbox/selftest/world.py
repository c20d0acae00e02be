"""What the attacks go for: canaries that we set up, so that a control harms nobody.

A secret in files, services, processes and the environment; processes that may die. All of it is
gone when the world is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import Any, Final

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.runtime import Runtime
from ring0.tools.sandbox.selftest.outlets import Outlets

VARIABLE: Final = "RING0_SELFTEST_CANARY"
HOST_FILES: Final = {
    "home_key": "home/.ssh/id_ed25519",
    "dotenv": "project/.env",
    "git_config": "project/.git/config",
    "journal": "data/journal.db",
    "secret": "secret.txt",
    "answer": "elsewhere/answer.txt",
}
_ADDRESS_BYTES_MAX: Final = 107
"""Of a socket's name, in struct sockaddr_un."""
_WAIT: Final = "import signal; signal.alarm(600); signal.pause()"
"""By itself not for ever: whoever starts it may be killed."""
_ELSEWHERE: Final = ("192.0.2.1", 9)
"""An address of nobody's (RFC 5737): only to learn by which address of ours one would go there."""


class World:
    """The targets, by name, as the programs read them."""

    def __init__(self, canary: str, folder: str, runtime: Runtime) -> None:
        self.canary = canary
        self.folder = folder
        self.facts: dict[str, Any] = {}
        self._runtime = runtime
        self.outlets = Outlets(canary, runtime)
        self._preys: dict[int, asyncio.subprocess.Process] = {}
        self._stack = contextlib.AsyncExitStack()

    # --- making ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Files, services, one process to look at."""
        self.facts |= self._files()
        await self._services()
        self.facts["victim"] = await self._victim()
        self.facts["namespaces"] = {
            name: os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "user")
        }
        await self.outlets.open()
        self._stack.push_async_callback(self.outlets.close)
        self.facts["ports"] = self.outlets.ports
        self.facts["backwards"] = self.canary[::-1]
        self.facts["python"] = [sys.prefix, os.path.dirname(os.__file__)]

    async def close(self) -> None:
        for pid in list(self._preys):
            await self.bury(pid)
        await self._stack.aclose()

    def _files(self) -> dict[str, str]:
        """Readable for everybody: what keeps a program from them must be its sandbox."""
        facts = {}
        for name, path in HOST_FILES.items():
            facts[name] = os.path.join(self.folder, path)
            os.makedirs(os.path.dirname(facts[name]), 0o755, exist_ok=True)
            _write(facts[name], self.canary, 0o644)
        facts["open_folder"] = os.path.join(self.folder, "open")
        os.mkdir(facts["open_folder"])
        os.chmod(facts["open_folder"], 0o777)  # noqa: S103  # it is there to be attacked
        facts["writable"] = os.path.join(self.folder, "writable.txt")
        self.restore(facts["writable"])
        # In this process, as a descriptor that each child would have where nobody closes it.
        left_open = os.open(facts["secret"], os.O_RDONLY)
        os.set_inheritable(left_open, True)
        self._stack.callback(os.close, left_open)
        self.left_open = left_open
        return facts

    def restore(self, path: str) -> None:
        _write(path, "untouched", 0o666)

    @property
    def changed(self) -> bool:
        """Has somebody written to the writable file?"""
        path = self.facts["writable"]
        with open(path) as file:
            content = file.read()
        self.restore(path)
        return content != "untouched"

    async def _services(self) -> None:
        facts, lan = self.facts, _lan_address()
        facts["tcp"] = await self._tcp("127.0.0.1")
        facts["tcp_zero"] = facts["tcp"] and ("0.0.0.0", facts["tcp"][1])  # noqa: S104  # to ask
        facts["tcp6"] = await self._tcp("::1")
        facts["tcp_lan"] = await self._tcp(lan) if lan else None
        facts["door"] = await self._tcp("127.0.0.1", limits.DOOR_PORT)
        facts["proxy"] = await self._tcp("127.0.0.1", limits.PROXY_PORT)
        facts["udp"] = await self._udp("127.0.0.1")
        facts["udp_lan"] = await self._udp(lan) if lan else None
        facts["abstract"] = f"ring0-selftest-{self._runtime.random_bytes(8).hex()}"
        await self._unix("\0" + facts["abstract"])
        for name in ("docker_sock", "door_sock"):
            facts[name] = os.path.join(self.folder, name.replace("_", "."))
            await self._unix(facts[name])
            os.chmod(facts[name], 0o666)  # noqa: S103  # dito

    async def _tcp(self, host: str, port: int = 0) -> tuple[str, int] | None:
        """A service that says the canary; another port where the wished one is taken."""
        try:
            server = await asyncio.start_server(self._tell, host, port)
        except OSError:
            return await self._tcp(host) if port else None
        self._stack.callback(server.close)
        return host, server.sockets[0].getsockname()[1]

    async def _unix(self, path: str) -> None:
        if len(os.fsencode(path)) > _ADDRESS_BYTES_MAX:
            raise InvalidInput(
                "The folder for temporary files lies too deep.",
                why=f"A socket's name there has more than {_ADDRESS_BYTES_MAX} bytes: {path}",
                todo="Set TMPDIR to a folder like /tmp.",
            )
        server = await asyncio.start_unix_server(self._tell, path)
        self._stack.callback(server.close)

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(self.canary.encode())
            await writer.drain()
            writer.close()

    async def _udp(self, host: str) -> tuple[str, int] | None:
        try:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Echo(self.canary), local_addr=(host, 0)
            )
        except OSError:
            return None
        self._stack.callback(transport.close)
        return host, transport.get_extra_info("sockname")[1]

    async def _victim(self) -> int:
        """Has the canary in its environment, its arguments, and in a file without a name."""
        fd, path = tempfile.mkstemp(dir=self.folder)
        os.unlink(path)
        os.write(fd, self.canary.encode())
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            return await self._process(fd, self.canary)
        finally:
            os.close(fd)

    async def _process(self, stdin: int, *arguments: str) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", _WAIT, *arguments,
            stdin=stdin, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            env={VARIABLE: self.canary}, cwd="/", start_new_session=True,
        )  # fmt: skip
        self._preys[process.pid] = process
        return process.pid

    # --- for one attack -------------------------------------------------------------------------

    def own_folder(self, name: str) -> str:
        """A folder for one control alone."""
        path = os.path.join(self.facts["open_folder"], name)
        os.mkdir(path)
        return path

    async def prey(self) -> int:
        """A process that may die."""
        return await self._process(asyncio.subprocess.DEVNULL)

    async def bury(self, pid: int) -> bool:
        """Was it dead already? Ends it, and waits for it."""
        process = self._preys.pop(pid)
        try:
            await self._runtime.wait_for(process.wait(), limits.SELFTEST_GRACE_S)
            return True
        except TimeoutError:
            process.kill()
            await process.wait()
            return False

    async def knock(self, port: int) -> None:
        """Tries to come in at a port, again and again."""
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
            await self._runtime.sleep(0.05)

    async def survivors(self, marker: str, wait_s: float) -> list[int]:
        """Processes of an attack that are still there: killed here, so that none stays."""
        for _ in range(max(1, int(wait_s / 0.05))):
            if found := _marked(marker):
                for pid in found:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return found
            await self._runtime.sleep(0.05)
        return []


class _Echo(asyncio.DatagramProtocol):
    """Answers each datagram with the canary."""

    def __init__(self, canary: str) -> None:
        self._canary = canary.encode()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._transport is not None:
            self._transport.sendto(self._canary, addr)


@contextlib.asynccontextmanager
async def world(runtime: Runtime) -> AsyncIterator[World]:
    """A world, and afterwards none."""
    canary = f"canary-{runtime.random_bytes(16).hex()}"
    folder = tempfile.mkdtemp(prefix="ring0-selftest-")
    os.chmod(folder, 0o755)  # noqa: S103  # sandboxes have uids of their own
    made = World(canary, folder, runtime)
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = canary
    try:
        await made.open()
        yield made
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        try:
            await made.close()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """One that nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _lan_address() -> str:
    """Ours in the network, or nothing. Nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_ELSEWHERE)
            address: str = probe.getsockname()[0]
    except OSError:
        return ""
    return "" if address.startswith("127.") else address


def _marked(marker: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    arguments = file.read().rstrip(b"\0").split(b"\0")
            except OSError:
                continue
            if arguments[-1] == marker.encode():
                found.append(int(name))
    return found


def _write(path: str, text: str, mode: int) -> None:
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
