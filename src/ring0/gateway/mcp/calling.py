"""A call of the gate for a client of the MCP door, and how it waits.

A call that waits for a person is held in the handshake era: its connection is kept alive. In the
stateless era the client is told to ask again, with a state that names the call: that is all that
it ever means to come back with one. No person's answer comes in here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from ring0 import limits
from ring0.gateway.mcp import state as states
from ring0.gateway.mcp.reply import Reply
from ring0.gateway.mcp.state import State
from ring0.gateway.told import Told
from ring0.kernel.gate import Gate
from ring0.kernel.live import LiveRun
from ring0.tools.driver import Said
from ring0.tools.mcp.through import ROUND, Round
from ring0.types import ApprovalState, CallKind, CallState, Outcome, Request


class ComeBack(Exception):
    """The outcome is not there yet: its client has to ask again, with this state."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self.state = state


class Calling:
    """The calls of one run's MCP door."""

    def __init__(self, gate: Gate, run: LiveRun) -> None:
        self._gate = gate
        self._run = run

    async def call(
        self,
        name: str,
        args: Any,
        reply: Reply,
        state: State | None = None,
        kind: CallKind = CallKind.TOOL,
    ) -> Outcome:
        """A tool's outcome, or of a call of that kind, which `name` is called by at the door.
        `state`: what the client came back with. Raises ComeBack, Told, GivenUp, Ring0Error."""
        said = Said()
        if state is not None and state.call:
            said.id = f"{self._run.id}/{state.call}"
            self._run.undelivered.discard(said.id)
            if state.round:
                args = {**args, ROUND: state.round}
        asked_in = reply.traceparent
        own = name if kind is CallKind.TOOL else ""
        request = Request(kind=kind, name=own, args=args, traceparent=asked_in)
        asking = asyncio.ensure_future(self._gate.call(self._run.handle, request, said=said))
        begun_us = self._gate.runtime.monotonic_us()
        try:
            while not asking.done():
                await reply.kept_alive(asking)
                waited_s = (self._gate.runtime.monotonic_us() - begun_us) / 1_000_000
                if reply.session is None and waited_s >= limits.MCP_DOOR_POLL_S:
                    self._come_back(said.call, name, args, asking)
            outcome = asking.result()
        finally:
            if said.call:
                reply.calls.append(said.call)
            asking.cancel()  # What is under way goes on in the gate without it.
            with suppress(asyncio.CancelledError, Exception):
                await asking
        if outcome.state is not CallState.OK or outcome.error is not None:
            assert outcome.error is not None
            raise Told(outcome.error, outcome.notice)
        return outcome

    def _come_back(self, call: str, name: str, args: Any, asking: asyncio.Future[Outcome]) -> None:
        """Raises ComeBack where the call waits for a person: a slow tool is held."""
        approval = self._run.approvals.get(call)
        if asking.done() or approval is None or approval.state is not ApprovalState.PENDING:
            return
        given = args.get(ROUND, {}) if isinstance(args, dict) else {}
        state = State(tool=name, call=call.removeprefix(f"{self._run.id}/"), round=given)
        raise ComeBack(states.sealed(self._run, state))


def round_of(params: dict[str, Any], reply: Reply, state: State | None) -> dict[str, Any]:
    """What a server that is met `through` the kernel is told of its client's round."""
    responses = params.get("inputResponses")
    return Round(
        capabilities=reply.client.capabilities,
        log_level=reply.client.log_level,
        progress=progress_token(params) is not None,
        responses=responses if isinstance(responses, dict) else {},
        state=state.upstream if state is not None else "",
    ).as_dict()


def traceparent_of(params: dict[str, Any]) -> str:
    """The span that a client says it asks in (SEP-414)."""
    meta = params.get("_meta")
    said = meta.get("traceparent") if isinstance(meta, dict) else None
    return said if isinstance(said, str) else ""


def progress_token(params: dict[str, Any]) -> Any:
    meta = params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    # It is told again with each sign of life.
    is_short = not isinstance(token, str) or len(token) <= limits.MCP_DOOR_ID_CHARS_MAX
    return token if type(token) in (str, int) and is_short else None
