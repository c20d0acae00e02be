"""The world outside: what tools do to it, what models charge, and a ledger of both.

The ledger is the truth that the journal is held against. What a call comes to is fixed by the seed
and by which call it is, so that a run that is started again meets the same world.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from ring0.errors import EffectUnknown, ModelFailed, ToolFailed
from ring0.models import ModelAnswer, ModelRequest
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.types import Effect, Integrity, Label, ToolManifest

if TYPE_CHECKING:
    from sim.world import World


@dataclass
class Doing:
    """All that the world saw of one call."""

    call: str
    effect: Effect
    begun: list[tuple[float, int]] = field(default_factory=list)
    """When, and in which kernel's life."""
    landed: list[float] = field(default_factory=list)
    clean: bool = False
    """It said that it did nothing."""
    under_way: list[int] = field(default_factory=list)
    """The lives in which it is being done."""


class Outside:
    """One seed's world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.doings: dict[str, Doing] = {}
        self.billed: Counter[str] = Counter()
        """By the run that asked: what models charged, micro-US-dollars."""
        self.fences: dict[tuple[str, str], list[tuple[float, int, str]]] = defaultdict(list)
        """By tenant and resource: when an effect began under which fence, and of which run."""
        self.posted: list[tuple[float, str]] = []
        """Effects on their way: they land though whoever sent them is gone."""

    def fate(self, call: str, what: str) -> random.Random:
        """Dice for this call: the same in every life of its run."""
        return random.Random(f"{self._world.seed} {self._world.name_of(call)} {what}")

    def land(self, call: str) -> None:
        self.doings[call].landed.append(self._world.clock.now_s)
        self._world.moment("landed")

    def arrive(self) -> None:
        """What was posted and has had its time."""
        now_s = self._world.clock.now_s
        for at_s, call in [one for one in self.posted if one[0] <= now_s]:
            self.posted.remove((at_s, call))
            self.doings[call].landed.append(at_s)

    def happened(self, call: str) -> bool:
        doing = self.doings.get(call)
        return doing is not None and bool(doing.landed)


class SimulatedTool:
    """A driver whose effects go to the ledger."""

    def __init__(self, world: World, manifest: ToolManifest) -> None:
        self._world = world
        self.manifest = manifest

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        await self._world.pause("dry run", 0.02)
        pure = self.manifest.effect is Effect.PURE
        return Prepared(
            driver_bytes=msgspec.json.encode(args, order="sorted"),
            own=pure,
            mutates=not pure,
            touches=(args["on"],) if args.get("on") and not pure else (),
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        world, call = self._world, context.call
        life = world.life
        assert life is not None
        doing = world.outside.doings.setdefault(call, Doing(call, self.manifest.effect))
        if life.dead:
            raise asyncio.CancelledError
        world.checks.begins(context, self.manifest, doing, prepared)
        doing.begun.append((world.clock.now_s, life.number))
        doing.under_way.append(life.number)
        try:
            world.moment("effect")
            value = await self._do(doing, args)
        finally:
            doing.under_way.remove(life.number)
        label = Label(
            integrity=Integrity.TRUSTED_FIELD if args.get("n", 0) % 2 else Integrity.UNTRUSTED
        )
        return Result(value=value, label=label)

    async def _do(self, doing: Doing, args: dict[str, Any]) -> Any:
        world, call = self._world, doing.call
        dice = world.outside.fate(call, "tool")
        end = dice.choice(ENDS[self.manifest.effect])
        world.seen("tool " + end)
        await world.pause("before", dice.choice((0.001, 0.05, 2.0)))
        if end == "fails":
            doing.clean = True
            raise ToolFailed("simulated: it did nothing")
        if end == "hangs before":
            await asyncio.get_running_loop().create_future()
        if end == "unknown without":
            raise EffectUnknown("simulated: nobody knows")
        if end == "breaks without":
            raise ValueError("simulated")
        if end == "posted":
            at_s = world.clock.now_s + dice.random() * 3
            world.outside.posted.append((at_s, call))
            asyncio.get_running_loop().call_at(at_s, world.outside.arrive)
            await world.pause("posted", 0.0, least_s=max(0.0, at_s - world.clock.now_s))
        elif self.manifest.effect is not Effect.PURE:
            world.outside.land(call)
        await world.pause("after", dice.choice((0.001, 0.05, 1.0)))
        if end == "hangs after":
            await asyncio.get_running_loop().create_future()
        if end == "unknown with":
            raise EffectUnknown("simulated: nobody knows")
        if end == "breaks with":
            raise ValueError("simulated")
        return {"n": args.get("n", 0), "of": dice.randrange(1_000)}


OFTEN = ("works",) * 12
ENDS = {
    Effect.PURE: (*OFTEN, "fails", "breaks without"),
    Effect.IDEMPOTENT: (*OFTEN, "fails", "breaks with", "posted", "posted"),
    Effect.ONCE: (
        *OFTEN, "fails", "posted", "posted", "unknown with", "unknown without", "breaks with",
        "breaks without", "hangs before", "hangs after",
    ),
}  # fmt: skip


class SimulatedModel:
    """A provider that charges, is slow, refuses for a time and fails."""

    def __init__(self, world: World, slow_down: Callable[[float], None]) -> None:
        self._world = world
        self._slow_down = slow_down

    async def answer(
        self, request: ModelRequest, idempotency_key: str, again: Any = None
    ) -> ModelAnswer:
        world, call = self._world, idempotency_key
        dice = world.outside.fate(call, "model")
        end = dice.choice(("works",) * 8 + ("slow down", "fails", "fails unpaid", "counts nothing"))
        world.seen("model " + end)
        tokens_in = sum(len(m.content) for m in request.messages) // 4 + 1
        tokens_out = dice.randrange(1, request.max_tokens + 1)
        await world.pause("model", dice.choice((0.1, 1.0, 10.0)))
        if end == "slow down":
            self._slow_down(2.0)
            await world.pause("told to wait", 0.0, least_s=2.0)
        if end == "fails unpaid":
            failed = ModelFailed("simulated: not reached")
            failed.unspent = True
            raise failed
        if world.life is None or world.life.dead:
            raise asyncio.CancelledError
        run = call.partition("/")[0]
        world.outside.billed[run] += world.price(run) * (tokens_in + 4 * tokens_out)
        if end == "fails":
            raise ModelFailed("simulated: paid for, and failed")
        await world.pause("model's answer", 0.5)
        return ModelAnswer(
            text=f"answer {dice.randrange(1_000)}",
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            model="simulated",
            estimated=end == "counts nothing",
        )

    async def close(self) -> None:
        """Nothing is open."""
