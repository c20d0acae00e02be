"""The way out of a tool's sandbox: each request of its proxy is a call, through all ten steps.

Here the gate meets the proxy. How a request is read, matched with rules and sent: `tools/egress`.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from ring0.errors import CallDenied, LoginWanted, Ring0Error, RunDead, ToolFailed
from ring0.kernel.calls import requests
from ring0.kernel.calls.outside import Outside
from ring0.runtime import Runtime
from ring0.tools.driver import CallContext, Prepared, Result, Within
from ring0.tools.egress import (
    Authority,
    Credential,
    EgressAnswer,
    EgressRequest,
    Kept,
    Proxy,
    Rules,
    choose,
    from_args,
    parse_rules,
    serve,
    split_url,
)
from ring0.tools.egress.request import CONNECT, IDEMPOTENT_METHODS, SAFE_METHODS
from ring0.tools.sandbox import Sandbox
from ring0.types import (
    Call,
    CallKind,
    CallState,
    Effect,
    Integrity,
    Label,
    Outcome,
    Request,
    ToolManifest,
)

if TYPE_CHECKING:
    from ring0.kernel.gate import Gate


class EgressKind:
    """`egress`: one request of a tool's sandbox, to where that tool may reach."""

    manifest = ToolManifest(
        name="egress",
        description="A request that a tool's sandbox makes.",
        effect=Effect.ONCE,
        critical=("url",),
        schema={
            "type": "object",
            "properties": {
                "method": {"type": "string"},
                "url": {"type": "string"},
                "headers": {"type": "object", "additionalProperties": {"type": "string"}},
                "body": {"type": "string"},
                "body_base64": {"type": "string"},
            },
            "required": ["method", "url"],
            "additionalProperties": False,
        },
    )

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        within = context.within
        assert within is not None, "the gate lets no other in"
        _check_is_wanted(within)
        request = from_args(args, own_auth=_own_auth(within, args))
        rule = within.rules.allows(request)
        allowed = rule is not None
        if request.method == CONNECT:
            allowed = within.rules.tunnels(request.host, request.port) is not None
        harmless = request.method in IDEMPOTENT_METHODS or within.tool.effect is not Effect.ONCE
        return Prepared(
            driver_bytes=msgspec.json.encode(request.args(), order="sorted"),
            own=False,
            mutates=request.method not in SAFE_METHODS,
            forbidden=""
            if allowed
            else f"{request.method} {request.url[:200]}, which no rule of its `egress` allows",
            effect=Effect.IDEMPOTENT if harmless else Effect.ONCE,
            lines=self._lines(request, context),
            host=request.host,
            method=request.method,
            state=request,
        )

    def _lines(self, request: EgressRequest, context: CallContext) -> tuple[str, ...]:
        """For whoever approves it: also in whose name it goes out."""
        lines = [f"{request.method} {request.url[:500]}: {len(request.body)} bytes"]
        if (credential := self._credential(request, context)) is not None:
            lines.append(f"with the credential {credential.name}")
        return tuple(lines)

    def _credential(self, request: EgressRequest, context: CallContext) -> Credential | None:
        """What the kernel puts in. Into a tunnel it can't."""
        within = context.within
        assert within is not None
        if request.method == CONNECT:
            return None
        tool = within.tool
        return choose(self._outside.of(tool.secrets, tool.name, context.run.agent), request)

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        within, request = context.within, prepared.state
        assert within is not None
        _check_is_wanted(within)
        answer = _ESTABLISHED
        credential = self._credential(request, context)
        if request.method != CONNECT:  # What goes through a tunnel is sent by the proxy itself.
            rule = within.rules.allows(request)
            answer = await self._outside.egress.send(
                request,
                rule,
                credential,
                keeper=within.keeper,
                repeatable=within.tool.effect is not Effect.ONCE,
                by=context,
            )
        within.given = answer
        return Result(
            value={
                "status": answer.status,
                "headers": [list(pair) for pair in answer.headers],
                "size_bytes": len(answer.body),
                "sha256": hashlib.sha256(answer.body).hexdigest(),
                "credential": credential.name if credential is not None else "",
            },
            label=Label(
                integrity=Integrity.UNTRUSTED,
                sources=(f"{request.scheme}://{request.authority}",),
            ),
            remember="",
        )


_ESTABLISHED = EgressAnswer(status=200)


def _check_is_wanted(within: Within) -> None:
    if within.over.is_set():
        raise CallDenied(
            "The request does not go out any more.",
            why="The call of the tool that it was made in has ended.",
            todo="Wait in the program for each answer.",
        )


def _own_auth(within: Within, args: Mapping[str, Any]) -> bool:
    scheme, host, port, target = split_url(str(args["url"]))
    path = target.partition("?")[0]
    return bool(within.rules.own_auth(scheme, host, port, str(args["method"]), path))


