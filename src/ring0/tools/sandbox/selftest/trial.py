"""Tries one attack in the sandbox and, as its control, outside; and judges what came of it.

An attack counts as held off only where the same program got through outside.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error, SandboxUnavailable
from ring0.runtime import Runtime
from ring0.tools.sandbox import cgroups
from ring0.tools.sandbox.sandbox import TIER
from ring0.tools.sandbox.selftest.attack import Attack, Finding, Gap, Proof, State, Way
from ring0.tools.sandbox.selftest.places import Make, Outcome, inside, interpreter, outside
from ring0.tools.sandbox.selftest.world import World, free_port

PROXY_WORKS: Final = Attack(
    name="proxy-works", family="proxy", tries="what is allowed", program="reaches",
    proof=Proof.CANARY, egress=True,
)  # fmt: skip
_KILLS: Final = (signal.SIGSYS, signal.SIGSEGV, signal.SIGILL)
"""How Linux ends a program for a system call that must not be."""
OWN_LINUX: Final = frozenset({"gvisor", "microvm"})
"""Tiers whose sandboxes have a Linux of their own: what is done to that one harms no other."""
_CLIPPED_CHARS: Final = 120


class Verdict(msgspec.Struct, frozen=True):
    """What came of one try."""

    got: bool
    what: str
    known: bool = True
    """False: the program did not do its work, so nothing can be said."""


class Trial:
    """Everything that trying needs."""

    def __init__(self, world: World, make: Make, runtime: Runtime, tier: str) -> None:
        self._world = world
        self._make = make
        self._runtime = runtime
        self._tier = tier
        self._count = 0
        self._works: asyncio.Future[Verdict] | None = None

    async def find(self, attack: Attack) -> Finding:
        """Try it. Never raises for what an attack does."""
        control = Verdict(False, "")
        try:
            control = await self._attempt(attack, is_inside=False)
            forks = self._tier == TIER
            python = interpreter(self._tier)
            tried = await self._attempt(attack, is_inside=True, by_exec="" if forks else python)
            if attack.both and forks and not tried.got:
                by_exec = await self._attempt(attack, is_inside=True, by_exec=python)
                tried = by_exec if by_exec.got or not by_exec.known else tried
            if attack.egress and not (works := await self._proxy_works()).got:
                tried = Verdict(False, f"nothing gets through at all: {works.what}", known=False)
        except (Ring0Error, OSError) as error:
            what = str(error).replace("\n", " ")
            tried = Verdict(False, what, known=False)
            if isinstance(error, SandboxUnavailable) and (attack.egress or attack.workspace):
                why = f"This tier can't be given what it needs: {error.why}"
                return self._finding(attack, State.NOT_HERE, why, tried, control)
        state, why = judge(attack, tried, control, self._tier)
        return self._finding(attack, state, why, tried, control)

    def _finding(
        self, attack: Attack, state: State, why: str, tried: Verdict, control: Verdict
    ) -> Finding:
        return Finding(
            name=attack.name, family=attack.family, tries=attack.tries, state=state, why=why,
            inside=self._told(tried.what), control=self._told(control.what), held=control.got,
        )  # fmt: skip

    async def _proxy_works(self) -> Verdict:
        """Does what is allowed get through? Asked once: one that is silent holds nothing off."""
        if self._works is None:
            self._works = asyncio.ensure_future(self._attempt(PROXY_WORKS, is_inside=True))
        return await asyncio.shield(self._works)

    def _told(self, what: str) -> str:
        """On one line, without the canary itself."""
        flat = " ".join(what.replace(self._world.canary, "(the canary)").split())
        return flat if len(flat) <= _CLIPPED_CHARS else flat[: _CLIPPED_CHARS - 1] + "…"

    async def _attempt(self, attack: Attack, *, is_inside: bool, by_exec: str = "") -> Verdict:
        """The program, once or in two roles, and what it left behind."""
        self._count += 1
        name = f"ring0-selftest-{self._world.canary[-8:]}-{self._count}"
        target = {
            **self._world.facts,
            "inside": is_inside, "namespaced": attack.namespaced and not is_inside,
            "given": attack.given, "attack": attack.name, "marker": f"{name}-marker",
            "meeting": name, "key": 0x5230_0000 + self._count % 0xFFFF,
            "free_port": free_port(), "role": 0, "together": attack.way is Way.TOGETHER,
        }  # fmt: skip
        port = limits.PROXY_PORT if is_inside else target["ports"]["open_proxy"]
        target["proxy_at"] = ("127.0.0.1", port)
        if attack.proof is Proof.TAKEN and not is_inside:
            target["own_folder"] = self._world.own_folder(name)
        if attack.prey:
            target["prey"] = await self._world.prey()
        knocking = self._runtime.start(self._world.knock(target["free_port"]), name="knock")
        try:
            outcome = await self._run(attack, target, by_exec=by_exec)
            return await self._proven(attack, target, outcome)
        finally:
            knocking.cancel()
            await asyncio.gather(knocking, return_exceptions=True)
            if attack.prey and attack.proof is not Proof.PREY:
                await self._world.bury(target["prey"])

    async def _run(self, attack: Attack, target: dict[str, Any], *, by_exec: str) -> Outcome:
        async def once(role: int) -> Outcome:
            mine = {**target, "role": role}
            if target["inside"]:
                return await inside(
                    self._world, self._make, self._runtime, attack, mine, by_exec=by_exec
                )
            return await outside(self._world, self._runtime, attack, mine)

        if attack.way is Way.TOGETHER:
            return (await asyncio.gather(once(0), once(1)))[1]
        if attack.way is Way.AFTER:
            earlier, later = await once(0), await once(1)
            if attack.proof is Proof.UID and earlier.uid != later.uid:
                later = msgspec.structs.replace(later, said={"refused": "it has another one"})
            return later
        return await once(0)

    async def _proven(self, attack: Attack, target: dict[str, Any], outcome: Outcome) -> Verdict:
        """What the program says, and what shows that it is so."""
        verdict = heard(attack, outcome)
        if attack.proof is Proof.CANARY:
            found = self._world.canary in verdict.what
            return msgspec.structs.replace(verdict, got=verdict.got and found)
        if attack.proof is Proof.CHANGED:
            return msgspec.structs.replace(verdict, got=self._world.changed)
        if attack.proof is Proof.PREY:
            dead = await self._world.bury(target["prey"])
            return msgspec.structs.replace(verdict, got=dead)
        if attack.proof is Proof.SURVIVOR:
            wait_s = limits.SELFTEST_GRACE_S if target["inside"] else limits.SELFTEST_ATTACK_S_MAX
            left = await self._world.survivors(target["marker"], wait_s)
            what = f"process {left[0]} lives on" if left else "nothing lives on"
            return Verdict(bool(left), what, known=verdict.known)
        if attack.proof is Proof.TAKEN:
            what = "the kernel read it" if outcome.taken else "the kernel did not read it"
            return Verdict(bool(outcome.taken), what, known=verdict.known)
        if attack.proof is Proof.MEMORY:
            return counted(verdict, outcome.memory_bytes_peak, attack.given * limits.MIB)
        if attack.proof is Proof.OUTPUT:
            much = outcome.output_bytes > limits.SELFTEST_OUTPUT_SIZE_BYTES_MAX
            return msgspec.structs.replace(verdict, got=much)
        return verdict


def heard(attack: Attack, outcome: Outcome) -> Verdict:
    """What a program's own word, or its silence, comes to."""
    said = outcome.said
    if "got" in said:
        return Verdict(bool(said["got"]), said["got"] or "it found nothing")
    if "refused" in said:
        return Verdict(False, said["refused"])
    if "missing" in said:
        return Verdict(False, said["missing"])
    if "broken" in said:
        return Verdict(False, said["broken"], known=False)
    if outcome.signal in _KILLS:
        return Verdict(False, f"killed: {outcome.ended}")
    may_be_stopped = attack.small or attack.wall_s or attack.proof is Proof.OUTPUT
    if attack.proof is Proof.MEMORY and outcome.stopped not in ("", "memory"):
        may_be_stopped = False  # with more time it might have got all of it
    if may_be_stopped and outcome.stopped:
        return Verdict(False, f"ended: {outcome.stopped}")
    if may_be_stopped and outcome.signal:
        return Verdict(False, f"killed: {outcome.ended}")
    return Verdict(False, f"no answer ({outcome.stopped or outcome.ended})", known=False)


