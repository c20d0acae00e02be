"""What a sandbox really keeps on this machine: starts one, asks it from inside, and says so.

For `ring0 doctor`, and for tiers.py, which uses nothing that was not seen to work.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error, SandboxFailed, SandboxUnavailable
from ring0.runtime import Runtime
from ring0.tools.sandbox import cgroups
from ring0.tools.sandbox.host import launch
from ring0.tools.sandbox.sandbox import Sandbox
from ring0.tools.sandbox.spec import SandboxSpec

_UID_FIRST: Final = 2_100_000_000
"""Uids of sandboxes that are made to be looked at, where the kernel is root: by this process's own
number, beyond those of kernel/sandboxes.py. A `landlock` sandbox ends whoever has its uid."""
_NAMESPACES: Final = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")

Make = Callable[[SandboxSpec, Runtime], Awaitable[Sandbox]]

# Runs inside. Numbers and names only, so that what comes back can be checked by its type.
_QUESTIONS: Final = """
import ctypes, json, os, resource
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
libc = ctypes.CDLL(None, use_errno=True)
print(json.dumps({
    "namespaces": {n: os.readlink("/proc/self/ns/" + n) for n in %(namespaces)r},
    "uid": os.getuid(),
    "seccomp": int(status["Seccomp"]),
    "no_new_privs": int(status["NoNewPrivs"]),
    "capabilities": max(int(status["Cap" + n], 16) for n in ("Inh", "Prm", "Eff", "Bnd", "Amb")),
    "landlock_abi": libc.syscall(ctypes.c_long(444), None, ctypes.c_long(0), ctypes.c_long(1)),
    "rlimits": {n: resource.getrlimit(getattr(resource, "RLIMIT_" + n))[1]
        for n in ("AS", "CORE", "DATA", "FSIZE", "NOFILE", "NPROC")},
}))
"""


_GAPS_OF_LINUX: Final = ("It shares this machine's Linux: a bug in it can be a way out.",)
_GAPS_WITH_CGROUPS: Final = (
    "Disk bandwidth is not bounded; CPU time is shared, with less weight than the kernel's.",
)
_GAPS_WITHOUT_CGROUPS: Final = (
    "Memory and CPU time are bounded for each process, not for the sandbox as a whole (no cgroup).",
    "CPU share and disk bandwidth are not bounded.",
)


class _Answers(msgspec.Struct, frozen=True):
    namespaces: dict[str, str]
    uid: int
    seccomp: int
    no_new_privs: int
    capabilities: int
    landlock_abi: int
    rlimits: dict[str, int]


class Probe(msgspec.Struct, frozen=True):
    """What was seen of one real sandbox."""

    available: bool
    error: dict[str, str] | None
    """Why not, as `Ring0Error.as_dict`; None where it is available."""
    namespaces: tuple[str, ...] = ()
    """Those that are not the host's; seven where all is well."""
    own_uid: bool = False
    """Does it have a uid that the kernel doesn't have?"""
    seccomp: bool = False
    no_new_privs: bool = False
    no_capabilities: bool = False
    landlock_abi: int = 0
    """What this Linux offers; 0 is none."""
    rlimits: dict[str, int] = {}
    """Hard limits by name, in their own units; -1 is none."""
    start_ms: int = 0
    """From asking to the end of the program."""
    not_enforced: tuple[str, ...] = ()
    """What it doesn't keep here, each a sentence."""
    tier: str = "ns"
    enforced: tuple[str, ...] = ()
    """What it keeps, in a few words each: as seen, where it could be asked."""
    totals: str = ""
    """What bounds memory, processes and CPU time of the sandbox as a whole: `cgroup v2`,
    `cgroup v1`, or `rlimits`, each process by itself."""


async def probe(runtime: Runtime, host_uid: int = 0) -> Probe:
    """Start one sandbox of the tier `ns` and report. Never raises for what the machine can't do."""
    return await ask(runtime, "ns", launch, host_uid=host_uid or _own_uid())


