"""The suite's client scenarios, met by ring0's upstream client: a server is looked at, pinned, and
its tools are called as the gate calls them. The suite appends the server's address.

Nothing here speaks the protocol: that is `ring0.tools.mcp`, with the kernel's own egress and logins
beneath. What is done here is what an operator does: writes ring0.toml, reads an error, and does the
`ring0 secret login` that it names, with a browser that says yes.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from ring0.errors import CallInvalid, LoginWanted, Ring0Error
from ring0.identity import Vault, protected
from ring0.kernel.agent.manifests import Config, NetworkTable, read_config
from ring0.kernel.calls.outside import Outside
from ring0.kernel.logins import Begun, Logins
from ring0.kernel.strangers import Strangers
from ring0.runtime import Runtime
from ring0.tools.driver import CallContext
from ring0.tools.mcp import Server, drivers, pins, sender, settings
from ring0.tools.mcp.through import ROUND, Round
from ring0.tools.registry import Tool
from ring0.types import Budget, Integrity, Label, Mode, Run, RunState

RUNTIME = Runtime()
ROUNDS_MAX = 5
LOGIN_S = 10
SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")


PRINCIPAL = "p"
LOGINS_MAX = 3
"""How often an operator does what an error says, before they look for another way."""
PROFILES: dict[str, dict[str, Any]] = {
    # Refused by default: nobody of the kernel's is asked. This server's own defaults go back to it.
    "elicitation-sep1034-client-defaults": {"answers": "defaults"},
}
"""By scenario, what an operator has to switch on for it."""
CLIENT_DOCUMENT = "https://conformance-test.local/client-metadata.json"
CONFIG = """
[network]
allow_private = ["127.0.0.0/8", "::1/128"]
plain_credentials = ["localhost", "127.0.0.1"]
[oauth.srv]
"""


def given() -> dict[str, Any]:
    """What the suite tells the client of the scenario."""
    found: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    return found


async def configured(url: str, home: Path, vault: Vault) -> Config:
    """The ring0.toml that an operator writes for this server, with what the suite gave them."""
    said, oauth = given(), {"mcp": url}
    if "client_id" not in said:
        oauth["client_id"] = CLIENT_DOCUMENT  # For login servers that read it; else it registers.
    else:
        oauth["client_id"] = said["client_id"]
        network = NetworkTable(allow_private=("127.0.0.0/8", "::1/128"))
        # Where a client was registered, its operator knows.
        found = await protected.find(url, Strangers(network, RUNTIME))
        oauth["issuer"] = said.get("issuer") or found.endpoints.issuer
    key = said.get("private_key_pem", "")
    secrets = {
        "client_secret": said.get("client_secret", ""),
        "key": "".join(line for line in key.splitlines() if "-----" not in line),
    }
    for name, value in secrets.items():
        if value:
            oauth[name] = f"conformance/{name}"
            vault.set(oauth[name], value, RUNTIME.now_us())
    if "client-credentials" in SCENARIO:
        oauth["grant"] = "client_credentials"
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in oauth.items()]
    (home / "ring0.toml").write_text(CONFIG + "".join(lines))
    return read_config(home)


class Operator:
    """The kernel's own logins, egress and vault, and the person who looks after them."""

    def __init__(self, config: Config, vault: Vault) -> None:
        self.logins = Logins(config, vault, {}, RUNTIME)
        self.count = 0
        tokens = self.logins.refreshing()
        self.outside = Outside(
            config, vault.value, RUNTIME, token=tokens.token, refused=tokens.refused,
            principal=PRINCIPAL,
        )  # fmt: skip

    async def helps(self, what: Callable[[], Awaitable[Any]]) -> Any:
        """Does it; where a login is wanted, logs in as the error says and does it again."""
        while True:
            try:
                return await what()
            except LoginWanted as error:
                print(error, file=sys.stderr)
                if not error.login or self.count >= LOGINS_MAX:
                    raise
                self.count += 1
                await self.log_in(error)

    async def log_in(self, error: LoginWanted) -> None:
        browsers: list[asyncio.Task[None]] = []

        def show(begun: Begun, address: str) -> None:
            browsers.append(asyncio.ensure_future(browse(address)))

        doing = asyncio.ensure_future(
            self.logins.by_browser(error.login, PRINCIPAL, show, error.scopes)
        )
        try:
            await asyncio.wait_for(doing, LOGIN_S)
        finally:
            for browser in browsers:
                browser.cancel()


async def browse(address: str) -> None:
    """A browser whose person says yes."""
    async with aiohttp.ClientSession() as browser, browser.get(address) as answer:
        await answer.read()


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

    def __init__(self, url: str, folder: Path, operator: Operator) -> None:
        self.operator = operator
        self.config = {
            "use": "mcp",
            "url": url,
            "through": True,
            "serves": ["resources", "prompts", "completions"],
            "wall_s": 20,
            **PROFILES.get(SCENARIO, {}),
        }
        self.folder = folder
        self.number = 0

    async def approve(self) -> None:
        """As `ring0 tools add` does, with the person's look left out. A server that says that it
        wants a login is given the one that ring0.toml has for it."""
        try:
            await self._approve()
        except LoginWanted as error:
            if error.login:
                raise
            self.config["secrets"] = ["srv"]
            await self._approve()

    async def _approve(self) -> None:
        said = settings.read("srv", self.config)
        outside = self.operator.outside
        send = sender(outside, "srv", said, RUNTIME)
        server = Server("srv", said, self.folder, RUNTIME, send=send)
        nobody: Any = None
        pin = await self.operator.helps(lambda: server.inspect(nobody))
        pins.write(self.folder, {"srv": pin})
        found = drivers("srv", self.config, self.folder, RUNTIME, outside=outside)
        self.drivers = {driver.manifest.name.partition(".")[2]: driver for driver in found}

    async def call(self, name: str, args: dict[str, Any]) -> Any:
        """The last round's answer."""
        driver, round_ = self.drivers[name], Round(capabilities={"elicitation": {}, "roots": {}})
        for _ in range(ROUNDS_MAX):
            self.number += 1
            sent = _validated(driver, {**args, ROUND: round_.as_dict()})
            told = context(self.number)
            prepared = await driver.prepare(sent, told)
            done = await self.operator.helps(
                functools.partial(driver.execute, sent, prepared, told)
            )
            result = done.value.get("result", {})
            if result.get("resultType") != "input_required":
                return done.value
            asked = result.get("inputRequests") or {}
            round_ = Round(
                capabilities=round_.capabilities,
                responses={key: answer(one) for key, one in asked.items()},
                state=result.get("requestState", ""),
            )
        return None

    async def all(self) -> None:
        """Every tool, each resource and each prompt; what the suite names, as it names it."""
        named = given().get("toolCalls")
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
        home = Path(folder)
        vault = Vault(home, RUNTIME)
        try:
            calls = Calls(url, home, Operator(await configured(url, home, vault), vault))
            await calls.approve()
        except Ring0Error as error:
            print(error, file=sys.stderr)
            return 1
        await calls.all()
        await calls.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[-1])))
