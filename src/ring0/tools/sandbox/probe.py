"""What the sandbox really keeps on this machine: starts one, asks it from inside, and says so.

For `ring0 doctor`. It reports; it decides nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error, SandboxFailed
from ring0.runtime import Runtime
from ring0.tools.sandbox.host import launch
from ring0.tools.sandbox.spec import SandboxSpec

_NAMESPACES: Final = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")

NOT_ENFORCED: Final = (
    "It shares this machine's Linux: a bug in it can be a way out.",
    "Memory and CPU time are bounded for each process, not for the sandbox as a whole (no cgroup).",
    "CPU share and disk bandwidth are not bounded.",
)

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


class _Answers(msgspec.Struct, frozen=True):
    namespaces: dict[str, str]
    uid: int
    seccomp: int
    no_new_privs: int
    capabilities: int
    landlock_abi: int
    rlimits: dict[str, int]


class Probe(msgspec.Struct, frozen=True):
    """What was seen from inside one real sandbox."""

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
    """What this Linux offers; 0 is none. The `ns` tier doesn't use it yet."""
    rlimits: dict[str, int] = {}
    """Hard limits by name, in their own units; -1 is none."""
    start_ms: int = 0
    """From asking to the end of the program."""
    not_enforced: tuple[str, ...] = NOT_ENFORCED


async def probe(runtime: Runtime, host_uid: int = 2_000_000_000) -> Probe:
    """Start one sandbox and report. Never raises for what the machine can't do."""
    began_us = runtime.monotonic_us()
    try:
        answers, host_side_uid = await _ask(runtime, host_uid)
    except Ring0Error as error:
        return Probe(available=False, error=error.as_dict())
    apart = tuple(
        name
        for name in _NAMESPACES
        if answers.namespaces.get(name) != os.readlink(f"/proc/self/ns/{name}")
    )
    return Probe(
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
    )


async def _ask(runtime: Runtime, host_uid: int) -> tuple[_Answers, int]:
    questions = _QUESTIONS % {"namespaces": _NAMESPACES}
    argv = (sys.executable, "-I", "-S", "-c", questions)
    sandbox = await launch(SandboxSpec(argv=argv, host_uid=host_uid), runtime)
    try:
        # The directory is of the process's own uid even where its files are root's.
        host_side_uid = os.stat(f"/proc/{sandbox.identity.pid}").st_uid
        await sandbox.go()
        data = await runtime.wait_for(
            sandbox.stdout.read(64 * limits.KIB), limits.SANDBOX_START_S_MAX
        )
        complaint = b"" if data else await sandbox.stderr.read(limits.KIB)
    except TimeoutError:
        raise SandboxFailed("The sandbox's program gave no answer in time.") from None
    finally:
        with contextlib.suppress(SandboxFailed):
            await sandbox.kill()
    try:
        return msgspec.json.decode(data, type=_Answers), host_side_uid
    except msgspec.MsgspecError:
        raise SandboxFailed(
            "The sandbox's program gave no answer that can be read.",
            why=ascii(complaint.decode("utf-8", "replace")[-300:]),
            todo="Report this.",
        ) from None
