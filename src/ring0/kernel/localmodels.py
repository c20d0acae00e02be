"""The sandboxes in which local models answer: no door, no network, nothing of the host but the
interpreter and the weights.

What goes in and out is `models/local`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from ring0 import limits
from ring0.kernel.sandboxes import Sandboxes
from ring0.runtime import Runtime
from ring0.tools.sandbox import Mount, Sandbox, SandboxLimits, SandboxSpec

_PURPOSE = "model"
_WEIGHTS = "/opt/model/weights.gguf"
"""Where they lie inside, wherever they are outside."""


class LocalModels:
    """Starts them for a kernel."""

    def __init__(self, sandboxes: Sandboxes, runtime: Runtime) -> None:
        self._sandboxes = sandboxes
        self._runtime = runtime

    async def start(self, weights: Path) -> LocalProcess:
        """A `models.local.Start`. Raises SandboxUnavailable, SandboxFailed."""
        spec = SandboxSpec(
            argv=(sys.executable, "-P", "-m", "ring0.models.local.server", _WEIGHTS),
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
            mounts=(Mount(str(weights), _WEIGHTS),),
            limits=SandboxLimits(
                memory_bytes=limits.LOCAL_MODEL_MEMORY_BYTES,
                processes=limits.LOCAL_MODEL_THREADS_MAX,
            ),
            host_uid=self._sandboxes.next_uid(),
        )
        sandbox = await self._sandboxes.start("kernel", spec, _PURPOSE)
        return LocalProcess(sandbox, self._sandboxes, self._runtime)


class LocalProcess:
    """One of them, at work."""

    def __init__(self, sandbox: Sandbox, sandboxes: Sandboxes, runtime: Runtime) -> None:
        self._sandbox = sandbox
        self._sandboxes = sandboxes
        self._draining = runtime.start(self._drain(), name="local-model-log")

    async def write(self, line: bytes) -> None:
        self._sandbox.stdin.write(line)
        await self._sandbox.stdin.drain()

    async def read(self) -> bytes:
        return await self._sandbox.stdout.readline()

    async def close(self) -> None:
        self._draining.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._draining
        await self._sandboxes.end(self._sandbox)

    async def _drain(self) -> None:
        """Its log is nobody's: a full pipe would stop it."""
        while await self._sandbox.stderr.read(limits.DOOR_BUFFER_SIZE_BYTES):
            pass
