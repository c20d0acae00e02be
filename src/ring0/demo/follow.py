"""Follows the demo's run in its journal and tells it to the screen as it happens.

What is told is what is on record: verdicts, dry runs, outcomes, and what the model was told its
own code had printed. Nothing is taken from the agent's word alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from ring0.demo.screen import Screen, line
from ring0.kernel.kernel import Kernel
from ring0.store import events as ev
from ring0.types import (
    Approval,
    ApprovalState,
    Call,
    CallKind,
    CallState,
    Origin,
    Outcome,
    Run,
    Shown,
)

Answer = Callable[[Approval, Shown], Awaitable[None]]
"""Gets an answer from somebody and gives it to the kernel; cancelled where another was quicker."""
POLL_S: Final = 0.03
LOCAL: Final = "python"
"""The function that runs in the agent's own process: the kernel sees only that it is proposed."""


class Attempt(msgspec.Struct):
    """Code that the model had the agent's process run, and what the model was told of it."""

    code: str
    printed: str | None = None


class Follower:
    """One run's journal, told once, entry by entry."""

    def __init__(self, kernel: Kernel, screen: Screen, answer: Answer) -> None:
        self.attempts: dict[str, Attempt] = {}
        """By the id of the proposal."""
        self.refused: list[Call] = []
        self._kernel = kernel
        self._store = kernel.store
        self._screen = screen
        self._answer = answer
        self._seen = 0
        self._calls: dict[str, Call] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def follow(self, run: str) -> Run:
        """Until the run has ended and all of it is told."""
        runtime = self._kernel.runtime
        ending = runtime.start(self._kernel.runs.wait(run), name="the demo's run")
        try:
            while not ending.done():
                await self._look(run)
                await runtime.sleep(POLL_S)
            await self._look(run)
            return await ending
        finally:
            ending.cancel()
            for task in self._asking.values():
                task.cancel()
            await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _look(self, run: str) -> None:
        for task in self._asking.values():
            if task.done() and not task.cancelled():
                task.result()  # what kept the answer from being given ends the demo
        fresh = [entry async for entry in self._store.entries(run) if entry.seq > self._seen]
        for entry in fresh:
            self._seen = entry.seq
            await self._tell(entry.body)

    async def _tell(self, body: ev.AnyEvent) -> None:
        match body:
            case (
                ev.SandboxStarted(purpose="agent", pid=pid)
                | ev.SandboxClaimed(purpose="agent", pid=pid)
            ):
                self._screen.fact("process", f"{pid}, the agent's own, in a sandbox")
            case ev.CallIntended(call=call):
                self._calls[call.id] = call
                if call.kind is CallKind.MODEL:
                    await self._model_told(call)
            case ev.CallRefused(call=call):
                await self._refused(call)
            case ev.CallEnded():
                await self._ended(self._calls[body.call], body)
            case ev.CallCutOff(call=call_id, why=why):
                self._screen.call("unknown", "bold yellow", "", f"{call_id}: {why}")
            case ev.ApprovalAsked(approval=approval):
                await self._asked(approval)
            case ev.ApprovalAnswered():
                self._answered(body)
            case ev.ApprovalEdited(approval=approval_id, by=by):
                edited = ApprovalState.EDITED
                self._answered(ev.ApprovalAnswered(approval=approval_id, state=edited, by=by))
            case _:
                pass

    # --- calls --------------------------------------------------------------------------------

    async def _ended(self, call: Call, body: ev.CallEnded) -> None:
        outcome = await self._outcome(body.outcome)
        args = await self.args(call)
        if outcome.state is not CallState.OK:
            error = outcome.error or {}
            self._screen.call("failed", "red", call.name or call.kind, _what(args), rule_of(call))
            self._screen.under(line(error.get("what", ""), 300))
        elif call.kind is CallKind.MODEL:
            self._proposed(outcome.value)
        elif call.kind is CallKind.MEMORY_RECALL:
            self._screen.call("allowed", "green", call.kind, line(args["query"], 60), rule_of(call))
            self._remembered(call.run, outcome.value)
        else:
            if call.name == "files.read":
                self._ticket(args["path"], outcome.value)
            result = _came_to(outcome.value)
            self._screen.call(
                "allowed",
                "green",
                call.name or call.kind,
                _what(args),
                f"{rule_of(call)} {result}".strip(),
            )
            if call.approval:
                self._screen.under(
                    ("done as approved: ", "dim"), counts(outcome.value.get("changed", {}))
                )

    async def _refused(self, call: Call) -> None:
        self.refused.append(call)
        error = (await self._outcome(call.outcome)).error or {}
        args = await self.args(call)
        self._screen.call("REFUSED", "bold red", call.name or call.kind, _what(args))
        self._screen.under((line(error.get("what", ""), 300), "red"))
        self._screen.reasons(call.verdict)
        self._screen.origins(await self._origins(call))

    async def _origins(self, call: Call) -> tuple[Origin, ...]:
        if not call.decision:
            return ()
        evidence = msgspec.json.decode(await self._store.blob(call.decision))
        return msgspec.convert(evidence["shown"], Shown).origins

    def _ticket(self, path: str, value: Any) -> None:
        told = str(value.get("text", "")).splitlines()
        subject = next((one.partition(": ")[2] for one in told if one.startswith("Subject: ")), "")
        self._screen.part(f"{line(path, 40)}  {line(subject, 50)}")

    def _remembered(self, run: str, found: list[dict[str, Any]]) -> None:
        earlier = [one for one in found if one["role"] == "note" and one["run"] != run]
        for one in earlier[:3]:
            self._screen.under(
                ("remembered from ", "bold magenta"),
                (one["run"], "bold magenta"),
                ": ",
                (line(one["text"], 300), "italic"),
            )
        if not earlier:
            self._screen.under(("nothing: this is the first run in this folder", "dim"))

    # --- the model, and the code that it has run ------------------------------------------------

    def _proposed(self, value: dict[str, Any]) -> None:
        for one in value.get("tool_calls") or ():
            if one["name"] == LOCAL:
                code = str(one["args"].get("code", ""))
                self.attempts[one["id"]] = Attempt(code)
                self._screen.call(
                    "proposal",
                    "yellow",
                    LOCAL,
                    "; ".join(code.splitlines()),
                    "runs in the agent's process",
                )

    async def _model_told(self, call: Call) -> None:
        """A request to the model carries what its code printed: that is on record here."""
        for message in (await self.args(call)).get("messages", ()):
            attempt = self.attempts.get(message.get("tool_call_id", ""))
            if attempt is not None and attempt.printed is None and message["role"] == "tool":
                attempt.printed = message["content"]
                self._screen.output(attempt.printed)

    # --- asks ---------------------------------------------------------------------------------

    async def _asked(self, approval: Approval) -> None:
        shown = msgspec.json.decode(await self._store.blob(approval.shown), type=Shown)
        self._screen.held(approval, shown)
        now = await self._store.approval(approval.id)
        if now is not None and now.state == "pending":
            self._asking[approval.id] = self._kernel.runtime.start(
                _asks(self._answer, approval, shown), name=f"answer {approval.id}"
            )

    def _answered(self, body: ev.ApprovalAnswered) -> None:
        if (task := self._asking.pop(body.approval, None)) is not None and task.cancel():
            self._screen.console.print()  # somebody else was quicker: the question stands open
        style = "bold green" if body.state == "approved" else "bold red"
        self._screen.call(body.state, style, body.approval, f"by {body.by}", body.note)

    # --- values -------------------------------------------------------------------------------

    async def args(self, call: Call) -> dict[str, Any]:
        """A call's arguments, as they are on record."""
        args: dict[str, Any] = msgspec.json.decode(await self._store.blob(call.args))
        return args

    async def _outcome(self, where: str) -> Outcome:
        return msgspec.json.decode(await self._store.blob(where), type=Outcome)


async def _asks(answer: Answer, approval: Approval, shown: Shown) -> None:
    await answer(approval, shown)


def rule_of(call: Call) -> str:
    """The rules that decided."""
    return "rule " + ", ".join(reason.rule for reason in call.verdict.reasons)


def counts(changed: dict[str, Any]) -> str:
    """`customers 1 deleted, orders 21 deleted`, of a result's `changed`."""
    return ", ".join(
        f"{table} {number} {verb}"
        for table, verbs in changed.items()
        for verb, number in verbs.items()
    )


def _what(args: dict[str, Any]) -> str:
    """The arguments that tell most, on one line."""
    if "statement" in args:
        given = args.get("parameters")
        return str(args["statement"]) + (f"  with {line(given, 60)}" if given else "")
    if "path" in args and "text" in args:
        return f"{args['path']}: {args['text']}"
    first = next(iter(args.values()), "")
    return line(first, 200)


def _came_to(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("rows"), list):
        rows = len(value["rows"])
        return f"→ {rows} row" + ("s" if rows != 1 else "")
    return f"→ {len(value)}" if isinstance(value, list) else ""
