"""The JSON of a request at a door: a few at a time, bounded, and none that trickles."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from aiohttp import web

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.kernel import values
from ring0.runtime import Runtime


class BodyRefused(CallInvalid):
    """A body that was not read to its end; `status` says why in HTTP's words."""

    def __init__(self, status: int, what: str, *, why: str = "", todo: str = "") -> None:
        super().__init__(what, why=why, todo=todo)
        self.status = status


def size_of(request: web.Request) -> int:
    """What its body may weigh, before it is read: the most there is where it does not say, and
    nothing where it is refused unread."""
    size = request.content_length
    if size is None:
        return limits.CALL_BODY_SIZE_BYTES_MAX
    return size if size <= limits.CALL_BODY_SIZE_BYTES_MAX else 0


def traceparent_of(request: web.Request) -> str:
    """The span that its client says it asks in; empty where it says none, or several."""
    found = request.headers.getall("traceparent", [])
    return found[0] if len(found) == 1 else ""


class Bodies:
    """Reads those of one door."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._reading = asyncio.Semaphore(limits.DOOR_BODIES_AT_ONCE_MAX)

    async def read(self, request: web.Request) -> Any:
        """Raises CallInvalid.

        Not kept on the request (as `request.read()` would): a held call must not hold its bytes.
        """
        if (request.content_length or 0) > limits.CALL_BODY_SIZE_BYTES_MAX:
            raise _too_large()
        async with self._reading:
            try:
                whole = await self._runtime.wait_for(
                    self._read(request.content), limits.DOOR_BODY_S_MAX
                )
            except TimeoutError:
                raise BodyRefused(
                    408,
                    "The request's body came too slowly.",
                    why=f"It has to be there within {limits.DOOR_BODY_S_MAX} s.",
                    todo="Send it at once.",
                ) from None
            except web.RequestPayloadError:
                raise BodyRefused(400, "The request's body is broken.", todo="Mend it.") from None
            return values.parse(whole)

    async def _read(self, content: aiohttp.StreamReader) -> bytes:
        found = bytearray()
        async for chunk in content.iter_any():
            found += chunk
            if len(found) > limits.CALL_BODY_SIZE_BYTES_MAX:
                raise _too_large()
        return bytes(found)


def _too_large() -> BodyRefused:
    return BodyRefused(
        413,
        "The request is too large.",
        why=f"At most {limits.CALL_BODY_SIZE_BYTES_MAX} bytes are taken.",
        todo="Send less, or put the value into the workspace as a file.",
    )
