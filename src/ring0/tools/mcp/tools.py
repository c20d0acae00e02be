"""The tools of MCP servers as drivers: `NAME.operation` for each tool that was approved.

Their manifests are made of the pin and the operator's word, so that no server has to run for an
agent to be started; the server itself is started at the first call.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from ring0.errors import EffectUnknown, ManifestInvalid, Ring0Error, ToolFailed
from ring0.runtime import Runtime
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.tools.egress import parse_rules
from ring0.tools.inferring import tightened
from ring0.tools.labelling import Words, with_words
from ring0.tools.mcp import pins, schema, settings, wording
from ring0.tools.mcp.offers import McpOffer, offers
from ring0.tools.mcp.outside import sender
from ring0.tools.mcp.pins import LOCK, Pin, PinnedTool
from ring0.tools.mcp.server import CutOff, Done, Server
from ring0.tools.mcp.settings import Operation, Settings
from ring0.tools.mcp.through import ROUND, SCHEMA, round_of
from ring0.tools.reach import Outside, Reach
from ring0.tools.recorded import KeptDriver
from ring0.types import Effect, Label, ToolManifest

if TYPE_CHECKING:
    from ring0.tools.mcp.http import Send


class McpTool:
    """One tool of one server."""

    def __init__(
        self, server: Server, pin: Pin, tool: PinnedTool, said: Operation, manifest: ToolManifest,
        promised: schema.Promise | None,
    ) -> None:  # fmt: skip
        self.manifest = manifest
        self._server = server
        self._pin = pin
        self._tool = tool
        self._said = said
        self._promised = promised
        self.through = server.settings.through
        self.bare = tool.name
        """What its server calls it."""

    @property
    def contained(self) -> bool:
        """What it changes is in its sandbox and the run's workspace alone."""
        return self._server.settings.contained

    @property
    def result_fields(self) -> frozenset[str] | None:
        """All that its results can hold, where the server promises that; None: nobody knows."""
        promised = self._tool.output_schema or {}
        if promised.get("type") != "object" or promised.get("additionalProperties") is not False:
            return None
        return frozenset(promised.get("properties", ()))

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        contained = self._server.settings.contained
        harmless = self.manifest.effect is Effect.PURE or self._said.reads
        # Nothing of a contained server outlives its sandbox but the files that the outcome takes:
        # that is found here, and not the word of anybody.
        milder = contained and self._said.effect is None and not harmless
        return Prepared(
            driver_bytes=msgspec.json.encode(
                {"server": self._pin.digest, "tool": self._tool.name, "args": args}, order="sorted"
            ),
            own=contained,
            mutates=not contained and not harmless,
            slots=() if self._server.settings.url else ("sandbox",),
            effect=Effect.IDEMPOTENT if milder else "",
            reversal="reversible" if contained else "",
            lines=(self._line(),),
            host=urlsplit(self._server.settings.url).hostname or "",
            method="POST" if self._server.settings.url else "",
        )

    def _line(self) -> str:
        said = self._server.settings
        if said.url:
            where = f"at {said.url}"
        elif said.egress:
            where = f"in a sandbox that may reach {', '.join(said.egress)}"
        else:
            where = "in a sandbox that reaches nothing"
        name = wording.clean(self._tool.name, 80)
        return f"ask {name} of the MCP server {self._server.instance}, {where}"

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        sent = {**args, self._said.key: context.call} if self._said.key else args
        wall_s = self.manifest.wall_s
        try:
            if self.through:
                return await self._through(sent, context)
            done = await self._server.call(
                self._pin, lambda session: session.call(self._tool.name, sent, context.traceparent),
                wall_s, self.manifest, context,
            )  # fmt: skip
        except CutOff as error:
            raise self._cut_off(str(error)) from None
        from ring0.tools.mcp.results import value_of

        name = self.manifest.name
        try:
            value = value_of(name, done.answer, self._promised)
        except ToolFailed as error:
            raise self._known(error, done.answer.failed) from None
        return self._result(value, done, context)

    async def _through(self, args: dict[str, Any], context: CallContext) -> Result:
        """For a server that the agent meets through the kernel: its answer as it came."""
        own, round_ = round_of(args)
        params = {"name": self._tool.name, "arguments": own, **round_.params}
        done = await self._server.call(
            self._pin,
            lambda session: session.ask("tools/call", params, round_, context.traceparent),
            self.manifest.wall_s, self.manifest, context,
        )  # fmt: skip
        from ring0.tools.mcp.results import reached_call

        try:
            value = reached_call(self.manifest.name, done.answer, self._promised)
        except ToolFailed as error:
            raise self._known(error, bool(done.answer.result.get("isError"))) from None
        return self._result(value, done, context)

    def _known(self, error: ToolFailed, failed: bool) -> Ring0Error:
        """What is known of an effect whose answer can't be used. `failed`: the server says so."""
        if not self._server.settings.contained and self.manifest.effect is Effect.ONCE:
            return _as_known(error, failed, self.manifest.name)
        return error

    def _result(self, value: Any, done: Done[Any], context: CallContext) -> Result:
        name, collected = self.manifest.name, done.collected
        said = Label(integrity=self.manifest.output, sources=(f"{name}@{context.call}",))
        # What a server makes of its arguments and of the run's files is no better than they are.
        return Result(
            value=value,
            label=said.join(context.run.label.bare).join(done.label),
            files=collected.files if collected else (),
            undo=collected.undo if collected and self._server.settings.contained else b"",
        )

    def _cut_off(self, why: str) -> Ring0Error:
        error = self._cut_off_error(why)
        error.tells_of_data = True  # The reason may be the server's own words.
        return error

    def _cut_off_error(self, why: str) -> Ring0Error:
        name = self.manifest.name
        if self.manifest.effect is Effect.ONCE and not self._server.settings.contained:
            return EffectUnknown(
                f"{name} was cut off: {why}.",
                why="Its effect may or may not have happened.",
                todo="Look at the world, then `ring0 settle CALL happened` or `did-not-happen`.",
            )
        return ToolFailed(
            f"{name} was cut off: {why}.",
            why="The MCP server's own fault. Nothing of it reached outside its sandbox."
            if self._server.settings.contained
            else "The MCP server's own fault.",
            todo="Call it again: the next call gets a server that answers.",
        )

    async def close(self) -> None:
        """Ends the server, for all its tools. Any number of times."""
        await self._server.close()


