"""A door without a kernel behind it: answers by a function, remembers what came."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ring0.sdk.door import RunInfo
from ring0.types import Integrity, Label, Request, ToolManifest

LABEL = Label(integrity=Integrity.UNTRUSTED)


def manifest(name: str) -> ToolManifest:
    return ToolManifest(name=name, description=name, schema={"type": "object"}, effect="pure")


def info(**more: Any) -> RunInfo:
    return RunInfo(run="r-1", agent="desk", task="do it", **more)


class FakeDoor:
    def __init__(self, answer: Callable[[Request], Any]) -> None:
        self.answer = answer
        self.seen: list[Request] = []

    async def call(self, request: Request) -> tuple[Any, Label]:
        self.seen.append(request)
        value = self.answer(request)
        if isinstance(value, Awaitable):
            value = await value
        if isinstance(value, Exception):
            raise value
        return value, LABEL

    async def describe(self) -> RunInfo:
        return info()

    async def finish(self, *, value: Any = None, error: dict[str, str] | None = None) -> None:
        raise AssertionError("run_agent does not finish runs")

    @property
    def ids(self) -> dict[str, str]:
        """What was called, by name, as `path/counter`."""
        return {request.name: f"{request.path}/{request.counter}" for request in self.seen}
