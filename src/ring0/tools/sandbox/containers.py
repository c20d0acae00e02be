"""The tiers `container` (runc) and `gvisor` (runsc): an OCI runtime inside our namespaces.

A machine with Docker has runc, one with Podman can have it; no daemon is spoken to. What a runtime
is told is oci.py, what starts it is inside/contain.py.
"""

from __future__ import annotations

import os
import shutil
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import SandboxUnavailable
from ring0.runtime import Runtime
from ring0.tools.sandbox import host
from ring0.tools.sandbox.oci import container_fields
from ring0.tools.sandbox.sandbox import Sandbox
from ring0.tools.sandbox.spec import SandboxSpec, program_fields
from ring0.tools.sandbox.starter import Starter

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Not the caller's: what stands there would run as the kernel does."""

CONTAINER_GAPS: Final = (
    "It shares this machine's Linux, as `ns` does: a bug in it can be a way out.",
)
GVISOR_GAPS: Final = (
    "No doors and no egress: it has a network stack of its own, which nothing is let into.",
)


class Kind(msgspec.Struct, frozen=True):
    """One of the two tiers."""

    tier: str
    program: str
    """By name."""
    options: tuple[str, ...]
    shares_linux: bool
    """Are its processes this machine's, in the network that they are put into?"""
    as_root: bool
    """Must the kernel be root to use it?"""
    memory_bytes: int
    processes: int
    """What it needs for itself, within the sandbox's totals."""


CONTAINER: Final = Kind(
    tier="container",
    program="runc",
    # It may not write to any cgroup, and need not: it is in the sandbox's.
    options=("--rootless=true", "--log-format=text"),
    shares_linux=True,
    as_root=False,
    memory_bytes=limits.OCI_RUNTIME_MEMORY_BYTES,
    processes=limits.OCI_RUNTIME_PROCESSES,
)
GVISOR: Final = Kind(
    tier="gvisor",
    program="runsc",
    options=("--network=none", "--ignore-cgroups", "--log-format=text"),
    shares_linux=False,
    as_root=True,
    memory_bytes=limits.GVISOR_MEMORY_BYTES,
    processes=limits.GVISOR_PROCESSES,
)


async def make(kind: Kind, spec: SandboxSpec, runtime: Runtime) -> Sandbox:
    """A sandbox of that tier, up to where its program could start. `SandboxUnavailable` where it
    can't be, `SandboxFailed` where it should have."""
    program_fields(spec)
    program = find(kind)
    if kind.as_root and os.geteuid() != 0:
        raise SandboxUnavailable(
            f"The sandbox tier {kind.tier} is not there for this user.",
            why=f"{program} makes its processes as root.",
            todo="Run the kernel as root, or use the tier `container`.",
        )
    if not kind.shares_linux and (spec.doors or spec.egress):
        raise SandboxUnavailable(
            f"A sandbox of the tier {kind.tier} has no doors and no egress.",
            why="Its network is its own Linux's: no listener can be put into it.",
            todo="Let this tool do without, or lower its tier to `container`.",
        )
    fields = container_fields(spec, (program, *kind.options), shares_linux=kind.shares_linux)
    roomy = msgspec.structs.replace(
        spec.limits,
        memory_bytes=spec.limits.memory_bytes + kind.memory_bytes,
        processes=spec.limits.processes + kind.processes,
    )
    made = await host.make_from(
        msgspec.structs.replace(spec, limits=roomy), dict(fields), runtime, Starter("contain")
    )
    made.tier = kind.tier
    return made


def find(kind: Kind) -> str:
    """The runtime's path. `SandboxUnavailable` where there is none."""
    if path := shutil.which(kind.program, path=_PATH):
        return path
    raise SandboxUnavailable(
        f"The sandbox tier {kind.tier} is not on this machine.",
        why=f"There is no {kind.program} in {_PATH}.",
        todo=f"Install {kind.program}.",
    )
