"""What each method of a client is answered with, in either era.

Lists and handshakes the door knows by itself; all else is a call of the gate.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec.structs import replace

from ring0 import __version__, limits
from ring0.errors import ToolFailed
from ring0.gateway import memory_tools
from ring0.gateway.mcp import content, messages, offered
from ring0.gateway.mcp import state as states
from ring0.gateway.mcp.calling import Calling, ComeBack, round_of, traceparent_of
from ring0.gateway.mcp.messages import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    SERVER_ERROR,
    Message,
    Refused,
)
from ring0.gateway.mcp.offered import Offered, page
from ring0.gateway.mcp.reply import Reply
from ring0.gateway.mcp.sessions import LEVELS, Sessions
from ring0.gateway.mcp.state import State
from ring0.gateway.mcp.stateless import SERVER_INFO
from ring0.gateway.mcp.table import METHODS, STATELESS
from ring0.gateway.memory_tools import MemoryTool
from ring0.gateway.models.asking import Asking
from ring0.gateway.told import Told
from ring0.kernel.gate import Gate
from ring0.kernel.live import LiveRun
from ring0.tools.mcp import McpOffer, McpTool
from ring0.tools.mcp.through import ROUND
from ring0.types import Outcome

ME: Final = {"name": "ring0", "version": __version__}
_INSTRUCTIONS: Final = (
    "Tools of ring0, the kernel that this agent runs under. Each call is judged and put on record;"
    " some wait until a person has answered."
)
_FRESH: Final = {"ttlMs": 0, "cacheScope": "private"}
_CACHED: Final = frozenset(
    {
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)
_POWERS: Final = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}

Handler = Callable[[dict[str, Any], Reply], Awaitable[dict[str, Any]]]


class Answering:
    """For one run."""

    def __init__(self, gate: Gate, run: LiveRun, sessions: Sessions) -> None:
        self._gate = gate
        self._sessions = sessions
        self._run = run
        self._asking = Asking(gate, run)
        self._calling = Calling(gate, run)
        self._handlers: dict[str, Handler] = {
            "ping": self._nothing,
            "server/discover": self._discover,
            "logging/setLevel": self._set_level,
            "tools/list": self._list_tools,
            "tools/call": self._call_tool,
            "resources/list": self._list_resources,
            "resources/templates/list": self._list_templates,
            "resources/read": self._read_resource,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._unsubscribe,
            "prompts/list": self._list_prompts,
            "prompts/get": self._get_prompt,
            "completion/complete": self._complete,
        }

    async def answer(self, message: Message, reply: Reply) -> dict[str, Any]:
        """The result of a request that the table takes. Raises Refused, GivenUp, Ring0Error."""
        self._gate.handles.check(self._run.handle)
        operation = METHODS[message.method].operation
        if operation and not self._offered().with_operation(operation):
            raise Refused(METHOD_NOT_FOUND, f"No server of this run has {message.method}.")
        try:
            result = await self._handlers[message.method](message.params, reply)
        except ComeBack as later:
            reply.is_unheard = True
            return {"resultType": "input_required", "requestState": later.state}
        if reply.session is not None:
            return {key: value for key, value in result.items() if key != "resultType"}
        fresh = _FRESH if message.method in _CACHED else {}
        meta = {SERVER_INFO: ME, **result.get("_meta", {})}
        return {"resultType": "complete", **fresh, **result, "_meta": meta}

    def described(self, *, stateless: bool) -> dict[str, Any]:
        """What both eras begin with."""
        capabilities = self._offered().capabilities(stateless=stateless)
        return {"capabilities": capabilities, "instructions": _INSTRUCTIONS}

    def _offered(self) -> Offered:
        return Offered(self._run, self._asking.door_names())

    # --- what the door knows ------------------------------------------------------------------

    async def _nothing(self, params: dict[str, Any], reply: Reply) -> dict[str, Any]:
        return {}

    async def _discover(self, params: dict[str, Any], reply: Reply) -> dict[str, Any]:
        return {"supportedVersions": list(STATELESS), **self.described(stateless=True)}

    async def _set_level(self, params: dict[str, Any], reply: Reply) -> dict[str, Any]:
        level = params.get("level")
        if not self._offered().logs():
            raise Refused(METHOD_NOT_FOUND, "No server of this run tells of its work.")
        if level not in LEVELS or reply.session is None:
            raise Refused(INVALID_PARAMS, f"`level` is one of {', '.join(LEVELS)}.")
        reply.session.client = replace(reply.session.client, log_level=level)
        return {}

    async def _list_tools(self, params: dict[str, Any], reply: Reply) -> dict[str, Any]:
        tools = [*self._offered().tools(), *self._asking.memory_tools.described()]
        found = _paged("tools", sorted(tools, key=lambda tool: tool["name"]), params, "name")
        self._run.listed.update(tool["name"] for tool in found["tools"])
        return found

    # --- tools --------------------------------------------------------------------------------

    async def _call_tool(self, params: dict[str, Any], reply: Reply) -> dict[str, Any]:
        reply.traceparent = traceparent_of(params)
        there, args = params.get("name"), params.get("arguments", {})
        if not isinstance(there, str) or not isinstance(args, dict):
            raise Refused(INVALID_PARAMS, "`name` is a text and `arguments` an object.")
        known = self._offered()
        memory = self._asking.memory_tools.find(there)
        if memory is not None:
            return await self._remember(there, memory, params, reply)
        name = known.own_name(there)
        state = self._state(params, reply, name)
        if known.is_through(there):
            return await self._rounds(name, args, params, reply, state)
        try:
            outcome = await self._calling.call(name, args, reply, state)
        except Told as no:
            if not known.has(there):
                raise Refused(INVALID_PARAMS, f"There is no tool {there[:80]!r} here.") from None
            return content.failure_of(no, no.notice)
        is_mcp = isinstance(self._run.tools[name].driver, McpTool)
        return content.result_of(
            outcome.value, outcome.notice, parts_of=is_mcp, stateless=reply.session is None
        )

    async def _remember(
        self, name: str, tool: MemoryTool, params: dict[str, Any], reply: Reply
    ) -> dict[str, Any]:
        state = self._state(params, reply, name)
        args = params.get("arguments", {})
        try:
            outcome = await self._calling.call(name, args, reply, state, tool.kind)
        except Told as no:
            return content.failure_of(no, no.notice)
        value = memory_tools.told(tool, outcome.value)
        stateless = reply.session is None
        return content.result_of(value, outcome.notice, parts_of=False, stateless=stateless)

    def _state(self, params: dict[str, Any], reply: Reply, name: str) -> State | None:
        value = params.get("requestState")
        if value is None or reply.session is not None:
            return None
        return states.opened(self._run, value, name)

    async def _rounds(
        self,
        name: str,
        args: dict[str, Any],
        params: dict[str, Any],
        reply: Reply,
        state: State | None,
    ) -> dict[str, Any]:
        """A call of a server that may ask the client itself for more (`through`): each round is a
        call of the gate. In the handshake era the door goes the rounds for its client."""
        if ROUND in args:
            raise Refused(INVALID_PARAMS, f"No tool has an argument {ROUND!r}.")
        given = round_of(params, reply, state)
        reply.is_told = True
        for _ in range(limits.MCP_DOOR_ROUNDS_MAX):
            waits = state is not None and bool(state.call)
            sent = args if waits else {**args, ROUND: given}
            try:
                outcome = await self._calling.call(name, sent, reply, state)
            except Told as no:
                return content.failure_of(no, no.notice)
            result = await self._told(outcome, reply)
            if result.get("resultType") != "input_required":
                return result
            requests = result.get("inputRequests", {})
            _check_powers(requests, reply)
            if reply.session is None:
                return {**result, "requestState": self._next_state(name, result)}
            if not requests:  # It only needs time.
                await self._gate.runtime.sleep(limits.MCP_DOOR_BACKOFF_S)
            given = {**given, "responses": await _answers(requests, reply)}
            given["state"] = str(result.get("requestState") or "")
            state = None
        raise Refused(
            SERVER_ERROR, f"The server asked more than {limits.MCP_DOOR_ROUNDS_MAX} times."
        )

    def _next_state(self, name: str, result: dict[str, Any]) -> str:
        upstream = str(result.get("requestState") or "")
        return states.sealed(self._run, State(tool=name, upstream=upstream))

    async def _told(self, outcome: Outcome, reply: Reply) -> dict[str, Any]:
        """What such a server answered, as it came. Raises Refused."""
        value: dict[str, Any] = outcome.value
        for note in value.get("notes", ()):
            if is_wanted(note, reply):
                await reply.note(note["method"], note["params"])
        if "error" in value:
            error = value["error"]
            raise Refused(error["code"], error["message"], error.get("data"))
        result: dict[str, Any] = value["result"]
        return result

    # --- resources ----------------------------------------------------------------------------

    async def _list_resources(self, params: dict[str, Any], reply: Reply) -> dict[str, Any]:
        return await self._listed("resources/list", "resources", "uri", params, reply)

    async def _list_templates(self, params: dict[str, Any], reply: Reply) -> dict[str, Any]:
        method, field = "resources/templates/list", "uriTemplate"
        return await self._listed(method, "resourceTemplates", field, params, reply)

    async def _read_resource(self, params: dict[str, Any], reply: Reply) -> dict[str, Any]:
        uri = _text(params, "uri")
        server, own = self._offered().server_of_uri("resources.read", uri)
        result = await self._offer(server, {"uri": own}, params, reply)
        if "contents" not in result:  # The server asks for more.
            return result
        return {
            **result,
            "contents": [offered.called(server, c, "uri") for c in result["contents"]],
        }

    async def _subscribe(self, params: dict[str, Any], reply: Reply) -> dict[str, Any]:
        uri = _text(params, "uri")
        server, own = self._offered().server_of_uri("resources.subscribe", uri)
        server.hear(self._run.id, lambda changed: self._changed(server, changed))
        await self._offer(server, {"uri": own}, params, reply)
        assert reply.session is not None, "the table has it in the handshake era only"
        reply.session.subscribed.add(uri)
        return {}

    async def _unsubscribe(self, params: dict[str, Any], reply: Reply) -> dict[str, Any]:
        uri = _text(params, "uri")
        server, own = self._offered().server_of_uri("resources.unsubscribe", uri)
        assert reply.session is not None, "the table has it in the handshake era only"
        reply.session.subscribed.discard(uri)
        if not self._sessions.of_resource(uri):  # Another client of the run may listen still.
            await self._offer(server, {"uri": own}, params, reply)
        return {}

    def _changed(self, server: McpOffer, uri: str) -> None:
        """Told to whoever asked for it. It says no more than what they know: which one."""
        there = offered.called(server, {"uri": uri}, "uri")["uri"]
        told = messages.notification("notifications/resources/updated", {"uri": there})
        for session in self._sessions.of_resource(there):
            session.tell(told)

    # --- prompts and completion ---------------------------------------------------------------

    async def _list_prompts(self, params: dict[str, Any], reply: Reply) -> dict[str, Any]:
        return await self._listed("prompts/list", "prompts", "name", params, reply)

    async def _get_prompt(self, params: dict[str, Any], reply: Reply) -> dict[str, Any]:
        name = _text(params, "name")
        server, own = self._offered().server_of_name("prompts.get", name)
        args = {"name": own, "arguments": params.get("arguments") or {}}
        return await self._offer(server, args, params, reply)

    async def _complete(self, params: dict[str, Any], reply: Reply) -> dict[str, Any]:
        ref = params.get("ref")
        if not isinstance(ref, dict):
            raise Refused(INVALID_PARAMS, "`ref` is an object.")
        known = self._offered()
        if ref.get("type") == "ref/prompt":
            server, own = known.server_of_name("completion.complete", _text(ref, "name"))
            ref = {**ref, "name": own}
        else:
            server, own = known.server_of_uri("completion.complete", _text(ref, "uri"))
            ref = {**ref, "uri": own}
        args = {"ref": ref, "argument": params.get("argument")}
        if params.get("context") is not None:
            args["context"] = params["context"]
        return await self._offer(server, args, params, reply)

    # --- of servers ---------------------------------------------------------------------------

    async def _listed(
        self, method: str, key: str, field: str, params: dict[str, Any], reply: Reply
    ) -> dict[str, Any]:
        """Of all servers that have some, one after the other."""
        operation = METHODS[method].operation
        items: list[dict[str, Any]] = []
        for server in self._offered().with_operation(operation):
            result = await self._offer(server, {}, {}, reply)
            items += [offered.called(server, item, field) for item in result[key]]
        return _paged(key, sorted(items, key=lambda item: item[field]), params, field)

    async def _offer(
        self, server: McpOffer, args: dict[str, Any], params: dict[str, Any], reply: Reply
    ) -> dict[str, Any]:
        """What a server's operation comes to. Raises Refused with the reason."""
        name = server.manifest.name
        state = self._state(params, reply, name)
        try:
            if server.through and server.asks:
                return await self._rounds(name, args, params, reply, state)
            outcome = await self._calling.call(name, args, reply, state)
        except Told as no:
            code = INVALID_PARAMS if no.code == ToolFailed.code else INTERNAL_ERROR
            raise Refused.of(no, code) from None
        return await self._told(outcome, reply)


