"""What a seed means: who runs what, and what goes wrong. Plain data, worked out beforehand.

A program is a list of steps; a step is a list whose first item is its word (`programs.py` carries
them out). All of it is JSON, for it travels as the task of a run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from ring0.runtime import POINTS
from ring0.types import AgentManifest, Budget, Effect, ModelConfig, ToolManifest

Step = list[Any]
AGENTS = ("clerk", "scout", "smith")
TENANTS = ("acme", "bolt", "crow")
RESOURCES = ("table:orders", "ticket:42", "file:/x")
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "on": {"type": "string"}},
    "additionalProperties": False,
}
TOOLS = {
    "look": Effect.PURE,
    "put": Effect.IDEMPOTENT,
    "fire": Effect.ONCE,
    "sign": Effect.ONCE,
}
"""`sign` is asked about; the others the policy permits."""
POLICY = """
@id("sim-put")
permit (principal, action in Action::"tool", resource == Tool::"put");
@id("sim-fire")
permit (principal, action in Action::"tool", resource == Tool::"fire");
"""
EACH_MOMENT_EVERY = 4
"""Every so many seeds a kernel dies when it is at one certain moment for the first time."""


@dataclass
class Task:
    """One root run."""

    name: str
    agent: str
    tenant: str
    at_s: float
    program: list[Step]
    budget: Budget
    priority: int
    plain: bool = False
    """What it comes to depends on nothing but the seed: no lock, no race, no person, no budget."""


@dataclass
class Deed:
    """Something that an operator does, or that happens to the machine."""

    at_s: float
    what: str
    pick: float
    """Chooses among what is there at that time."""
    size: float = 0.0


@dataclass
class Plan:
    seed: int
    tasks: list[Task]
    deeds: list[Deed] = field(default_factory=list)
    deaths: list[tuple[str, float]] = field(default_factory=list)
    """For each kernel but the last how it ends: (`time`, seconds), (name of a moment, count)."""
    patience: float = 1.0
    """How many of the asks a person answers."""
    calm: bool = False
    """No fault and no operator: what comes of it is what the programs say."""
    config: str = ""
    """Of ring0.toml, beside the policy."""
    park_after_s: float = 20.0
    at_work_max: int = 256


POINTS_HERE = tuple(point for point in POINTS if not point.startswith("sandbox."))
"""Named points of the kernel that a run of this process passes."""
MOMENTS = ("append", "told", "commit", "on disk", "effect", "landed", "answer", *POINTS_HERE)


class Planner:
    """Rolls the dice for one seed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(f"plan {seed}")
        self.seed = seed
        self.root = ""
        """The agent of the task that is being planned."""

    def calm(self) -> Plan:
        """The same tasks in a world without faults, operators and scarcity."""
        plan = self.plan()
        plan.deeds, plan.deaths, plan.calm, plan.config = [], [], True, ""
        plan.park_after_s, plan.at_work_max = 20.0, 256
        return plan

    def plan(self) -> Plan:
        dice = self.dice
        tasks = [self._task(f"t{number}") for number in range(dice.choice((1, 2, 2, 3, 4)))]
        plan = Plan(self.seed, tasks)
        plan.calm = dice.random() < 0.1
        plan.patience = dice.choice((1.0, 1.0, 0.8, 0.5))
        plan.park_after_s = dice.choice((0.05, 0.5, 3.0, 20.0))
        plan.at_work_max = dice.choice((1, 2, 256, 256))
        plan.config = self._config()
        if plan.calm:
            return plan
        for _ in range(dice.choice((0, 0, 1, 1, 2, 4))):
            plan.deeds.append(self._deed())
        for _ in range(dice.choice((0, 1, 1, 2, 3, 4))):
            plan.deaths.append(self._death())
        if self.seed % EACH_MOMENT_EVERY == 0:  # So that none is left out.
            moment = MOMENTS[self.seed // EACH_MOMENT_EVERY % len(MOMENTS)]
            plan.deaths.insert(0, (moment, 1))
        return plan

    def _config(self) -> str:
        dice = self.dice
        text = f"[scheduler]\ncalls_at_once = {dice.choice((1, 2, 4, 256))}\n"
        text += f"[scheduler.models.openai]\nat_once = {dice.choice((1, 2, 64))}\n"
        if dice.random() < 0.3:
            cap = '[[caps]]\ntool = "{}"\nof = "{}"\nmost = {}\nwindow = "{}"\n'
            text += cap.format("fire", "calls", dice.choice((1, 3)), dice.choice(("10 s", "1 h")))
            text += cap.format("model:*", "tokens", dice.choice((2_000, 20_000)), "1 min")
            text += cap.format("model:*", "money", dice.choice(('"0.001"', '"0.1"')), "1 h")
        return text

    def _death(self) -> tuple[str, float]:
        dice = self.dice
        if dice.random() < 0.4:
            return "time", dice.random() ** 3 * 120
        moment = dice.choice(MOMENTS)
        if moment.startswith("kernel."):
            return moment, 1
        often = moment in ("append", "told", "commit", "on disk") or moment.startswith("group.")
        most = 60 if often else 12 if moment.startswith(("call.", "effect")) else 4
        return moment, dice.randrange(1, most)

    def _deed(self) -> Deed:
        dice = self.dice
        what = dice.choice(
            ("kill run", "kill run", "kill tree", "kill agent", "kill tenant", "kill all", "jump",
             "full", "broken", "slow", "pause", "pause", "stop", "stop", "send", "send", "raise")
        )  # fmt: skip
        return Deed(dice.random() ** 2 * 90, what, dice.random(), dice.random())

    def _task(self, name: str) -> Task:
        dice = self.dice
        plain = dice.random() < 0.25
        tight = not plain and dice.random() < 0.2
        budget = Budget(
            calls=dice.randrange(2, 25) if tight else 1_000,
            tokens=dice.choice((500, 20_000)) if tight else 2_000_000,
            cost_microusd=dice.choice((0, 2_000, 100_000)) if tight else 10_000_000,
            wall_s=dice.choice((20, 120, 600, 600, 1_800)),
            children=dice.choice((1, 3)) if tight else 64,
            depth=dice.choice((0, 1, 3)) if tight else 3,
        )
        if plain:  # Children share what is left: who asks first must not matter.
            budget = replace(budget, calls=1_000_000, tokens=2_000_000_000, children=100_000)
        self.root = dice.choice(AGENTS)
        return Task(
            name,
            agent=self.root,
            tenant=dice.choice(TENANTS),
            at_s=dice.random() ** 2 * 30,
            program=self.program(0, dice.randrange(1, 9), plain=plain),
            plain=plain,
            budget=budget,
            priority=dice.choice((0, 5, 5, 9)),
        )

    def program(self, depth: int, length: int, *, plain: bool = False) -> list[Step]:
        return [self._step(depth, plain) for _ in range(length)]

    def _step(self, depth: int, plain: bool) -> Step:
        dice = self.dice
        words = ["look", "look", "put", "put", "fire", "fire", "fire", "sign", "model", "model",
                 "note", "recall", "sleep", "now", "random", "wrong"]  # fmt: skip
        if depth < 2:
            words += ["spawn", "spawn", "both", "both", "lock", "lock"]
        words += ["send", "receive", "ask", "again"]
        if plain:
            words = ["look", "put", "model", "note", "recall", "sleep", "now", "random", "wrong"]
            words += ["both"] if depth < 2 else ["now"]
            words += ["spawn"] if depth < 1 else []
        word = dice.choice(words)
        number = dice.randrange(1_000)
        match word:
            case "look" | "put" | "fire" | "sign":
                return ["tool", word, number, "" if plain else dice.choice(("", "", *RESOURCES))]
            case "model":
                return ["model", number, dice.choice((16, 64, 256))]
            case "sleep":
                return ["sleep", dice.choice((0, 0.2, 1.5, 5, 40))]
            case "spawn":
                agents = [one for one in AGENTS if one != self.root or not plain]
                children = [
                    [
                        dice.choice(agents),
                        self.program(depth + 1, dice.randrange(1, 5), plain=plain),
                    ]
                    for _ in range(dice.choice((1, 1, 2, 3)))
                ]
                how = dice.choice(("wait", "wait", "leave", "gather", "race", "any", "cancel"))
                if plain:
                    how = dice.choice(("wait", "gather"))
                return ["spawn", how, children]
            case "both":
                ways = [
                    self.program(depth + 1, dice.randrange(1, 4), plain=plain) for _ in range(2)
                ]
                return ["both", *ways]
            case "lock":
                inner = self.program(depth + 1, dice.randrange(1, 4))
                lease = dice.choice((1, 5, 60))
                resource = dice.choice(RESOURCES)
                return ["lock", resource, dice.random() < 0.4, lease, inner, dice.random() < 0.7]
            case "send":
                return ["send", dice.choice(("parent", "child", "self")), number]
            case "receive":
                return ["receive", dice.choice((0, 3, 30))]
            case "ask":
                what = dice.choice(("calls", "tokens", "usd", "children", "wall_s"))
                return ["ask", what, dice.randrange(1, 20)]
            case "again":
                return ["again", dice.choice(("look", "put")), number, dice.choice((2, 4, 7))]
            case _:
                return [word, number]


def manifest(name: str, task: Task) -> AgentManifest:
    """An agent of the simulation: all have the same tools, and may spawn each other. A child wants
    a part of what there is. For a plain task models are free, and no part can be too small."""
    budget = task.budget
    if name != task.agent:
        budget = replace(
            budget,
            calls=max(1, budget.calls // 4),
            tokens=budget.tokens // 4,
            cost_microusd=budget.cost_microusd // 4,
            children=budget.children // 4,
        )
        if task.plain:
            budget = replace(budget, calls=1_000, tokens=2_000_000, cost_microusd=0, children=0)
    return AgentManifest(
        name=name,
        functions=tuple(
            ToolManifest(name=tool, description="simulated", schema=SCHEMA, effect=effect)
            for tool, effect in TOOLS.items()
        ),
        models={
            "default": ModelConfig(
                provider="openai",
                model="simulated",
                price_in_microusd_per_mtok=0 if task.plain else 1_000_000,
                price_out_microusd_per_mtok=0 if task.plain else 4_000_000,
            )
        },
        agents=AGENTS,
        budget=budget,
        priority=task.priority,
    )
