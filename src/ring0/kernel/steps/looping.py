"""What the scheduler's loop stop is told of calls, and what it says goes back: the kernel's side.

Fingerprints are kept here, outside every model's context; they go on record with each call, so that
after a crash they are as they were. Nothing is decided here: `scheduler/loops.py` counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from ring0 import limits
from ring0.errors import LoopStopped, Ring0Error
from ring0.kernel import values
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.memory import warning
from ring0.runtime import Runtime
from ring0.scheduler.loops import Asked, Ended, Lane, Watch, only_asked
from ring0.scheduler.noise import plain
from ring0.scheduler.trees import Tree, check_chain
from ring0.store import Store, child_of
from ring0.tools.driver import Result
from ring0.types import Call, CallKind, CallState, Run

LANES: Final = {
    CallKind.TOOL: Lane.ACT,
    CallKind.MEMORY_RECALL: Lane.ACT,
    CallKind.MEMORY_EXPLAIN: Lane.ACT,
    CallKind.MEMORY_APPEND: Lane.ECHO,
    CallKind.MEMORY_REMEMBER: Lane.ECHO,
    CallKind.MEMORY_SUPERSEDE: Lane.ECHO,
    CallKind.MEMORY_SET: Lane.ECHO,
    CallKind.SEND: Lane.ECHO,
    CallKind.MODEL: Lane.MODEL,
    CallKind.SPAWN: Lane.SPAWN,
    CallKind.EGRESS: Lane.CAPPED,
    CallKind.OBSERVED: Lane.ACT,
}
"""The other kinds wait, or take no arguments: the budget is enough for them."""
DOOR_RECALL: Final = "recalled"
"""Ends the id of a recall that a model door makes for its client: that is no act of the agent's."""
_NOTHING: Final = Ended("")
_PAUSE_US: Final = limits.LOOP_PAUSE_MS_MIN * 1_000


class Trees:
    """The trees of which a run is at work in this kernel."""

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime
        self._trees: dict[str, Tree] = {}
        self._making = asyncio.Lock()

    async def join(self, run: LiveRun) -> None:
        """Gives a run that starts its watch, with all that is on record of it and its tree."""
        root = run.row.root
        tree = self._trees.get(root)
        if tree is None and root == run.id and run.row.epoch <= 1:
            tree = self._trees[root] = Tree(run.key, self._runtime)
        elif tree is None:
            async with self._making:
                tree = self._trees.get(root) or await self._from_record(root, run.id)
                self._trees[root] = tree
        tree.join(run.id)
        run.watch = Watch(tree, run.id)
        restore(run.watch, run.records.values(), tree=False)

        async def leave() -> None:
            if tree.leave(run.id) and self._trees.get(root) is tree:
                del self._trees[root]

        run.leaving.append(leave)

    async def _from_record(self, root: str, run: str) -> Tree:
        await self._store.flush()
        tree = Tree(await self._store.run_key(root), self._runtime)
        for row in reversed(await self._store.runs(root=root, most=limits.RUNS_LISTED_MAX)):
            restore(Watch(tree, row.id), await self._store.calls(row.id), tree=True)
        return tree


def restore(watch: Watch, calls: Iterable[Call], *, tree: bool) -> None:
    """Counts what is on record. `tree`: for the tree; otherwise for the run alone."""
    for call in sorted(calls, key=lambda one: (one.ended_us or one.begun_us, one.seq)):
        path = path_of(call.id)
        if call.kind is CallKind.PROPOSAL and call.notice and not tree:
            watch.notice = call.notice
        if call.kind is CallKind.SLEEP:
            if call.state is CallState.OK and call.ended_us - call.begun_us >= _PAUSE_US:
                watch.pause(path)
            continue
        waits = call.kind is CallKind.WAIT
        lane = Lane.SPAWN if waits else LANES.get(call.kind)
        if lane is None or not call.fingerprint:
            continue
        asked = None
        for part in call.fingerprint.split(" "):
            asked = watch.remember(part, lane, path, count=not waits, tree=tree)
        if call.kind is CallKind.SPAWN and asked is not None:
            watch.children[child_of(call.id)] = asked
        if call.kind is CallKind.MODEL:
            watch.notice = ""
        elif call.notice:
            watch.notice = call.notice


def path_of(call: str) -> str:
    """The task of the agent that made it: what it does one after another."""
    return call.split("/", 2)[1]


# --- asking -----------------------------------------------------------------------------------


async def check(run: LiveRun, held: Held, store: Store) -> None:
    """Counts a call that is about to be judged, once; waits where its tree calls too quickly. What
    failed in earlier runs is told with it.

    Raises LoopStopped.
    """
    if run.watch is None or held.retry is not None or held.asked is not None:
        return
    await warning.check(run, held, store)
    lane = _lane(held)
    if lane is None:
        return
    await run.watch.tree.turn()
    held.asked = _ask(run.watch, held, lane)
    if held.kind is CallKind.SPAWN:
        task = _bare(str(held.args.get("task", "")))
        if check_chain(await _chain(run, store), held.name, task):
            held.notice = (
                f"ring0: {held.name} stands on this very task already, above this run. The next"
                " time it is handed down unchanged is refused: hand down a part of it."
            )


def _lane(held: Held) -> Lane | None:
    return None if held.id.endswith(f"/{DOOR_RECALL}") else LANES.get(held.kind)


