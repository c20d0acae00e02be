"""An answer on its way from a model to whoever reads it: filtered, bounded, and never waited for by
the model."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from ring0.guardrails import Secrets
from ring0.guardrails.stream import StreamFilter
from ring0.models import Delta
from ring0.models.base import Part
from ring0.runtime import Runtime


class Pieces:
    """What has come of one answer. Nothing of it is on record before the answer is whole."""

    def __init__(self, secrets: Secrets, runtime: Runtime) -> None:
        self._secrets = secrets
        self._filter = StreamFilter(secrets)
        self._runtime = runtime
        self._waiting: deque[Delta] = deque()
        self._new = asyncio.Event()
        self._over = False
        self._rest_whole = False
        """What would become a secret goes on in the next part: the rest comes with the answer."""

    async def take(self, delta: Delta) -> None:
        """A `models.Sink`."""
        if self._rest_whole:
            return
        if delta.kind == "text" and (text := self._filter.feed(delta.text)):
            self._add(Delta(text=text))
        elif delta.kind == "part" and delta.part is not None:
            self._rest_whole = self._filter.holds
            if not self._rest_whole:
                clean, _ = self._secrets.redact(msgspec.to_builtins(delta.part))
                self._add(Delta(kind="part", part=msgspec.convert(clean, Part)))

    def _add(self, delta: Delta) -> None:
        self._waiting.append(delta)
        self._new.set()

    def close(self) -> None:
        """The answer is whole, or broken: nothing more comes."""
        self._over = True
        self._new.set()

    async def next(self, wait_s: float) -> list[Delta] | None:
        """What has come since; empty after `wait_s` without any; None: it is over."""
        if not self._waiting and not self._over:
            try:
                await self._runtime.wait_for(self._new.wait(), wait_s)
            except TimeoutError:
                return []
        self._new.clear()
        found = list(self._waiting)
        self._waiting.clear()
        return found if found or not self._over else None
