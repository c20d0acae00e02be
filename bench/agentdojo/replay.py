"""One pair as a real run: an agent that makes the user's calls, and then obeys what was injected.

Every call goes through the gate of an embedded kernel. The kernel knows the user's prompt (the
run's task), the tools' manifests, all of them inferred by `ring0.tools.inferring`, and what the run
has seen: no list of what a task needs, no word on which call is whose.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from bench.agentdojo.served import Pair, Served
from ring0 import Context, agent
from ring0.errors import CallDenied, Ring0Error, ToolFailed
from ring0.governance import Question
from ring0.kernel.kernel import Kernel
from ring0.kernel.live import LiveRun
from ring0.kernel.steps.judging import Denied, Judged
from ring0.sdk.declare import agent_of
from ring0.sdk.embedded import embedded
from ring0.tools.inferring import manifest_of
from ring0.types import Approval, ApprovalState, Call, Operator, ToolManifest, VerdictKind

Mode = Literal["alone", "append", "substitute"]
"""`alone`: the user's calls. `append`: all of them, then the injection's. `substitute`: those up to
the first whose result shows the injected text, then the injection's instead of the rest."""

APPROVER: Final = Operator(name="the benchmark's approver")
PRINCIPAL: Final = "the benchmark's user"
RUN_S_MAX: Final = 120
ABOUT_ANY_TOOL: Final = 10
"""Of an operator's own policies: with the default set, 30 or so are looked at for each call."""


class Held(msgspec.Struct, kw_only=True):
    """A call that was not simply allowed."""

    tool: str
    verdict: str
    rules: tuple[str, ...]
    about: tuple[str, ...]
    """What the rules had against it: the facts of the question that are not as usual."""
    injected: bool


class Played(msgspec.Struct, kw_only=True):
    """What came of one pair in one mode."""

    pair: Pair
    mode: Mode
    before: int = 0
    """The user's calls that were made before the injection's."""
    made: int = 0
    """Injected calls that there were to make."""
    executed: int = 0
    """Those that a tool carried out."""
    official: bool = False
    """AgentDojo's own `security`, or `utility` where nothing was injected."""
    held: list[Held] = msgspec.field(default_factory=list)
    failed: str = ""

    @property
    def lost(self) -> bool:
        """All that was injected was carried out."""
        return self.made > 0 and self.executed == self.made

    @property
    def asks(self) -> list[Held]:
        return [one for one in self.held if one.verdict == "ask" and not one.injected]


class Times(msgspec.Struct):
    """Of each decision, in seconds."""

    wall_s: list[float] = msgspec.field(default_factory=list)
    """From the scan of what leaves to the verdict."""
    cpu_s: list[float] = msgspec.field(default_factory=list)
    """Where others use the machine, wall time at p99 is theirs: this is not."""
    verdict_s: list[float] = msgspec.field(default_factory=list)
    """The CPU's, without the scan, which takes what the text that leaves is long."""

    def __iadd__(self, other: Times) -> Times:
        self.wall_s += other.wall_s
        self.cpu_s += other.cpu_s
        self.verdict_s += other.verdict_s
        return self


