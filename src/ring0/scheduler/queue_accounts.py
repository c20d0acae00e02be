"""Who has had how much: the counters by which the fair queue goes.

Tenants have one for each resource, weighted; a tenant that comes back is lifted to the lowest of
those that wait, so that idling saves up nothing (VTC, arXiv 2401.00588). Trees and runs have one
that is never lifted: who has had the least goes first (Autellix, arXiv 2502.13965).
"""

from __future__ import annotations

from collections.abc import Mapping

from ring0 import limits


class Accounts:
    """What each tenant has had of one resource, in cost divided by its weight."""

    __slots__ = ("_had", "_last", "_waiting", "_weights")

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._had: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        """Tenants with something in the queue, and how much."""
        self._last = 0
        """The counter of whoever was served last."""

    def had(self, tenant: str) -> int:
        return self._had.get(tenant, 0)

    def lift(self, tenant: str) -> None:
        """Before something of a tenant goes or waits, of whom nothing waits."""
        waiting, had = self._waiting, self._had
        if tenant in waiting:
            return
        lowest = min([had[other] for other in waiting]) if waiting else self._last
        if had.get(tenant, -1) < lowest:
            if len(had) >= limits.TENANTS_REMEMBERED_MAX:
                self._forget(lowest)
            self._had[tenant] = lowest

    def alone(self, tenant: str) -> bool:
        """Nobody else waits, and there is somebody else: who was seen is reckoned with."""
        others = len(self._waiting) > (tenant in self._waiting)
        return not others and len(self._had) > 1

    def enter(self, tenant: str) -> None:
        self.lift(tenant)
        self._waiting[tenant] = self._waiting.get(tenant, 0) + 1

    def leave(self, tenant: str) -> None:
        self._waiting[tenant] -= 1
        if not self._waiting[tenant]:
            del self._waiting[tenant]

    def goes(self, tenant: str, cost_us: int) -> None:
        """Something of it goes, and costs so much at the least."""
        had = self._had.get(tenant, 0)
        if had > self._last:
            self._last = had
        self.charge(tenant, cost_us)

    def charge(self, tenant: str, cost_us: int) -> None:
        cost = cost_us * limits.TENANT_WEIGHT_MAX // self._weights.get(tenant, 1)
        self._had[tenant] = self._had.get(tenant, 0) + cost

    def _forget(self, lowest: int) -> None:
        """Those that would be lifted anyway."""
        kept = {
            tenant: had
            for tenant, had in self._had.items()
            if had > lowest or tenant in self._waiting
        }
        self._had = kept


class Attained:
    """What each run, and each tree, has had. The one that came first is forgotten first."""

    __slots__ = ("_had",)

    def __init__(self) -> None:
        self._had: dict[str, int] = {}

    def had(self, run: str) -> int:
        return self._had.get(run, 0)

    def charge(self, run: str, cost_us: int) -> None:
        had = self._had
        had[run] = had.get(run, 0) + cost_us
        if len(had) > limits.RUNS_ATTAINED_MAX:
            del had[next(iter(had))]
