"""The tiers of isolation in their order, and one way to ask for a sandbox that has at least one.

landlock < ns < container < gvisor < microvm. `container` shares this machine's Linux as `ns` does;
it stands after it because its runtime is others' code, looked at by many. What is asked for is a
minimum: it is given, or more, or there is an error. Never less.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from ring0.errors import InvalidInput, SandboxUnavailable
from ring0.runtime import Runtime
from ring0.tools.sandbox import cgroups, containers, host, landlock, microvm, workfolder
from ring0.tools.sandbox.probe import Probe, ask, probe, start
from ring0.tools.sandbox.sandbox import Sandbox
from ring0.tools.sandbox.spec import SandboxSpec
from ring0.tools.sandbox.zygote import Zygotes

ORDER: Final = ("landlock", "ns", "container", "gvisor", "microvm")


class _Tier(NamedTuple):
    make: Callable[[SandboxSpec, Runtime], Awaitable[Sandbox]]
    probe: Callable[[Runtime], Awaitable[Probe]]


async def make(spec: SandboxSpec, runtime: Runtime, zygotes: Zygotes | None = None) -> Sandbox:
    """A sandbox of the weakest tier that is at least `spec.tier`, is there, and can give what the
    spec asks for; up to where its program could start. `SandboxUnavailable` where no tier is."""
    if spec.tier == "ns":  # the common case, by the short way
        try:
            return await host.launch(spec, runtime, zygotes)
        except SandboxUnavailable:
            pass
    refused: list[SandboxUnavailable] = []
    for name in at_least(spec.tier):
        try:
            await _must_work(name, runtime)
            if name == "ns":
                return await host.launch(spec, runtime, zygotes)
            return await _TIERS[name].make(spec, runtime)
        except SandboxUnavailable as error:
            refused.append(error)
    raise SandboxUnavailable(
        f"No sandbox of the tier {spec.tier} or above can be had here.",
        why=" ".join(f"{error.what} {error.why}" for error in refused),
        todo=refused[0].todo or "Run `ring0 doctor`.",
    )


async def probe_all(runtime: Runtime) -> list[Probe]:
    """Each tier as it is on this machine, in their order. Takes a second or more."""
    found = []
    for name in ORDER:
        _seen[name] = await _TIERS[name].probe(runtime)
        found.append(_seen[name])
    return found


def sweep() -> int:
    """At boot, after the old sandboxes are confirmed dead: removes what they left on the machine.
    Returns how much."""
    return cgroups.sweep() + workfolder.sweep()


def at_least(tier: str) -> tuple[str, ...]:
    """The tiers that will do for a minimum, weakest first. `InvalidInput` for an unknown one."""
    if tier not in ORDER:
        raise InvalidInput(
            f"There is no sandbox tier {ascii(tier)[:40]}.", todo=f"Choose of {', '.join(ORDER)}."
        )
    return ORDER[ORDER.index(tier) :]


def stronger(one: str, other: str) -> str:
    """Of two minimums the one that asks for more; an empty one asks for nothing."""
    return min(filter(None, (one, other)), key=lambda tier: len(at_least(tier)))


_seen: dict[str, Probe] = {}
"""What a tier's first probe said. Where it works it is not asked again: if that changes, the
making or the start fails."""


async def _must_work(name: str, runtime: Runtime) -> None:
    """Has this tier been seen to run a program? The two of our own say by themselves what they
    lack; a runtime of others may be there and not work."""
    if name in ("landlock", "ns"):
        return
    if name not in _seen:
        _seen[name] = await _TIERS[name].probe(runtime)
    if not _seen[name].available:
        error = _seen[name].error or {}
        raise SandboxUnavailable(
            error.get("what", ""), why=error.get("why", ""), todo=error.get("todo", "")
        )


# --- each of them -----------------------------------------------------------------------------


async def _landlock_probe(runtime: Runtime) -> Probe:
    own = os.geteuid() == 0
    enforced = (
        f"Landlock (ABI {landlock.abi()}) for files, signals and abstract sockets",
        *(("a uid of its own",) if own else ()),
        "seccomp without sockets",
        "no new privileges",
        "no capabilities",
    )
    gaps = landlock.GAPS if own else (*landlock.GAPS, *landlock.GAPS_SAME_UID)
    return await start(runtime, "landlock", landlock.make, enforced=enforced, gaps=gaps)


async def _container(spec: SandboxSpec, runtime: Runtime) -> Sandbox:
    return await containers.make(containers.CONTAINER, spec, runtime)


async def _container_probe(runtime: Runtime) -> Probe:
    return await ask(runtime, "container", _container)


async def _gvisor(spec: SandboxSpec, runtime: Runtime) -> Sandbox:
    return await containers.make(containers.GVISOR, spec, runtime)


async def _gvisor_probe(runtime: Runtime) -> Probe:
    enforced = (
        "a Linux of its own in user space (gVisor)",
        "own mnt, pid, net, ipc, uts namespaces around it",
        "no capabilities",
    )
    return await start(runtime, "gvisor", _gvisor, enforced=enforced, gaps=containers.GVISOR_GAPS)


async def _microvm(spec: SandboxSpec, runtime: Runtime) -> Sandbox:
    raise SandboxUnavailable(
        "No sandbox runs in a virtual machine of its own.",
        why="ring0 can tell whether one boots here; it does not run programs in it yet.",
        todo="Use the tier gvisor.",
    )


async def _microvm_probe(runtime: Runtime) -> Probe:
    boot = await microvm.boot(runtime)
    what = "The sandbox tier microvm is not on this machine."
    why, todo = boot.why, boot.todo
    if boot.booted:
        what = "No sandbox runs in a virtual machine of its own."
        why = f"One boots here in {boot.took_ms} ms ({boot.why}); ring0 runs nothing in it yet."
        todo = "Use the tier gvisor."
    error = SandboxUnavailable(what, why=why, todo=todo)
    return Probe(available=False, error=error.as_dict(), tier="microvm", start_ms=boot.took_ms)


_TIERS: Final = {
    "landlock": _Tier(landlock.make, _landlock_probe),
    "ns": _Tier(host.launch, probe),
    "container": _Tier(_container, _container_probe),
    "gvisor": _Tier(_gvisor, _gvisor_probe),
    "microvm": _Tier(_microvm, _microvm_probe),
}
assert tuple(_TIERS) == ORDER
