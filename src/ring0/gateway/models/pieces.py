"""An answer on its way from a model to whoever reads it: filtered, bounded, and never waited for by
the model."""

from __future__ import annotations

import asyncio
import io

import msgspec

from ring0.guardrails import Secrets
from ring0.guardrails.scanners.masking import Masking
from ring0.guardrails.scanners.streaming import PatternFilter
from ring0.guardrails.stream import StreamFilter
from ring0.models import Delta
from ring0.models.base import Part
from ring0.runtime import Runtime


class Pieces:
    """What has come of one answer. Nothing of it is on record before the answer is whole."""

    def __init__(self, secrets: Secrets, runtime: Runtime, masking: Masking | None = None) -> None:
        """`masking`: what is taken out beside the secrets that are known; None: nothing is."""
        self._secrets = secrets
        self._filter = StreamFilter(secrets)
        self._masking = masking
        self._patterns = PatternFilter(masking) if masking is not None else None
        self._runtime = runtime
        self._waiting: list[Delta | io.StringIO] = []
        """Texts that follow on one another are one: whoever reads slowly costs what they take."""
        self._new = asyncio.Event()
        self._over = self._left = False
        self._rest_whole = False
        """What would become a secret goes on in the next part: the rest comes with the answer."""

    async def take(self, delta: Delta) -> None:
        """A `models.Sink`."""
        if self._rest_whole or self._left:
            return
        if delta.kind == "text":
            text = self._filter.feed(delta.text)
            if self._patterns is not None:
                text = self._patterns.feed(text)
            if text:
                self._add_text(text)
        elif delta.kind == "part" and delta.part is not None:
            self._rest_whole = self._filter.holds
            if not self._rest_whole:
                self._end_part()
                clean, _ = self._secrets.redact(msgspec.to_builtins(delta.part))
                self._add(Delta(kind="part", part=msgspec.convert(clean, Part)))

    def _end_part(self) -> None:
        """Of an answer's parts each is masked by itself: what is held of the one before goes on."""
        if self._patterns is not None and self._masking is not None:
            if text := self._patterns.end():
                self._add_text(text)
            self._patterns = PatternFilter(self._masking)

    def _add_text(self, text: str) -> None:
        last = self._waiting[-1] if self._waiting else None
        if not isinstance(last, io.StringIO):
            self._waiting.append(last := io.StringIO())
        last.write(text)
        self._new.set()

    def _add(self, delta: Delta) -> None:
        self._waiting.append(delta)
        self._new.set()

    def leave(self) -> None:
        """Nobody reads any more."""
        self._left = True
        self._waiting.clear()

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
        found = [
            Delta(text=one.getvalue()) if isinstance(one, io.StringIO) else one
            for one in self._waiting
        ]
        self._waiting.clear()
        return found if found or not self._over else None