def bare_name(driver: object) -> str:
    """What its server calls a tool that the agent meets through the kernel; empty for others."""
    return driver.bare if isinstance(driver, McpTool | KeptDriver) and driver.through else ""


def _as_known(error: ToolFailed, failed: bool, name: str) -> Ring0Error:
    """A `once` effect whose answer can't be used has happened, unless the server says no."""
    if failed:
        return error
    return EffectUnknown(
        f"{name} was done, and its answer can't be used: {error.what}",
        why=error.why,
        todo="Look at the world, then `ring0 settle CALL happened` or `did-not-happen`.",
    )


def drivers(
    instance: str,
    config: Mapping[str, Any],
    folder: Path,
    runtime: Runtime,
    *,
    send: Send | None = None,
    reach: Reach | None = None,
    outside: Outside | None = None,
) -> list[McpTool | McpOffer]:
    """The tools of `[tools.INSTANCE] use = "mcp"`.

    `reach` gives sandboxes their egress; `outside` (or `send`, which comes first) reaches servers
    elsewhere. Raises ManifestInvalid, also where the server has not been approved, or the settings
    are not those that were.
    """
    said = settings.read(instance, config)
    pin = pins.read(folder).get(instance)
    if pin is None:
        raise pins.unpinned(instance, folder)
    _check_pin(instance, said, pin, folder)
    if said.url and send is None and outside is not None:
        send = sender(outside, instance, said, runtime)
    if (said.url and send is None) or (said.egress and reach is None):
        raise ManifestInvalid(
            f"[tools.{instance}] needs the network, and this kernel gives tools none.",
            todo="Run it with `ring0 run`; the embedded library has no egress.",
        )
    server = Server(instance, said, folder, runtime, send=send, reach=reach)
    _check_reach(instance, said)
    names = _names(instance, pin, said)
    tools = [_driver(server, pin, tool, name) for name, tool in names.items()]
    return [*tools, *offers(server, pin)]


def _check_pin(instance: str, said: Settings, pin: Pin, folder: Path) -> None:
    if said.pin and said.pin != pin.digest:
        raise ManifestInvalid(
            f"[tools.{instance}] is pinned to another server than {LOCK} holds.",
            why=f"agent.toml: {said.pin[:64]}; {LOCK}: {pin.digest}.",
            todo=f"Look at it: `ring0 tools diff {instance}`; then correct `pin`.",
        )
    asked = (said.command, said.env, said.url, said.workspace)
    if asked != (pin.command, pin.env, pin.url, pin.workspace):
        raise ManifestInvalid(
            f"[tools.{instance}] is not as it was approved.",
            why="agent.toml names another command, environment, address or workspace than"
            f" {folder / LOCK}.",
            todo=f"ring0 tools add {instance} --from {folder}",
        )


def _check_reach(instance: str, said: Settings) -> None:
    """Rules that are none are told now, and not by the first request."""
    if said.egress:
        parse_rules(said.egress, f"[tools.{instance}] egress")