def _ask(watch: Watch, held: Held, lane: Lane) -> Asked:
    manifest = held.tool.manifest if held.tool is not None else None
    name = manifest.name if manifest is not None else ""  # An unknown name is anybody's text.
    if held.kind in (CallKind.SPAWN, CallKind.MODEL) and manifest is not None:
        name = f"{held.kind} {held.name}"
    polls = manifest is not None and manifest.polls
    what = name or f"this {held.kind} call"
    canonical = held.canonical
    if held.kind is CallKind.OBSERVED:  # What was asked for is the call that it came of.
        what = held.name
        canonical = values.canonical([CallKind.PROPOSAL, held.name, held.args.get("args")])
    return watch.ask(canonical, lane, path_of(held.id), what, polls=polls)


async def _chain(run: LiveRun, store: Store) -> list[tuple[str, str]]:
    """(agent, task) of the run and of all above it, tasks without noise."""
    assert run.watch is not None
    if not run.watch.chain:
        chain = []
        row: Run | None = run.row
        while row is not None:
            task = (await store.blob(row.task)).decode("utf-8", "replace")
            chain.append((row.agent, _bare(task)))
            row = await store.run(row.parent) if row.parent else None
        run.watch.chain = chain
    return run.watch.chain


def _bare(task: str) -> str:
    return plain(" ".join(task.casefold().split()))


# --- what came of it --------------------------------------------------------------------------


def ended(run: LiveRun, held: Held, value: object, result: Result | None) -> Ended:
    """Takes in an answer. `result`: None where it is an error, whose text is the value."""
    watch = run.watch
    if watch is None:
        return _NOTHING
    if held.kind is CallKind.SLEEP and result is not None:
        if held.args["seconds"] * 1_000 >= limits.LOOP_PAUSE_MS_MIN:
            watch.pause(path_of(held.id))
        return _NOTHING
    if held.kind is CallKind.WAIT:
        return _waited(watch, held, value, failed=result is None)
    if held.asked is None:
        return _NOTHING
    if held.kind is CallKind.SPAWN and result is not None and isinstance(value, dict):
        watch.children[str(value.get("run"))] = held.asked
        return _told(watch, held, Ended(only_asked(held.asked)))
    if held.kind is CallKind.MODEL and isinstance(value, dict):
        value = _proposals(value)
        if value is None:  # Texts may be alike: to ask ten times is a poll.
            return _told(watch, held, Ended(only_asked(held.asked)))
    if held.kind is CallKind.OBSERVED and result is not None:
        value = held.args["result"]
    if held.asked.lane is Lane.CAPPED:
        return Ended(only_asked(held.asked))
    state = b"" if result is None else _state(run, result)
    return _told(watch, held, watch.ended(held.asked, values.canonical(value), state))


def _waited(watch: Watch, held: Held, value: object, *, failed: bool) -> Ended:
    """What came of a wait: of each child that it names, for what the child was spawned for."""
    path, args = path_of(held.id), held.args
    if "message" in args:
        if not failed and isinstance(value, dict):
            said = values.canonical([value.get("sender"), value.get("value")])
            return watch.ended(watch.heard(path), said)
        if args.get("timeout_s", 0) * 1_000 >= limits.LOOP_PAUSE_MS_MIN:
            watch.pause(path)
        return _NOTHING
    ends = [{"run": args["run"], "value": value}] if "run" in args else value
    found = []
    for end in ends if isinstance(ends, list) else ():
        run = str(end.get("run")) if isinstance(end, dict) else ""
        if asked := watch.child(run):
            # What failed is told with the child's own id: that alone is nothing new.
            said = values.canonical({**end, "run": ""}).replace(run.encode(), b"")
            found.append(watch.ended(asked, said))
    notice = next((one.notice for one in found if one.notice), "")
    return Ended(" ".join(one.fingerprint for one in found), notice)


def _told(watch: Watch, held: Held, seen: Ended) -> Ended:
    """With what the call itself was said to be; a model's answer is told nothing of its own."""
    if not held.notice or held.kind is CallKind.MODEL:
        return seen
    watch.notice = held.notice
    return Ended(seen.fingerprint, held.notice)


def _proposals(answer: dict[str, Any]) -> object:
    """What a model proposes, without the ids of its provider; None: it proposes nothing."""
    calls = answer.get("tool_calls") or ()
    return [[call.get("name"), call.get("args")] for call in calls] or None


def _state(run: LiveRun, result: Result) -> bytes:
    """What of the world it changed, as it is now: the same again is no progress."""
    if result.files:
        return b"".join(
            values.canonical([change.path, _content(run, change.value)])
            for change in sorted(result.files, key=lambda one: one.path)
        )
    return _content(run, result.undo).encode() if result.undo else b""


def _content(run: LiveRun, content: bytes | None) -> str:
    assert run.watch is not None
    return "" if content is None else f"{run.watch.tree.digest(content):016x}"


def refused(run: LiveRun, held: Held, error: Ring0Error) -> tuple[Ring0Error, Ended]:
    """Takes in a no. One that is asked for again and again is a loop too, whoever says it."""
    if run.watch is None or isinstance(error, LoopStopped) or held.retry is not None:
        return error, _NOTHING
    if held.kind is CallKind.MODEL and held.notice:
        run.watch.notice = held.notice  # The model has not heard it.
    lane = _lane(held)
    if lane is None:
        return error, _NOTHING
    try:
        held.asked = held.asked or _ask(run.watch, held, lane)
    except LoopStopped as stopped:
        return stopped, _NOTHING
    return error, ended(run, held, [error.code, error.what], None)


def told(run: LiveRun, held: Held) -> str:
    """What a model's call is to be given beside what the agent sends: each notice once."""
    if held.kind is not CallKind.MODEL:
        return ""
    if not held.notice and run.watch is not None:
        held.notice = held.retry.notice if held.retry else run.watch.tell()
    return held.notice