def counted(verdict: Verdict, peak_bytes: int, given_bytes: int) -> Verdict:
    """With what the host counted. If that is less, nothing is disproved: a sandbox may have got
    away from the count. If it is as much, that is a proof, whatever the program says."""
    got = verdict.got or peak_bytes >= given_bytes
    if not got or peak_bytes < 0:
        return verdict
    return Verdict(True, f"{verdict.what}; the host counted {peak_bytes // limits.MIB} MiB")


def judge(attack: Attack, tried: Verdict, control: Verdict, tier: str) -> tuple[State, str]:
    """Inside against outside."""
    if not tried.known:
        return State.BROKEN, "Its program did not work inside, so nothing is known."
    if tried.got and attack.on_linux and tier in OWN_LINUX:
        return State.NOT_HERE, f"the Linux that it reaches is the sandbox's own ({tried.what})"
    if tried.got and (gap := _gap(attack.gap)):
        return State.GAP, gap
    if tried.got:
        return State.OPEN, ""
    if control.got:
        return State.CLOSED, ""
    if control.known and attack.needs:
        return State.NOT_HERE, f"{attack.needs} ({control.what})"
    return (
        State.NO_CONTROL,
        "It does not work outside either, so that it is held off proves nothing.",
    )


def _gap(gap: Gap | None) -> str:
    """Why nothing can keep it off here; empty where something should."""
    if gap is Gap.UID:
        return "" if os.geteuid() == 0 else "only root can give each sandbox a uid of its own"
    if gap is Gap.CGROUP:
        found = cgroups.found()
        return "" if found.controllers else f"bounded for each process alone: {found.why}"
    return ""
