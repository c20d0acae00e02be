"""The tier `landlock`, for machines that forbid user namespaces: fewer walls, and it says which.

No namespace of any kind: Landlock for files, signals and abstract sockets, a filter without
sockets, a uid of its own where the kernel is root. What does it is inside/bare.py.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import Any, Final

from ring0 import limits
from ring0.errors import SandboxUnavailable
from ring0.runtime import Runtime
from ring0.tools.sandbox import host, workfolder
from ring0.tools.sandbox.beneath import Beneath
from ring0.tools.sandbox.inside.landlock import abi
from ring0.tools.sandbox.process import Exit
from ring0.tools.sandbox.sandbox import Parts, Sandbox
from ring0.tools.sandbox.seccomp import compile_filter
from ring0.tools.sandbox.spec import SandboxSpec, making_fields, program_fields
from ring0.tools.sandbox.starter import Starter

TIER: Final = "landlock"
ABI_MIN: Final = 6
"""Scopes: without them a program could end the process that watches it, or the kernel itself."""

_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_READABLE: Final = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")

__all__ = ["ABI_MIN", "GAPS", "GAPS_SAME_UID", "abi", "check", "make"]

GAPS: Final = (
    "It shares this machine's Linux, and all its namespaces: a bug in Linux is a way out sooner "
    "than from `ns`.",
    "It can ask whether a path or a process exists, and what kind and size a file is.",
    "No doors and no egress: it can make no socket.",
    "Its files are in one private folder on the disk, whose size is looked at, not bounded.",
)
GAPS_SAME_UID: Final = (
    "It has the kernel's own uid: only Landlock and the filter keep its files apart.",
    "Processes are counted ten times a second: for that long there can be more.",
    "If the kernel crashes, a process of it that is made in that moment can outlive it (no cgroup "
    "is there to find it).",
)


async def make(spec: SandboxSpec, runtime: Runtime) -> Sandbox:
    """A sandbox of this tier, up to where its program could start. `SandboxUnavailable` where it
    can't be, or where the spec asks for what it hasn't got."""
    check(spec)
    program_fields(spec)
    uid = spec.host_uid if os.geteuid() == 0 else None
    fields = _fields(spec, uid)
    folder = workfolder.make(uid)
    try:
        return await host.make_from(
            spec,
            {**fields, "folder": folder},
            runtime,
            Starter("bare"),
            lambda spec, runtime, parts: _BareSandbox(spec, runtime, parts, folder),
        )
    except BaseException:
        await runtime.in_thread(workfolder.remove, folder)
        raise


def check(spec: SandboxSpec) -> None:
    """`SandboxUnavailable` for what this tier can't give."""
    if (version := abi()) < ABI_MIN:
        raise SandboxUnavailable(
            "The sandbox tier landlock is not on this machine.",
            why=f"Its Landlock has ABI {version}; {ABI_MIN} is needed, which keeps signals apart."
            if version
            else "This Linux has no Landlock, or has it switched off (lsm= at boot).",
            todo="Use Linux 6.12 or later, with landlock among its security modules.",
        )
    if spec.doors or spec.egress:
        raise SandboxUnavailable(
            "A sandbox of the tier landlock has no doors and no egress.",
            why="Without a network of its own it may make no socket at all.",
            todo="Allow user namespaces, so that the tier `ns` is there (`ring0 doctor`).",
        )
    real = os.path.realpath
    moved = next((m for m in spec.mounts if real(m.source) != real(m.target)), None)
    if moved is not None:
        raise SandboxUnavailable(
            f"A sandbox of the tier landlock can't show {moved.source} as {moved.target}.",
            why="It has the machine's own tree: a path is shown where it is, or not at all.",
            todo="Mount it under its own name, or use the tier `ns`.",
        )


def _fields(spec: SandboxSpec, uid: int | None) -> dict[str, Any]:
    fields = making_fields(spec)
    links: list[tuple[str, str]] = fields["links"]  # type: ignore[assignment]
    mounts: list[tuple[str, str]] = fields["mounts"]  # type: ignore[assignment]
    all_limits: list[tuple[int, int, int]] = fields["limits"]  # type: ignore[assignment]
    return {
        "host_uid": uid or 0,
        "abi_min": ABI_MIN,
        "limits": [limit for limit in all_limits if uid or limit[0] != resource.RLIMIT_NPROC],
        "processes": 0 if uid else spec.limits.processes,  # with its own uid, Linux counts
        "workspace": spec.workspace,
        "python": sys.executable,
        "reading": [*(s for s, _ in mounts), *(t for t, _ in links), *_READABLE],
        "using": list(_DEVICES),
        "filter": compile_filter(os.uname().machine, bare=True, own_uid=uid is not None),
    }


class _BareSandbox(Sandbox):
    """With a folder of the machine's own disk, which goes when nobody needs it any more."""

    def __init__(self, spec: SandboxSpec, runtime: Runtime, parts: Parts, folder: str) -> None:
        self._folder = folder
        if parts.handed.files is not None:
            parts.handed.files.close()
            files = _Files(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW), folder)
            parts = parts._replace(handed=parts.handed._replace(files=files))
        super().__init__(spec, runtime, parts)
        self.tier = TIER

    async def _watch(self) -> Exit:
        watching = self._runtime.start(self._watch_folder(), name="folder")
        try:
            return await super()._watch()
        finally:
            watching.cancel()
            if not self._spec.workspace:
                await self._runtime.in_thread(workfolder.remove, self._folder)

    async def _watch_folder(self) -> None:
        most = self._spec.limits.tmp_bytes
        while not await self._runtime.in_thread(workfolder.is_over, self._folder, most):
            await self._runtime.sleep(limits.WORK_WATCH_MS / 1_000)
        self.stopped = "disk"
        self._parts.init.kill()


class _Files(Beneath):
    """The workspace: closed, it is gone."""

    def __init__(self, dirfd: int, folder: str) -> None:
        super().__init__(dirfd)
        self._removed = folder

    def close(self) -> None:
        super().close()
        workfolder.remove(self._removed)