def usable(pin: Pin) -> tuple[dict[str, PinnedTool], dict[str, str]]:
    """The tools that can be offered, by ring0's name; the others, and why not."""
    taken = Counter(wording.operation_name(tool.name) for tool in pin.offer.tools)
    good: dict[str, PinnedTool] = {}
    bad: dict[str, str] = {}
    for tool in pin.offer.tools:
        name = wording.operation_name(tool.name)
        try:
            if taken[name] > 1:
                raise schema.Unusable(f"another tool of it is called {name}, too")
            schema.checked(tool.schema)
            schema.validator(tool.output_schema)
            good[name] = tool
        except schema.Unusable as error:
            bad[wording.clean(tool.name, 80)] = str(error)
    return good, bad


def _names(instance: str, pin: Pin, said: Settings) -> dict[str, PinnedTool]:
    good, _ = usable(pin)
    known = {*good, *(tool.name for tool in good.values())}
    if unknown := [name for name in (*said.only, *said.operations) if name not in known]:
        raise ManifestInvalid(
            f"[tools.{instance}] speaks of {unknown[0][:80]!r}, which is no tool of the server.",
            why=f"It has: {', '.join(sorted(good)) or 'none'}.",
            todo="Correct the name.",
        )
    if not said.only:
        return good
    return {name: tool for name, tool in good.items() if {name, tool.name} & set(said.only)}


def _driver(server: Server, pin: Pin, tool: PinnedTool, name: str) -> McpTool:
    said = server.settings
    own = said.operations.get(tool.name) or said.operations.get(name) or Operation()
    usable_schema = schema.checked(tool.schema)
    if own.key:
        usable_schema = _without(usable_schema, own.key, server.instance, name)
    for argument in (*own.critical, *own.statements):
        if argument not in usable_schema["properties"]:
            raise ManifestInvalid(
                f"[tools.{server.instance}] calls {argument[:80]!r} critical, and {name} has no"
                " such argument.",
                todo="Correct the name.",
            )
    if own.reads and own.unattended:
        raise ManifestInvalid(
            f"[tools.{server.instance}] says `reads` and `unattended` of {name}.",
            why="Nobody is ever asked about what only reads.",
            todo="Take one of them out.",
        )
    if said.through:
        usable_schema = _with_round(usable_schema, server.instance, name)
    effect = own.effect or (Effect.IDEMPOTENT if own.reads else Effect.ONCE)
    manifest = ToolManifest(
        name=f"{server.instance}.{name}",
        description=wording.spotlit(server.instance, tool.description or tool.title),
        schema=usable_schema,
        effect=effect,
        reversal=own.reversal,
        version=wording.clean(pin.offer.server_version, 60) or "1",
        critical=own.critical,
        statements=own.statements,
        output=own.output,
        egress=(said.url,) if said.url else said.egress,
        secrets=said.secrets,
        wall_s=own.wall_s or said.wall_s,
        code_digest=_code_digest(pin, own),
    )
    place = f"[tools.{server.instance}.operations.{name}]"
    words = Words(**{key: getattr(own, key) for key in Words.__struct_fields__})
    manifest = with_words(place, manifest, words)
    if not {tool.name, name} & said.operations.keys():
        manifest = tightened(manifest, tool.name, tool.description or tool.title, tool.annotations)
    return McpTool(server, pin, tool, own, manifest, schema.validator(tool.output_schema))


def _without(given: dict[str, Any], key: str, instance: str, name: str) -> dict[str, Any]:
    """A schema without the argument that ring0 fills by itself."""
    if key not in given["properties"]:
        raise ManifestInvalid(
            f"[tools.{instance}]: {name} has no argument {key[:80]!r} for its key.",
            todo="Correct `key`.",
        )
    properties = {other: value for other, value in given["properties"].items() if other != key}
    required = [other for other in given.get("required", ()) if other != key]
    return {**given, "properties": properties, "required": required}


def _with_round(given: dict[str, Any], instance: str, name: str) -> dict[str, Any]:
    """A schema with the argument in which the door tells of the client's round."""
    if ROUND in given["properties"]:
        raise ManifestInvalid(
            f"[tools.{instance}]: {name} has an argument {ROUND!r} of its own.",
            todo="Take `through` out.",
        )
    return {**given, "properties": {**given["properties"], ROUND: SCHEMA}}


def _code_digest(pin: Pin, said: Operation) -> str:
    """What an approval of a call is bound to: the server and the operator's word about the tool."""
    word = msgspec.json.encode(said, order="sorted")
    return hashlib.sha256(pin.digest.encode() + word).hexdigest()
