"""The suite's client scenarios, met by ring0's upstream client: a server is looked at, pinned, and
its tools are called as the gate calls them. The suite appends the server's address.

Nothing here speaks the protocol: that is `ring0.tools.mcp`, with the kernel's own egress beneath.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from ring0.errors import CallInvalid, Ring0Error
from ring0.runtime import Runtime
from ring0.tools.driver import CallContext
from ring0.tools.egress import Addresses, Egress
from ring0.tools.mcp import Server, drivers, pins, sender, settings
from ring0.tools.mcp.through import ROUND, Round
from ring0.tools.registry import Tool
from ring0.types import Budget, Integrity, Label, Mode, Run, RunState

RUNTIME = Runtime()
ROUNDS_MAX = 5


class Outside:
    """The kernel's egress, allowed to reach loopback, and no credentials."""

    def __init__(self) -> None:
        addresses = Addresses(RUNTIME, allow_private=["127.0.0.0/8", "::1/128"])
        self.egress = Egress(RUNTIME, addresses)

    def of(self, names: tuple[str, ...], place: str) -> list[Any]:
        return []

    def seen_by(self, agent: str) -> Outside:
        return self


def context(call: int) -> CallContext:
    run = Run(
        id="r-conformance", state=RunState.RUNNING, root="r-conformance", agent="a",
        agent_digest="", mode=Mode.ISOLATED, tenant="t", principal="p", task="",
        label=Label(integrity=Integrity.USER), budget=Budget(), started_us=0, deadline_us=2**60,
    )  # fmt: skip
    nobody: Any = None
    return CallContext(
        call=f"{run.id}/0/{call}", name="", begun_us=0, run=run, workspace=nobody, sandboxes=nobody
    )


def sample(schema: dict[str, Any]) -> Any:
    """A value that fits, as far as a simple schema tells."""
    if "default" in schema:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "string")
    if kind == "object":
        needed = schema.get("required", ())
        properties = schema.get("properties", {})
        return {name: sample(properties.get(name, {})) for name in needed if name != ROUND}
    plain = {"number": 5, "integer": 5, "boolean": True, "array": [], "null": None}
    return plain.get(kind, "text")


def answer(request: dict[str, Any]) -> Any:
    """What an agent's own client says to a server's question."""
    if request["method"] == "elicitation/create":
        content = sample({"type": "object", **request["params"].get("requestedSchema", {})})
        return {"action": "accept", "content": content}
    if request["method"] == "roots/list":
        return {"roots": []}
    text = {"type": "text", "text": "words"}
    return {"role": "assistant", "content": text, "model": "m", "stopReason": "endTurn"}


class Calls:
    """Drivers, called as the gate calls them."""

    def __init__(self, url: str, folder: Path) -> None:
        self.config = {
            "use": "mcp",
            "url": url,
            "through": True,
            "serves": ["resources", "prompts", "completions"],
            "wall_s": 20,
        }
        self.folder = folder
        self.number = 0

    async def approve(self) -> None:
        """As `ring0 tools add` does, with the person's look left out."""
        said = settings.read("srv", self.config)
        send = sender(Outside(), "srv", said, RUNTIME)
        server = Server("srv", said, self.folder, RUNTIME, send=send)
        nobody: Any = None
        pins.write(self.folder, {"srv": await server.inspect(nobody)})
        found = drivers("srv", self.config, self.folder, RUNTIME, outside=Outside())
        self.drivers = {driver.manifest.name.partition(".")[2]: driver for driver in found}

    async def call(self, name: str, args: dict[str, Any]) -> Any:
        """The last round's answer."""
        driver, given = self.drivers[name], Round(capabilities={"elicitation": {}, "roots": {}})
        for _ in range(ROUNDS_MAX):
            self.number += 1
            sent = _validated(driver, {**args, ROUND: given.as_dict()})
            told = context(self.number)
            done = await driver.execute(sent, await driver.prepare(sent, told), told)
            result = done.value.get("result", {})
            if result.get("resultType") != "input_required":
                return done.value
            asked = result.get("inputRequests") or {}
            given = Round(
                capabilities=given.capabilities,
                responses={key: answer(one) for key, one in asked.items()},
                state=result.get("requestState", ""),
            )
        return None

    async def all(self) -> None:
        """Every tool, each resource and each prompt; what the suite names, as it names it."""
        named = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}").get("toolCalls")
        tools = {n: d for n, d in self.drivers.items() if "." not in n}
        wanted = named or [
            {"name": name, "arguments": sample(driver.manifest.schema)}
            for name, driver in tools.items()
        ]
        await asyncio.gather(*(self._told(one["name"], one["arguments"]) for one in wanted))
        for kind, field, read in (("resources", "uri", "read"), ("prompts", "name", "get")):
            listed = await self._told(f"{kind}.list", {})
            for item in ((listed or {}).get("result") or {}).get(kind, []):
                await self._told(f"{kind}.{read}", {field: item[field]})

    async def _told(self, name: str, args: dict[str, Any]) -> Any:
        try:
            value = await self.call(name, args)
            print(name, json.dumps(value)[:200])
            return value
        except Ring0Error as error:
            print(name, error, file=sys.stderr)
            return None

    async def close(self) -> None:
        for driver in self.drivers.values():
            await driver.close()


def _validated(driver: Any, args: dict[str, Any]) -> dict[str, Any]:
    """As the gate does it. An agent that hears that a null does not fit leaves it out."""
    tool = Tool(driver)
    try:
        return tool.validate(args)
    except CallInvalid:
        return tool.validate({key: value for key, value in args.items() if value is not None})


async def main(url: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        calls = Calls(url, Path(folder))
        try:
            await calls.approve()
        except Ring0Error as error:
            print(error, file=sys.stderr)
            return 1
        await calls.all()
        await calls.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[-1])))
