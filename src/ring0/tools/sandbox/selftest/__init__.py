"""Attacks on this machine's own sandboxes, each with the proof that it works outside of one.

`selftest` is for `ring0 sandbox selftest`. It changes nothing on the host but what it set up.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable

import msgspec

from ring0 import limits
from ring0.runtime import Runtime
from ring0.tools.sandbox.sandbox import Sandbox
from ring0.tools.sandbox.selftest.attack import Attack, Finding, Report, State
from ring0.tools.sandbox.selftest.places import Make, interpreter
from ring0.tools.sandbox.selftest.table import ATTACKS
from ring0.tools.sandbox.selftest.trial import Trial
from ring0.tools.sandbox.selftest.world import world
from ring0.tools.sandbox.spec import SandboxSpec

__all__ = ["ATTACKS", "Attack", "Finding", "Make", "Report", "State", "selftest"]


async def selftest(
    make: Make,
    runtime: Runtime,
    *,
    tier: str,
    attacks: Iterable[Attack] = ATTACKS,
    found: Callable[[Finding], None] | None = None,
) -> Report:
    """Try all of them, a few at a time; `found` hears of each in the order of the table. `tier` is
    the weakest that will do. Raises SandboxUnavailable where this machine has none such."""
    began_us = runtime.monotonic_us()
    findings: list[Finding] = []
    tiers: set[str] = set()

    async def noted(spec: SandboxSpec) -> Sandbox:
        sandbox = await make(msgspec.structs.replace(spec, tier=tier))
        tiers.add(sandbox.tier)
        return sandbox

    async with world(runtime) as made:
        python = interpreter(tier)
        first = await noted(SandboxSpec(argv=(python, "-I", "-S", "-c", "pass")))
        try:  # where no attack can be started, that is said at once
            await first.go()
        finally:
            await first.close()
        trial = Trial(made, noted, runtime, first.tier)
        free = asyncio.Semaphore(limits.SELFTEST_AT_ONCE_MAX)

        async def one(attack: Attack) -> Finding:
            async with free:
                return await trial.find(attack)

        tries = [runtime.start(one(attack), name=attack.name) for attack in attacks]
        try:
            for attempt in tries:
                # Not awaited itself: a cancel of ours would be its cancel, and end with it.
                await asyncio.wait({attempt})
                finding = attempt.result()
                findings.append(finding)
                if found is not None:
                    found(finding)
        finally:
            for attempt in tries:
                attempt.cancel()
            await asyncio.gather(*tries, return_exceptions=True)
    return Report(
        tier=", ".join(sorted(tiers)) or tier,
        kernel_uid=os.geteuid(),
        findings=tuple(findings),
        took_ms=(runtime.monotonic_us() - began_us) // 1_000,
    )
