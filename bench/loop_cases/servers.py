"""A local HTTP server as agents meet them: pages, jobs that take their time, and failures."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
from aiohttp import web

PAGES, PAGE_ITEMS = 14, 5


class Shop:
    """Items by page, or by a cursor that the server keeps; jobs; a queue; an endpoint that fails.

    Every answer says when it was made and counts its requests, as answers do.
    """

    def __init__(self) -> None:
        self.url = ""
        self._requests = itertools.count(1)
        self._cursors: dict[str, int] = defaultdict(int)
        self._jobs: dict[str, int] = defaultdict(int)
        self._tries: dict[str, int] = defaultdict(int)

    def _answer(self, body: dict[str, Any], status: int = 200) -> web.Response:
        at = datetime.now(UTC).isoformat()
        return web.json_response(
            {**body, "at": at, "request_id": f"q-{next(self._requests):x}"}, status=status
        )

    async def page(self, request: web.Request) -> web.Response:
        number = int(request.query["page"])
        first = number * PAGE_ITEMS
        items = [f"item {n}" for n in range(first, first + PAGE_ITEMS)] if number < PAGES else []
        return self._answer({"items": items})

    async def following(self, request: web.Request) -> web.Response:
        case = request.query["case"]
        self._cursors[case] += 1
        number = self._cursors[case]
        return self._answer({"rows": [[number, number * 7]] if number < PAGES else []})

    async def job(self, request: web.Request) -> web.Response:
        """A job that is done after `takes` looks; with `steps` it says how far it is."""
        case, takes = request.query["case"], int(request.query["takes"])
        self._jobs[case] += 1
        done = self._jobs[case]
        body: dict[str, Any] = {"state": "done" if done >= takes else "pending"}
        if "steps" in request.query:
            body["percent"] = min(100, 100 * done // takes)
        return self._answer(body)

    async def take(self, request: web.Request) -> web.Response:
        case, most = request.query["case"], int(request.query["jobs"])
        self._cursors[case] += 1
        number = self._cursors[case]
        return self._answer({"job": {"id": number, "kind": "resize"} if number <= most else None})

    async def flaky(self, request: web.Request) -> web.Response:
        case, fails = request.query["case"], int(request.query["fails"])
        self._tries[case] += 1
        if self._tries[case] <= fails:
            return self._answer({"error": "busy", "attempt": self._tries[case]}, status=503)
        return self._answer({"ok": True})

    async def check(self, request: web.Request) -> web.Response:
        return self._answer({"status": "ok"})


@asynccontextmanager
async def shop() -> AsyncIterator[Shop]:
    """The server, on a port of its own, for as long as the block lasts."""
    made = Shop()
    app = web.Application()
    for name in ("page", "following", "job", "take", "flaky", "check"):
        app.router.add_get(f"/{name}", getattr(made, name))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


class Asking:
    """One HTTP client for all tools of the benchmark."""

    def __init__(self) -> None:
        self.url = ""
        self._session: aiohttp.ClientSession | None = None

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """The answer's JSON; a status that is no success is an error that holds it."""
        if self._session is None:
            self._session = aiohttp.ClientSession()
        async with self._session.get(f"{self.url}/{path}", params=query) as response:
            text = await response.text()
            if response.status != 200:
                raise RuntimeError(f"{response.status}: {text}")
            body: dict[str, Any] = await response.json()
            return body

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
            await asyncio.sleep(0)
