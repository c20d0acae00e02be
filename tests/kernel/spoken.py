"""A model with a price, and a provider that does what a test says."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from kernel_world import World
from locks_world import Band

from ring0.models import ModelAnswer
from ring0.types import AgentManifest, Budget, CallKind, ModelConfig

PRICED = {
    "provider": "openai",
    "model": "m",
    "base_url": "https://models.example/v1",
    "price_in_microusd_per_mtok": 1_000_000,
    "price_out_microusd_per_mtok": 2_000_000,
}
"""A token in costs a micro-dollar, one out two."""


def priced(budget: Budget) -> AgentManifest:
    models = msgspec.convert({"default": PRICED}, dict[str, ModelConfig])
    return AgentManifest(name="clerk", budget=budget, models=models)


class Spoken:
    """A provider that does what a test says."""

    def __init__(self, w: World | Band, *turns: Any) -> None:
        self.turns = list(turns)
        self.begun = asyncio.Event()
        self.gate: asyncio.Event | None = None
        driver: Any = w.kernel.gate.kinds[CallKind.MODEL].driver
        driver._ports.provider = lambda run, name: self

    async def answer(self, request: Any, key: str, again: Any = None) -> ModelAnswer:
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        turn = self.turns.pop(0)
        while turn == "again":
            await again()
            turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        assert isinstance(turn, ModelAnswer)
        return turn


def said(tokens_in: int, tokens_out: int, *, estimated: bool = False) -> ModelAnswer:
    return ModelAnswer(
        text="hi", tokens_in=tokens_in, tokens_out=tokens_out, model="m", estimated=estimated
    )
