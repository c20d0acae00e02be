"""Attacks for tests: on sandboxes as they are, and on ones that were made weaker."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
from sandbox_world import RUNTIME, uids

from ring0.tools.sandbox import Sandbox, SandboxSpec, launch
from ring0.tools.sandbox.selftest import ATTACKS, Attack, Report, State, selftest
from ring0.tools.sandbox.selftest.places import Make, Outcome
from ring0.tools.sandbox.zygote import Zygotes

ATTACK = Attack(name="a", family="files", tries="", program="read")


@contextlib.asynccontextmanager
async def maker(**changed: Any) -> AsyncIterator[Make]:
    """Fresh sandboxes; weaker ones, by what is changed of them."""
    zygotes = Zygotes(RUNTIME)

    async def make(wanted: SandboxSpec) -> Sandbox:
        fields = {"host_uid": next(uids), **changed}
        return await launch(msgspec.structs.replace(wanted, **fields), RUNTIME, zygotes)

    try:
        yield make
    finally:
        await zygotes.close()


def named(*names: str) -> list[Attack]:
    found = [attack for attack in ATTACKS if attack.name in names or attack.family in names]
    assert found
    return found


async def attacked(attacks: Iterable[Attack], **changed: Any) -> Report:
    async with maker(**changed) as make:
        return await selftest(make, RUNTIME, tier="ns", attacks=attacks)


def states(report: Report) -> dict[str, State]:
    return {finding.name: finding.state for finding in report.findings}


def outcome(said: dict[str, str], **fields: Any) -> Outcome:
    whole = {"ended": "exit 0", "stopped": "", "signal": 0, "output_bytes": 0, "uid": 0, **fields}
    return Outcome(said=said, **whole)