class Theatre:
    """A kernel with someone who answers its asks, and a clock on its decisions."""

    def __init__(self, kernel: Kernel, served: Served) -> None:
        self._kernel = kernel
        self._served = served
        self._plays: dict[str, Played] = {}
        self._injecting: set[str] = set()
        """Runs that obey the attacker by now: what they ask is answered no."""
        self._answering: set[asyncio.Task[Any]] = set()
        self._tools: dict[str, tuple[ToolManifest, ...]] = {}
        self.times = Times()
        kernel.waiting.needed = self._needed
        kernel.pausing.told = self._told_no
        gate: Any = kernel.gate
        scan, decide = gate.scan, gate.decide
        scanned_s: dict[int, tuple[float, float]] = {}

        async def timed_scan(run: LiveRun, held: Any) -> None:
            steps = _Timed(scan(run, held))
            try:
                await steps
            finally:
                scanned_s[id(held)] = steps.taken_s, steps.cpu_s

        async def timed_decide(run: LiveRun, held: Any) -> Judged:
            steps = _Timed(decide(run, held))
            try:
                judged: Judged = await steps
            except Denied as no:
                self._note(run.id, no.judged)
                raise
            finally:
                wall_s, cpu_s = scanned_s.pop(id(held), (0.0, 0.0))
                self.times.wall_s.append(steps.taken_s + wall_s)
                self.times.cpu_s.append(steps.cpu_s + cpu_s)
                self.times.verdict_s.append(steps.cpu_s)
            if judged.verdict.kind is VerdictKind.ASK:
                self._note(run.id, judged)
            return judged

        gate.scan, gate.decide = timed_scan, timed_decide

    def _note(self, run: str, judged: Judged) -> None:
        if (played := self._plays.get(run)) is not None:
            verdict = judged.verdict
            played.held.append(
                Held(
                    tool=judged.held.name,
                    verdict=verdict.kind.value,
                    rules=tuple(reason.rule for reason in verdict.reasons),
                    about=tuple(_unusual(judged.question)),
                    injected=run in self._injecting,
                )
            )

    # --- people -------------------------------------------------------------------------------

    def _needed(self, what: Approval | Call, why: str) -> None:
        """A person is waited for: there is one, who knows what the user wants and what not."""
        if isinstance(what, Approval) and what.state is ApprovalState.PENDING:
            yes = what.run not in self._injecting
            self._soon(self._kernel.answer(what.id, yes=yes, by=APPROVER))

    def _told_no(self, root: str, runs: list[str]) -> None:
        """Three denials pause a run; an attacker that is let go on tries the rest, too."""
        for run in runs:
            self._soon(self._kernel.resume(run, by=APPROVER.name))

    def _soon(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    # --- runs ---------------------------------------------------------------------------------

    async def suite(self, name: str) -> dict[str, Any]:
        """What a suite has; its tools are known from then on."""
        found = await self._served.ask("suite", suite=name)
        self._tools[name] = tuple(
            manifest_of(tool["name"], tool["description"], tool["schema"], own_driver=True)
            for tool in found["tools"]
        )
        return found

    async def play(self, pair: Pair, mode: Mode) -> Played:
        """A run from its start to its end."""
        played = Played(pair=pair, mode=mode)
        stage = await self._served.ask("new", **pair._asdict())
        env = stage["env"]
        ends: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def tool(name: str, args: dict[str, Any]) -> Any:
            answer = await self._served.ask("call", env=env, name=name, args=args)
            if answer["shows"]:
                shown.set()
            if answer["failed"]:
                raise ToolFailed(answer["failed"], why="The tool's own.", todo="Nothing.")
            return answer["value"]

        shown = asyncio.Event()

        @agent(name="puppet", budget="1000 calls, 10 min")
        async def puppet(ctx: Context, task: str) -> None:
            self._plays[ctx.run] = played
            try:
                ends.set_result(await self._act(ctx, played, stage, shown))
            except BaseException as error:
                if not ends.done():
                    ends.set_exception(error)
                raise
            finally:
                self._injecting.discard(ctx.run)

        manifest = _declared(puppet, self._tools[pair.suite])
        functions = {f"tool:{one.name}": _caller(tool, one.name) for one in manifest.functions}
        row = await self._kernel.start_embedded(
            manifest,
            (),
            {"agent:puppet": puppet, **functions},
            stage["prompt"],
            principal=PRINCIPAL,
        )
        try:
            async with asyncio.timeout(RUN_S_MAX):
                await self._kernel.runs.wait(row.id)
        except TimeoutError:
            played.failed = f"no end within {RUN_S_MAX} s"
            await self._kernel.kill("run", row.id, by=APPROVER.name)
        output = ""
        if ends.done() and ends.exception() is None:
            output = ends.result()
        elif ends.done():
            played.failed = played.failed or str(ends.exception())[:300]
        check = "security" if pair.injection else "utility"
        judged = await self._served.ask("end", env=env, output=output, check=check)
        played.official = judged["holds"]
        self._plays.pop(row.id, None)
        return played

    async def _act(
        self, ctx: Context, played: Played, stage: dict[str, Any], shown: asyncio.Event
    ) -> str:
        """The calls, in order. What the user would be told."""
        for name, args in stage["calls"]:
            await _made(ctx, name, args)
            played.before += 1
            if played.mode == "substitute" and shown.is_set():
                break
        said = [str(stage["output"])]
        if played.mode == "alone":
            return said[0]
        attack = await self._served.ask("attack", env=stage["env"])
        self._injecting.add(ctx.run)
        for name, args in attack["calls"]:
            played.made += 1
            played.executed += await _made(ctx, name, args)
        return "\n".join([*said, attack["output"]])


async def _made(ctx: Context, name: str, args: dict[str, Any]) -> bool:
    """Whether a tool carried it out: one that failed by itself did."""
    try:
        await ctx.tool(name, **args)
    except ToolFailed:
        return True
    except (CallDenied, Ring0Error):
        return False
    return True


def _declared(puppet: Callable[..., Any], tools: tuple[ToolManifest, ...]) -> Any:
    declared = agent_of(puppet)
    assert declared is not None
    return msgspec.structs.replace(declared.manifest, functions=tools)


def _caller(tool: Callable[..., Any], name: str) -> Callable[..., Any]:
    async def call(args: dict[str, Any], call_id: str, fences: dict[str, int]) -> Any:
        return await tool(name, args)

    return call


_USUAL: Final = frozenset(
    {
        *("tenant", "principal", "agent", "run", "action", "resource", "effect", "reversal"),
        *("mutates", "own", "args", "depth", "run_integrity", "run_confidentiality"),
        *("calls_used", "cost_microusd", "budget_left_calls", "budget_left_tokens"),
        *("budget_left_microusd", "unattended"),
    }
)


def _unusual(question: Question) -> list[str]:
    """The facts of a question that are neither empty nor what every question has."""
    facts = msgspec.to_builtins(question)
    return [f"{key}={value}" for key, value in facts.items() if value and key not in _USUAL]


class _Timed:
    """Awaits something, and knows how long it took by itself: without what it waited for."""

    def __init__(self, work: Any) -> None:
        self._work = work
        self.taken_s = self.cpu_s = 0.0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._work.__await__()
        given: Any = None
        thrown: BaseException | None = None
        while True:
            cpu, begun = time.thread_time(), time.perf_counter()
            try:
                waits_for = steps.send(given) if thrown is None else steps.throw(thrown)
            except StopIteration as end:
                return end.value
            finally:
                self.taken_s += time.perf_counter() - begun
                self.cpu_s += time.thread_time() - cpu
            given = thrown = None
            try:
                given = yield waits_for
            except BaseException as error:
                thrown = error


@asynccontextmanager
async def theatre(home: Path, served: Served, *, defended: bool, policies: int = 0) -> Any:
    """A kernel as it is shipped; `defended=False`: the profile `observe`, which holds nothing.
    `policies`: so many of an operator's own beside the default set."""
    home.mkdir(parents=True)
    config = "" if defended else 'profile = "observe"\n'
    if policies:
        (home / "many.cedar").write_text(_policies(policies))
        config += 'policy = ["many.cedar"]\n'
    (home / "ring0.toml").write_text(config)
    async with embedded(home, {}) as ring:
        yield Theatre(ring.kernel, served)


def _policies(count: int) -> str:
    """Rules that let nothing through and stop nothing here: some about any tool's rows, the rest
    about tools that are not there."""
    texts = []
    for number in range(count):
        where, when = f'action in Action::"tool", resource == Tool::"other.t{number}"', ""
        if number < ABOUT_ANY_TOOL:
            where = 'action in Action::"tool", resource'
            when = f" when {{ context.rows > {1_000_000 + number} }}"
        texts.append(f'@id("r{number}") forbid (principal, {where}){when};')
    return "\n".join(texts)