class Outlet:
    """The way out of one sandbox. What it asks for outside of a call is refused."""

    def __init__(self, gate: Gate, outside: Outside, rules: Rules, runtime: Runtime) -> None:
        self._gate = gate
        self._outside = outside
        self._rules = rules
        self._runtime = runtime
        self._keeper = Kept(runtime)
        self._number = itertools.count(1)
        self._call: tuple[ToolManifest, CallContext] | None = None
        self._asked: dict[asyncio.Task[Outcome], Within] = {}
        """What is under way."""
        self._proxy: Proxy | None = None
        self.authority = b""
        """The certificate (PEM) that the program has to trust."""

    async def open(self, sandbox: Sandbox) -> None:
        assert sandbox.proxy is not None, "its spec asked for egress"
        authority = await self._runtime.in_thread(Authority, self._rules, self._runtime)
        self.authority = authority.certificate_pem
        tunnel = self._outside.egress.tunnel
        self._proxy = await serve(
            # A descriptor of its own: the sandbox closes its listener when it ends.
            sandbox.proxy.dup(),
            self._ask,
            self._rules,
            authority,
            self._runtime,
            tunnel=tunnel,
        )

    @asynccontextmanager
    async def during(self, tool: ToolManifest, context: CallContext) -> AsyncIterator[None]:
        """While it is entered, requests are calls within this one. Raises ManifestInvalid.

        When it is left, each of them has ended and is on record: what had not gone out is refused,
        what had is waited for.
        """
        self._outside.of(tool.secrets, tool.name, context.run.agent)
        self._call = tool, context
        try:
            yield
        finally:
            self._call = None
            await self._end_requests()

    async def _end_requests(self) -> None:
        for within in self._asked.values():
            within.over.set()
        if self._proxy is not None:
            await self._proxy.close_tunnels()
        if self._asked:
            await asyncio.wait(list(self._asked))

    async def close(self) -> None:
        """Ends every connection. Any number of times."""
        if self._proxy is not None:
            await self._proxy.close()
        self._proxy = None

    async def _ask(self, request: EgressRequest) -> EgressAnswer:
        if self._call is None:
            raise CallDenied(
                "Nothing goes out now.",
                why="No call of a tool is under way in this sandbox: the request is nobody's.",
                todo="Ask while a call is carried out.",
            )
        tool, context = self._call
        live = self._gate.live.get(context.run.id)
        if live is None:
            raise RunDead(f"{context.run.id} has ended.", todo="Start a new run.")
        within = Within(
            id=self._name(context, live.records),
            tool=tool,
            rules=self._rules,
            keeper=self._keeper,
        )
        asked = Request(kind=CallKind.EGRESS, name=tool.name, args=request.args())
        # A task of its own: it is waited for also where the connection is gone.
        going = self._runtime.start(self._gate.call(live.handle, asked, within), name=within.id)
        self._asked[going] = within
        going.add_done_callback(self._forget)
        outcome = await asyncio.shield(going)
        if outcome.state is not CallState.OK:
            raise _no(outcome)
        answer: EgressAnswer | None = within.given
        if answer is None:
            raise ToolFailed(
                "What the request brought is not known.",
                why="It was cut off, and a person has said what became of it.",
                todo="Ask for it again only where it may be sent twice.",
            )
        return answer

    def _name(self, context: CallContext, records: Mapping[str, Call]) -> str:
        """A call id that nothing stands under: a tool's call that is carried out again in the same
        epoch has made requests already, and those are not this one's."""
        while True:
            name = requests.name(context.call, context.run.epoch, next(self._number))
            if name not in records:
                return name

    def _forget(self, going: asyncio.Task[Outcome]) -> None:
        self._asked.pop(going, None)
        if not going.cancelled():
            going.exception()  # Retrieved: whoever waited has it too.


class Reach:
    """Gives a sandbox its way out, for a tool that has one."""

    def __init__(self, gate: Gate, outside: Outside, runtime: Runtime) -> None:
        self._gate = gate
        self._outside = outside
        self._runtime = runtime

    async def __call__(self, sandbox: Sandbox, rules: tuple[str, ...]) -> Outlet:
        """Raises ManifestInvalid for rules that are none."""
        outlet = Outlet(self._gate, self._outside, parse_rules(rules, "egress"), self._runtime)
        await outlet.open(sandbox)
        return outlet


def _no(outcome: Outcome) -> Ring0Error:
    error = outcome.error or {}
    denied = error.get("code") in (CallDenied.code, LoginWanted.code)
    said_no = denied or outcome.state is CallState.REFUSED
    kind = CallDenied if said_no else ToolFailed
    return kind(
        error.get("what", "The request failed."),
        why=error.get("why", ""),
        todo=error.get("todo", ""),
    )