async def _answers(requests: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """What the client says to each of a server's questions, in the handshake era."""
    return {
        key: await reply.ask(asked["method"], asked.get("params", {}))
        for key, asked in requests.items()
    }


def _check_powers(requests: dict[str, Any], reply: Reply) -> None:
    """Raises Refused where a client would be asked for what it never said it can."""
    for asked in requests.values():
        power = _POWERS.get(str(asked.get("method")))
        if power is None or power not in reply.client.capabilities:
            data: dict[str, Any] = {"requiredCapabilities": {power or str(asked.get("method")): {}}}
            raise Refused(MISSING_CAPABILITY, "The client lacks what the server needs.", data)


def is_wanted(note: dict[str, Any], reply: Reply) -> bool:
    """A note of a log that is as grave as the client wants it."""
    if note["method"] != "notifications/message":
        return True
    level, wanted = note["params"].get("level"), reply.client.log_level
    return level in LEVELS and wanted in LEVELS and LEVELS.index(level) >= LEVELS.index(wanted)


def _paged(
    key: str, items: list[dict[str, Any]], params: dict[str, Any], field: str
) -> dict[str, Any]:
    found, cursor = page(items, params, lambda item: item[field])
    return {key: found, "nextCursor": cursor} if cursor else {key: found}


def _text(params: dict[str, Any], field: str) -> str:
    value = params.get(field)
    if not isinstance(value, str) or not value:
        raise Refused(INVALID_PARAMS, f"`{field}` is a text.")
    return value
