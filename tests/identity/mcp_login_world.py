"""An MCP server on loopback that wants a login, its login server, and ring0's client of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from issuer import Issuer
from mcp_world import run_row

from ring0.identity import Vault
from ring0.identity.oauth_answers import Tokens
from ring0.kernel.agent.manifests import read_config
from ring0.kernel.calls.outside import Outside
from ring0.kernel.logins import Begun, Logins
from ring0.runtime import Runtime
from ring0.tools.driver import CallContext
from ring0.tools.mcp import McpTool, Server, drivers, pins, sender, settings

WELL_KNOWN = "/.well-known/oauth-protected-resource"


class McpServer:
    """Streamable HTTP of 2025-11-25, one tool; takes the issuer's tokens and no others."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.names = [issuer.url]
        """The login servers that it names."""
        self.resource = ""
        """What it says that it is; empty: what it is."""
        self.needs: dict[str, str] = {}
        """By method: the scope that a token has to have."""
        self.heard: list[tuple[str, str]] = []
        """(method, token) of each request."""
        self.redirect = ""
        """Where it sends calls instead of answering them."""

    async def __aenter__(self) -> McpServer:
        app = web.Application()
        app.router.add_post("/mcp", self._post)
        app.router.add_get(f"{WELL_KNOWN}/mcp", self._metadata)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/mcp"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def calls(self) -> list[str]:
        """The tokens of the tool's calls."""
        return [token for method, token in self.heard if method == "tools/call"]

    async def _metadata(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"resource": self.resource or self.url, "authorization_servers": self.names}
        )

    async def _post(self, request: web.Request) -> web.StreamResponse:
        asked: dict[str, Any] = await request.json()
        method = str(asked["method"])
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.heard.append((method, token))
        if not self.issuer.is_good(token):
            return _wants('scope="read"', 401)
        scope = self.needs.get(method, "read")
        if scope not in self.issuer.scopes_of[token]:
            return _wants(f'error="insufficient_scope", scope="{scope}"', 403)
        if method == "tools/call" and self.redirect:
            raise web.HTTPTemporaryRedirect(self.redirect)
        if "id" not in asked:
            return web.Response(status=202)
        result = _result(method)
        if result is None:
            error = {"code": -32601, "message": "no"}
            return web.json_response(
                {"jsonrpc": "2.0", "id": asked["id"], "error": error}, status=400
            )
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": result})


def _wants(what: str, status: int) -> web.Response:
    return web.Response(status=status, headers={"WWW-Authenticate": f"Bearer {what}"})


def _result(method: str) -> dict[str, Any] | None:
    info = {"name": "far", "version": "1"}
    said: dict[str, dict[str, Any]] = {
        "initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                       "serverInfo": info},
        "tools/list": {"tools": [{"name": "act", "inputSchema": {"type": "object"}}]},
        "tools/call": {"content": [{"type": "text", "text": "done"}]},
    }  # fmt: skip
    return said.get(method)


class LoginWorld:
    """What a kernel has of it, for runs of any principal."""

    def __init__(self, home: Path, server: McpServer, issuer: Issuer, config: str) -> None:
        self.home, self.server, self.issuer = home, server, issuer
        text = config.replace("URL", server.url).replace("ISSUER", issuer.url)
        (home / "ring0.toml").write_text(
            '[network]\nallow_private = ["127.0.0.0/8"]\nplain_credentials = ["127.0.0.1"]\n' + text
        )
        self.runtime = Runtime()
        self.vault = Vault(home, self.runtime)
        self.shown: list[tuple[Begun, str]] = []
        self.read()

    def read(self) -> None:
        """ring0.toml and the vault as they are now."""
        config = read_config(self.home)
        self.logins = Logins(config, self.vault, {}, self.runtime)
        self.tokens = self.logins.refreshing()
        self.outside = Outside(
            config, self.vault.value, self.runtime, token=self.tokens.token,
            refused=self.tokens.refused, principal="ada",
        )  # fmt: skip
        self.said = {"use": "mcp", "url": self.server.url, "secrets": ["far"], "wall_s": 5}

    async def log_in(self, principal: str = "ada", *scopes: str) -> Tokens:
        """A person does `ring0 secret login far`, and says yes in the browser."""
        browsers = []

        def show(begun: Begun, url: str) -> None:
            self.shown.append((begun, url))
            browsers.append(asyncio.ensure_future(self.issuer.come_back(url)))

        tokens = await self.logins.by_browser("far", principal, show, scopes)
        await asyncio.gather(*browsers)
        return tokens

    async def approve(self) -> None:
        said = settings.read("srv", self.said)
        send = sender(self.outside, "srv", said, self.runtime)
        server = Server("srv", said, self.home, self.runtime, send=send)
        nobody: Any = None
        pins.write(self.home, {"srv": await server.inspect(nobody)})

    def tool(self) -> McpTool:
        found = drivers("srv", self.said, self.home, self.runtime, outside=self.outside)
        [tool] = [one for one in found if isinstance(one, McpTool)]
        return tool

    async def call(self, tool: McpTool | None = None, principal: str = "ada") -> Any:
        """One call by a run of this principal."""
        own = tool is None
        tool = tool or self.tool()
        nobody: Any = None
        run = run_row(id=f"r-{principal}", principal=principal)
        context = CallContext(
            call=f"{run.id}/0/1", name="", begun_us=0, run=run, workspace=nobody, sandboxes=nobody
        )
        try:
            return (await tool.execute({}, await tool.prepare({}, context), context)).value
        finally:
            if own:
                await tool.close()


@asynccontextmanager
async def login_world(
    home: Path, config: str = '[oauth.far]\nmcp = "URL"\n'
) -> AsyncIterator[LoginWorld]:
    async with Issuer() as issuer, McpServer(issuer) as server:
        issuer.registers = True
        yield LoginWorld(home, server, issuer, config)
