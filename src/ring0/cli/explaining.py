"""A recorded decision, decided again: with the question and the policy of then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ring0.cli import output
from ring0.cli.parts import outcome_of
from ring0.errors import StoreDamaged
from ring0.governance import Explanation, Policies, Question
from ring0.kernel.steps.forks import asks_as_a_fork
from ring0.store.events import KERNEL, PolicyLoaded
from ring0.store.sqlite import SqliteStore
from ring0.types import Call, Origin, Shown, VerdictKind


class Evidence(msgspec.Struct):
    """What a verdict was made of, as the gate stored it."""

    question: Question
    shown: Shown


@dataclass(frozen=True)
class Explained:
    """A call's verdict and, where a policy was asked, what it says once more."""

    call: Call
    error: dict[str, str] | None
    """What the call came to, where that was an error or a refusal."""
    again: Explanation | None = None
    """None: it was refused before the policy, or its judgement needs none."""
    origins: tuple[Origin, ...] = ()
    why_no_policy: str = ""

    @property
    def same(self) -> bool:
        """Does the policy of then decide now as it did?"""
        if self.again is None:
            return False
        if asks_as_a_fork(self.call.verdict):  # Because it allowed it: else it had stayed so.
            return self.again.verdict.kind is VerdictKind.ALLOW
        return self.again.verdict == self.call.verdict

    def as_dict(self) -> dict[str, Any]:
        return {
            "call": self.call,
            "error": self.error,
            "same": self.same if self.again else None,
            "again": output.builtins(self.again),
            "origins": list(self.origins),
            "why_no_policy": self.why_no_policy,
        }


async def explain(store: SqliteStore, call: Call) -> Explained:
    """Decides a recorded call again. Raises StoreDamaged, PolicyInvalid."""
    error = (await outcome_of(store, call)).error
    if not call.decision:
        rules = ", ".join(reason.rule for reason in call.verdict.reasons)
        return Explained(call, error, why_no_policy=f"it was refused before that, by {rules}.")
    evidence = msgspec.json.decode(await store.blob(call.decision), type=Evidence)
    policies = Policies.from_text(await _policy_text(store, call.verdict.policy_digest))
    return Explained(call, error, policies.explain(evidence.question), evidence.shown.origins)


async def _policy_text(store: SqliteStore, digest: str) -> str:
    async for entry in store.entries(KERNEL):
        if isinstance(entry.body, PolicyLoaded) and entry.body.digest == digest:
            return (await store.blob(entry.body.text)).decode()
    raise StoreDamaged(
        f"The policy {digest[:16]}… is not on record.",
        why="The call names it, so it was lost.",
        todo="`ring0 audit verify` shows what else is missing.",
    )
