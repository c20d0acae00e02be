"""The kernel's side of a model that runs on this machine: its process is started when vectors are
first wanted, asked for a few texts at a time, and ended when nobody asks.

Somebody who waits for a query never waits behind more than the few texts that are under way. What
the process says is read as a stranger's: it parses what anybody wrote.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.memory.embedding import vectors
from ring0.memory.embedding.base import EmbeddingFailed
from ring0.memory.embedding.offlinemodels import OfflineModel
from ring0.runtime import Runtime


class Process(Protocol):
    """A model's process: lines of JSON in and out."""

    async def write(self, line: bytes) -> None: ...

    async def read(self) -> bytes:
        """The next line; empty: it has ended."""

    async def close(self) -> None: ...


Start = Callable[[OfflineModel], Awaitable[Process]]
"""Starts the process of this model."""


class _Job(NamedTuple):
    texts: Sequence[str]
    done: asyncio.Future[list[bytes]]


class _Line(msgspec.Struct):
    vector: str = ""
    error: str = ""


class OfflineEmbedder:
    """One model; one process at most. `close` it."""

    def __init__(self, model: OfflineModel, start: Start, runtime: Runtime) -> None:
        self.name = model.identity
        self.dimensions = model.dimensions
        self.starts = 0
        """How often its process was started."""
        self._model = model
        self._start = start
        self._runtime = runtime
        self._queries: deque[_Job] = deque()
        self._others: deque[_Job] = deque()
        self._wanted = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._failures = 0
        """In a row."""
        self._rests_until_us = 0

    @property
    def is_running(self) -> bool:
        return self._process is not None

    async def embed(self, texts: Sequence[str], *, query: bool) -> list[bytes]:
        """Raises EmbeddingFailed."""
        self._check_rest()
        jobs = [_Job(part, asyncio.get_running_loop().create_future()) for part in _parts(texts)]
        queue = self._queries if query else self._others
        if len(queue) + len(jobs) > limits.EMBEDDING_JOBS_MAX:
            raise EmbeddingFailed(
                "Too many texts wait for their vectors.",
                why=f"At most {limits.EMBEDDING_JOBS_MAX:,} parts wait at once.",
                todo="Ask again later.",
            )
        queue.extend(jobs)
        self._wanted.set()
        if self._worker is None or self._worker.done():
            self._worker = self._runtime.start(self._work(), name="embedder")
        try:
            found = await asyncio.gather(*(job.done for job in jobs))
        finally:
            for job in jobs:  # Nobody waits for the rest: it is not asked.
                job.done.cancel()
        return [vector for part in found for vector in part]

    async def close(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._fail_all(EmbeddingFailed("The kernel stops.", todo="Ask again when it is back."))
        await self._end()

    async def _work(self) -> None:
        while await self._is_wanted():
            job = (self._queries or self._others).popleft()
            if job.done.done():
                continue
            try:
                # Not cut off by who stops waiting: the next answer would be taken for theirs.
                found = await self._runtime.wait_for(self._ask(job.texts), self._patience_s())
            except asyncio.CancelledError:
                job.done.cancel()
                raise
            except Exception as error:
                await self._failed(job, error)
            else:
                self._failures = 0
                if not job.done.done():
                    job.done.set_result(found)

    async def _is_wanted(self) -> bool:
        """Waits for somebody who asks; False: nobody did, and the process is gone."""
        while not self._queries and not self._others:
            self._wanted.clear()
            try:
                await self._runtime.wait_for(self._wanted.wait(), limits.EMBEDDER_IDLE_S)
            except TimeoutError:
                await self._end()
                if not self._queries and not self._others:
                    self._worker = None
                    return False
        return True

    def _patience_s(self) -> int:
        return limits.EMBEDDING_TIMEOUT_S if self._process else limits.EMBEDDER_START_S

    async def _ask(self, texts: Sequence[str]) -> list[bytes]:
        if self._process is None:
            self.starts += 1
            self._process = await self._start(self._model)
        await self._process.write(msgspec.json.encode({"texts": texts}) + b"\n")
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        for place in range(len(texts)):
            line = await self._process.read()
            if not line:
                raise _Ended("its process ended")
            said = msgspec.json.decode(line, type=_Line)
            if said.error:
                raise _Ended(said.error[: limits.EMBEDDING_ERROR_CHARS_MAX])
            rows[place] = vectors.floats(said.vector, self.dimensions)
        return vectors.pack_all(rows)

    async def _failed(self, job: _Job, error: Exception) -> None:
        """Whatever it was: its process is not to be relied on any more."""
        await self._end()
        self._failures += 1
        failed = _failure(self._model, error)
        if not job.done.done():
            job.done.set_exception(failed)
        if self._failures >= limits.EMBEDDER_FAILURES_MAX:
            self._rests_until_us = self._runtime.monotonic_us() + limits.EMBEDDER_REST_S * 1_000_000
            self._failures = 0
            self._fail_all(failed)

    def _check_rest(self) -> None:
        left_us = self._rests_until_us - self._runtime.monotonic_us()
        if left_us > 0:
            raise EmbeddingFailed(
                f"The embedder {self._model.name} rests for {left_us // 1_000_000 + 1} s.",
                why=f"It failed {limits.EMBEDDER_FAILURES_MAX} times in a row.",
                todo="Until then what is recalled is found by its words.",
            )

    def _fail_all(self, error: EmbeddingFailed) -> None:
        for queue in (self._queries, self._others):
            while queue:
                job = queue.popleft()
                if not job.done.done():
                    job.done.set_exception(error)

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.close()


class _Ended(Exception):
    """What the process said last."""


def _parts(texts: Sequence[str]) -> list[list[str]]:
    """A few at a time, each cut where a vector would not tell of it anyway."""
    parts: list[list[str]] = []
    room = 0
    for text in texts:
        # Half a character, from who cut a text in two, is no JSON.
        whole = text[: limits.EMBEDDING_TEXT_CHARS_MAX].encode("utf-8", "replace").decode()
        room -= len(whole)
        if not parts or room < 0 or len(parts[-1]) == limits.EMBEDDING_BATCH_TEXTS_MAX:
            parts.append([])
            room = limits.EMBEDDING_BATCH_CHARS_MAX - len(whole)
        parts[-1].append(whole)
    return parts


def _failure(model: OfflineModel, error: Exception) -> EmbeddingFailed:
    if isinstance(error, TimeoutError):
        why = "It took too long."
    elif isinstance(error, Ring0Error):
        why = f"{error.what} {error.why}"
    else:
        why = f"{type(error).__name__}: {error}" if not isinstance(error, _Ended) else f"{error}"
    return EmbeddingFailed(
        f"The embedder {model.name} made no vectors.",
        why=why[: limits.EMBEDDING_ERROR_CHARS_MAX],
        todo=f"What is recalled is found by its words. If this stays: install the extra"
        f" `{model.extra}` anew, or set [memory] embeddings of ring0.toml.",
    )
