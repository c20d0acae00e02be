"""`ctx.lock`: a named resource that a run has to itself for a time. Each step is one call.

A lock is the whole run's: its tasks share it. Nobody renews it but `renew`; what a run that lost it
still tries to change is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Final

from ring0 import errors

Caller = Callable[[dict[str, Any]], Coroutine[Any, Any, Any]]


class Lock:
    """A lock that is asked for: `async with ctx.lock(…) as lock`, or `lock = await ctx.lock(…)`."""

    def __init__(self, call: Caller, resource: str, args: dict[str, Any], lease_s: int) -> None:
        self._call = call
        self._taking = call({"resource": resource, "lease_s": lease_s, **args})
        self._lease_s = lease_s
        self._freed = False
        self.resource: Final = resource
        self.fence = 0
        """Higher than that of whoever held it before: a system outside can refuse a lower one."""
        self.expires_us = 0
        """The end of the lease, microseconds since 1970."""

    def __await__(self) -> Generator[Any, None, Lock]:
        return self._take().__await__()

    async def _take(self) -> Lock:
        self._learn(await self._taking)
        return self

    def _learn(self, value: Any) -> None:
        if not isinstance(value, dict) or not isinstance(value.get("fence"), int):
            raise errors.Ring0Error("The kernel told of no fence.")
        self.fence, self.expires_us = value["fence"], int(value["expires_us"])

    def renew(self, lease_s: int | None = None) -> Coroutine[Any, Any, None]:
        """A lease that begins now, under the same fence. `LockLost` where it is over already."""
        seconds = self._lease_s if lease_s is None else lease_s
        args = {"resource": self.resource, "do": "renew", "lease_s": seconds}
        return self._renewed(self._call(args))

    async def _renewed(self, call: Coroutine[Any, Any, Any]) -> None:
        self._learn(await call)

    def free(self) -> Coroutine[Any, Any, bool]:
        """Lets it go. Returns whether it was held to the end: not, where its lease was over."""
        self._freed = True
        return self._free(self._call({"resource": self.resource, "do": "free"}))

    async def _free(self, call: Coroutine[Any, Any, Any]) -> bool:
        value = await call
        return isinstance(value, dict) and value.get("held") is True

    async def __aenter__(self) -> Lock:
        return await self._take()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._freed:
            return
        try:
            held = await self.free()
        except errors.Ring0Error:
            if error is None:
                raise
            return  # What went wrong inside says more.
        if not held and error is None:
            raise errors.LockLost(
                f"{self.resource} was lost before the end of its block.",
                why="Its lease was over, and others may have had it since.",
                todo="Look at what was done; take it with a longer `lease_s`, or `renew` it.",
            )
