"""In a fork, and in all beneath it, every call that reaches beyond the run and isn't `pure` asks.

Whoever forked it is a person who tries something out: what the run that it was forked from was
allowed, and who approved that, counts for nothing here. Not here: how one is forked (life/forking).
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from ring0.tools.driver import Prepared
from ring0.types import CallKind, Effect, Reason, Run, ToolManifest, Verdict, VerdictKind

_OWN: Final = frozenset(
    {
        CallKind.NOW,
        CallKind.RANDOM,
        CallKind.SLEEP,
        CallKind.WAIT,
        CallKind.LOCK,
        CallKind.DERIVE,
        CallKind.MEMORY_RECALL,
        CallKind.MEMORY_EXPLAIN,
        CallKind.MEMORY_ASSEMBLE,
        # Of the run's own window: nobody else sees it.
        CallKind.MEMORY_SET,
        CallKind.MEMORY_COMPACT,
        CallKind.OBSERVED,
        # It asks by itself, always.
        CallKind.ASK,
        # An answer changes nothing: what it may cost, the budget of today bounds.
        CallKind.MODEL,
    }
)
_RULE: Final = "fork/"
_READS: Final = frozenset({"", "GET", "HEAD", "OPTIONS"})


def asks(
    row: Run,
    kind: CallKind,
    effect: Effect,
    prepared: Prepared,
    verdict: Verdict,
    within: ToolManifest | None = None,
) -> Verdict:
    """The verdict as it holds in this run. Only ever from `allow` to `ask`."""
    if not row.forked or verdict.kind is not VerdictKind.ALLOW or kind in _OWN:
        return verdict
    if within is not None:
        # A request of a tool's sandbox. Of a tool that isn't pure the call itself was asked about.
        if within.effect is not Effect.PURE or prepared.method.upper() in _READS:
            return verdict
    elif effect is Effect.PURE:
        return verdict
    # The rule has the run's name, so that no yes in advance that was given elsewhere covers it.
    reason = Reason(
        rule=f"{_RULE}{row.id}",
        text=f"This run was forked from {row.forked}: in a fork, what isn't pure is asked about.",
    )
    return replace(verdict, kind=VerdictKind.ASK, reasons=(reason,))


def asks_as_a_fork(verdict: Verdict) -> bool:
    """Whether it is an `ask` that no policy made."""
    return any(reason.rule.startswith(_RULE) for reason in verdict.reasons)
