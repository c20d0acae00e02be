"""Token buckets: how many requests and tokens a minute a provider takes from one key.

A call reserves its estimate before it goes and settles with what it came to. All is counted in
integers; time is handed in. Nothing waits here: `ready_us` says when to ask again.
"""

from __future__ import annotations

from ring0 import limits

MINUTE_US = 60_000_000


class _Level:
    """One quantity that refills, in units of 1 / 60,000,000, so that no rounding adds up."""

    __slots__ = ("at_us", "capacity", "per_min", "units")

    def __init__(self, per_min: int) -> None:
        self.per_min = per_min
        burst = per_min * limits.BUCKET_BURST_S * 1_000_000
        self.capacity = max(burst, MINUTE_US)  # One whole request or token at the least.
        self.units = self.capacity
        self.at_us = 0

    def refill(self, now_us: int) -> None:
        if now_us > self.at_us:  # A clock that was set back gives nothing twice.
            gained = (now_us - self.at_us) * self.per_min
            self.units = min(self.capacity, self.units + gained)
            self.at_us = now_us

    def ready_us(self, amount: int, now_us: int) -> int:
        """When there is room for so much; what is larger than the bucket goes when it is full."""
        self.refill(now_us)
        lacking = self.held(amount) - self.units
        return now_us if lacking <= 0 else max(now_us, self.at_us) - (-lacking // self.per_min)

    def held(self, amount: int) -> int:
        """What is taken for an estimate: not more than the bucket holds, so that no one call, by
        its own word of how much it may come to, keeps all others waiting until it is over."""
        return min(amount * MINUTE_US, self.capacity)

    def add(self, units: int) -> None:
        """Never more than it holds, and never owing more than a minute's worth: a provider counts
        by the minute."""
        owed = -self.per_min * MINUTE_US
        self.units = min(self.capacity, max(owed, self.units + units))


class Bucket:
    """What one (provider, model, key) may still take. 0 a minute: as much as it likes."""

    __slots__ = ("_requests", "_tokens", "closed_until_us", "name")

    def __init__(self, name: str, requests_per_min: int = 0, tokens_per_min: int = 0) -> None:
        self.name = name
        self.closed_until_us = 0
        """The provider said not to come before; see `empty`."""
        self._requests = _Level(requests_per_min) if requests_per_min else None
        self._tokens = _Level(tokens_per_min) if tokens_per_min else None

    @property
    def limited(self) -> bool:
        return self._requests is not None or self._tokens is not None

    def ready_us(self, tokens: int, now_us: int) -> int:
        """When a request with so many tokens may go: `now_us`, or later."""
        ready = max(now_us, self.closed_until_us)
        if self._requests is not None:
            ready = max(ready, self._requests.ready_us(1, now_us))
        if self._tokens is not None:
            ready = max(ready, self._tokens.ready_us(tokens, now_us))
        return ready

    def reserve(self, tokens: int, now_us: int) -> None:
        """Takes it out; only where `ready_us` said now."""
        for level, amount in ((self._requests, 1), (self._tokens, tokens)):
            if level is not None:
                level.refill(now_us)
                level.add(-level.held(amount))

    def settle(self, reserved: int, used: int, now_us: int) -> None:
        """What was estimated too high comes back; what was too low is owed."""
        if self._tokens is not None:
            self._tokens.refill(now_us)
            self._tokens.add(self._tokens.held(reserved) - used * MINUTE_US)

    def undo(self, reserved: int, now_us: int) -> None:
        """The call was never made: all of it comes back, the request too."""
        for level, amount in ((self._requests, 1), (self._tokens, reserved)):
            if level is not None:
                level.refill(now_us)
                level.add(level.held(amount))

    def empty(self, until_us: int, now_us: int) -> None:
        """The provider refused for now (429): nothing goes before `until_us`, nothing is saved."""
        self.closed_until_us = max(self.closed_until_us, until_us)
        for level in (self._requests, self._tokens):
            if level is not None:
                level.refill(now_us)
                level.units = min(level.units, 0)
                level.at_us = max(level.at_us, until_us)
