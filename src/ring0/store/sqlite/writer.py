"""The one writer: a thread that takes writes in order and commits them in groups.

A write whose caller waits for the disk closes the group at once; the others ride until then, or
for GROUP_COMMIT_DELAY_MS. What a group does is `committing.py`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue

import apsw

from ring0 import limits
from ring0.errors import Ring0Error, StoreFailed
from ring0.runtime import Runtime
from ring0.store.sqlite.committing import Answer, Committer, Job, Work
from ring0.store.sqlite.failing import closed, explain
from ring0.store.sqlite.reserve import Reserve


class WriterThread:
    """Runs a `Committer`."""

    def __init__(
        self,
        connection: apsw.Connection,
        head_file: int,
        runtime: Runtime,
        reserve: Reserve | None = None,
    ) -> None:
        self._committer = Committer(connection, head_file, runtime, _tell, reserve)
        self._closes = 0.0
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        """None is the last: nothing comes after it."""
        self._ended = False
        """The last was taken."""
        self._lock = threading.Lock()
        """Guards what is put in and the next two: what is queued is answered, what comes too late
        is refused."""
        self._failure: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="ring0-writer", daemon=True)
        self._thread.start()

    def submit(self, write: Work | None) -> asyncio.Future[int]:
        """Queues some work; None is a flush. Never blocks; refuses when the queue is full."""
        job = Job(write)
        with self._lock:
            refused = self._refusal()
            if refused is None:
                self._jobs.put(job)
        if refused is not None:
            job.future.set_exception(refused)
        return job.future

    def stop(self) -> None:
        """Writes what is queued, then ends the thread. Blocks; what comes later is refused."""
        with self._lock:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    def close(self) -> None:
        """After `stop`: lets go of the file."""
        self._committer.close()

    def latest_us(self) -> int:
        """The journal's own time."""
        return self._committer.latest_us

    def _refusal(self) -> Ring0Error | None:
        if self._failure is not None:
            return explain(self._failure)
        if self._closed:
            return closed()
        return crowded() if self._jobs.qsize() >= limits.QUEUED_WRITES_MAX else None

    # --- the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        job: Job | None = None
        try:
            while (job := self._take(None)) is not None:
                self._closes = time.monotonic() + limits.GROUP_COMMIT_DELAY_MS / 1_000
                if not self._committer.group(job, self):
                    break
        except BaseException as error:  # A fault of ours: nobody may wait for ever because of it.
            self._committer.fail(error, [job] if job is not None else [])
        self._refuse_what_is_queued()

    def now(self) -> Job | None:
        return self._take(0)

    def later(self) -> Job | None:
        return self._take(max(0.0, self._closes - time.monotonic()))

    def _take(self, timeout_s: float | None) -> Job | None:
        """The next job; None when none comes in time, or when the last one was taken."""
        if self._ended:
            return None
        try:
            job = self._jobs.get(timeout_s != 0, timeout_s)
        except Empty:
            return None
        self._ended = job is None
        return job

    def _refuse_what_is_queued(self) -> None:
        failure = self._committer.failure
        if failure is None:
            return
        with self._lock:  # Nothing is put in from here on.
            self._failure = failure
        jobs = []
        while not self._jobs.empty():
            jobs.append(self._jobs.get())
        _tell([(job, explain(failure)) for job in jobs if job is not None])


def _tell(answers: Sequence[tuple[Job, Answer]]) -> None:
    """Tells each caller in its own loop."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[Job, Answer]]] = {}
    for job, answer in answers:
        loops.setdefault(job.future.get_loop(), []).append((job, answer))
    for loop, told in loops.items():
        try:
            loop.call_soon_threadsafe(give, told)
        except RuntimeError:  # The loop has been closed: nobody waits any more.
            pass


def give(answers: Sequence[tuple[Job, Answer]]) -> None:
    """Answers, in the loop of those who wait."""
    for job, answer in answers:
        if job.future.done():  # It was told, or its caller was cancelled.
            continue
        if isinstance(answer, Exception):
            job.future.set_exception(answer)
        else:
            job.future.set_result(answer)


def crowded() -> StoreFailed:
    """More is asked than the disk takes."""
    return StoreFailed(
        f"{limits.QUEUED_WRITES_MAX} writes wait for the disk.",
        why="The disk is slower than what asks to be written.",
        todo="Run less at once, or put RING0_HOME on a faster disk.",
    )