async def ask(runtime: Runtime, tier: str, make: Make, *, host_uid: int = 0) -> Probe:
    """Start one that Python runs in and that has a /proc, and ask it."""
    began_us = runtime.monotonic_us()
    try:
        answers, host_side_uid = await _ask(runtime, make, host_uid)
    except Ring0Error as error:
        return Probe(available=False, error=error.as_dict(), tier=tier)
    apart = tuple(
        name
        for name in _NAMESPACES
        if answers.namespaces.get(name) != os.readlink(f"/proc/self/ns/{name}")
    )
    seen = Probe(
        available=True,
        error=None,
        namespaces=apart,
        own_uid=host_side_uid != os.geteuid(),
        seccomp=answers.seccomp == 2,
        no_new_privs=answers.no_new_privs == 1,
        no_capabilities=answers.capabilities == 0,
        landlock_abi=max(0, answers.landlock_abi),
        rlimits=answers.rlimits,
        start_ms=(runtime.monotonic_us() - began_us) // 1_000,
        tier=tier,
        totals=cgroups.found().mechanism,
    )
    return msgspec.structs.replace(
        seen, enforced=_enforced(seen), not_enforced=(*_GAPS_OF_LINUX, *_gaps_of_totals())
    )


async def start(
    runtime: Runtime,
    tier: str,
    make: Make,
    *,
    enforced: tuple[str, ...],
    gaps: tuple[str, ...],
    host_uid: int = 0,
) -> Probe:
    """Start one that can't be asked: that its program runs, and says what it should, is all that
    is seen; what it keeps is what it is made to keep."""
    began_us = runtime.monotonic_us()
    try:
        spec = SandboxSpec(argv=("/bin/sh", "-c", "echo ring0"), host_uid=host_uid or _own_uid())
        said, _ = await runtime.wait_for(_say(runtime, make, spec), limits.TIER_PROBE_S_MAX)
        if said != b"ring0\n":
            raise SandboxFailed("The sandbox's program gave no answer.", why=ascii(said[-300:]))
    except TimeoutError:
        slow = SandboxUnavailable(
            f"The sandbox tier {tier} does not work on this machine.",
            why=f"A sandbox was not at its end after {limits.TIER_PROBE_S_MAX} s.",
            todo="Use a current version of its runtime.",
        )
        return Probe(available=False, error=slow.as_dict(), tier=tier)
    except Ring0Error as error:
        return Probe(available=False, error=error.as_dict(), tier=tier)
    return Probe(
        available=True,
        error=None,
        own_uid=os.geteuid() == 0,
        start_ms=(runtime.monotonic_us() - began_us) // 1_000,
        tier=tier,
        enforced=enforced,
        not_enforced=(*gaps, *_gaps_of_totals()),
        totals=cgroups.found().mechanism,
    )


def _enforced(seen: Probe) -> tuple[str, ...]:
    named = (
        ("a uid of its own", seen.own_uid),
        ("seccomp", seen.seccomp),
        (f"Landlock (ABI {seen.landlock_abi})", seen.landlock_abi > 0 and seen.tier == "ns"),
        ("no new privileges", seen.no_new_privs),
        ("no capabilities", seen.no_capabilities),
        (f"memory, processes and CPU time as a whole ({seen.totals})", seen.totals != "rlimits"),
    )
    spaces = f"own {', '.join(seen.namespaces)} namespaces"
    return (spaces, *(words for words, there in named if there))


def _gaps_of_totals() -> tuple[str, ...]:
    return _GAPS_WITHOUT_CGROUPS if cgroups.found().mechanism == "rlimits" else _GAPS_WITH_CGROUPS


async def _ask(runtime: Runtime, make: Make, host_uid: int) -> tuple[_Answers, int]:
    questions = _QUESTIONS % {"namespaces": _NAMESPACES}
    spec = SandboxSpec(
        argv=(sys.executable, "-I", "-S", "-c", questions), host_uid=host_uid or _own_uid()
    )
    try:
        data, uid = await runtime.wait_for(_say(runtime, make, spec), limits.TIER_PROBE_S_MAX)
    except TimeoutError:
        raise SandboxFailed("The sandbox's program gave no answer in time.") from None
    try:
        return msgspec.json.decode(data, type=_Answers), uid
    except msgspec.MsgspecError:
        raise SandboxFailed(
            "The sandbox's program gave no answer that can be read.",
            why=ascii(data.decode("utf-8", "replace")[-300:]),
            todo="Report this.",
        ) from None


def _own_uid() -> int:
    return _UID_FIRST + os.getpid() % 10_000_000


async def _say(runtime: Runtime, make: Make, spec: SandboxSpec) -> tuple[bytes, int]:
    """What its program prints (or complains of), and the uid that the host sees."""
    sandbox = await make(spec, runtime)
    try:
        await sandbox.go()
        data = await sandbox.stdout.read(64 * limits.KIB)
        return data or await sandbox.stderr.read(limits.KIB), sandbox.uid
    finally:
        with contextlib.suppress(SandboxFailed):
            await sandbox.close()
