"""The one writer: a thread that takes writes in order and commits them in groups.

A write whose caller waits for the disk closes the group at once; the others ride until then, or
for GROUP_COMMIT_DELAY_MS. The first failure of the disk ends the writer: every write after it is
refused, so that nothing is ever acknowledged that a later crash could contradict.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time

import apsw

from ring0 import limits
from ring0.errors import Ring0Error, StoreFailed, StoreFull
from ring0.runtime import Runtime
from ring0.store import merkle
from ring0.store.base import GuardFailed, Write
from ring0.store.events import KERNEL, Entry, encode_entry
from ring0.store.project import project
from ring0.store.sqlite import sql
from ring0.store.sqlite.guards import check
from ring0.store.sqlite.tables import SqliteTables, first


class Job:
    """A write on its way to the disk (None: a flush) and who waits for it."""

    __slots__ = ("future", "loop", "seq", "write")

    def __init__(self, write: Write | None) -> None:
        self.write = write
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[int] = self.loop.create_future()
        self.seq = 0


class Writer:
    """Owns the only connection that writes, and the Merkle tree."""

    def __init__(self, connection: apsw.Connection, head_file: int, runtime: Runtime) -> None:
        self._db = connection
        self._tables = SqliteTables(connection)
        self._head_file = head_file
        self._runtime = runtime
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._failed: Ring0Error | None = None
        self._stopping = False
        size, peaks, self._kernel_seq = first(connection, sql.TREE)
        self._tree = merkle.Tree(size, [peaks[i : i + 32] for i in range(0, len(peaks), 32)])
        self._thread = threading.Thread(target=self._work, name="ring0-writer", daemon=True)
        self._thread.start()

    def submit(self, write: Write | None) -> asyncio.Future[int]:
        """Queues a write; None is a flush. Never blocks; refuses when the queue is full."""
        job = Job(write)
        future = job.future
        if self._failed is not None:
            future.set_exception(self._failed)
        elif self._queue.qsize() >= limits.QUEUED_WRITES_MAX:
            future.set_exception(
                StoreFailed(
                    f"{limits.QUEUED_WRITES_MAX} writes wait for the disk.",
                    why="The disk is slower than what asks to be written.",
                    todo="Run less at once, or put RING0_HOME on a faster disk.",
                )
            )
        else:
            self._queue.put(job)
        return future

    def stop(self) -> None:
        """Writes what is queued, then ends the thread. Blocks."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def close(self) -> None:
        """After `stop`: lets go of the file."""
        self._db.close()

    # --- the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stopping:
            job = self._take(None)
            if job is None or not self._group(job):
                break
        while self._failed is not None:  # Answer what waits; submit() refuses the rest.
            job = self._take(0)
            if job is None:
                return
            _answer(job.loop, [(job.future, self._failed)])

    def _take(self, timeout_s: float | None) -> Job | None:
        """The next job; None when none comes in time, or when the thread is to stop."""
        try:
            job = self._queue.get(timeout=timeout_s) if timeout_s != 0 else self._queue.get_nowait()
        except queue.Empty:
            return None
        if job is None:
            self._stopping = True
        return job

    def _group(self, first: Job) -> bool:
        """One transaction. Returns False when nothing more can be written."""
        waiting: list[Job] = []
        riding: list[Job] = []
        job: Job | None = first
        try:
            self._db.execute("BEGIN IMMEDIATE")
            closes = time.monotonic() + limits.GROUP_COMMIT_DELAY_MS / 1_000
            for count in range(1, limits.BATCH_WRITES_MAX + 1):
                assert job is not None
                (waiting if job.write is None or job.write.durable else riding).append(job)
                try:
                    job.seq = 0 if job.write is None else self._write(job.write)
                except GuardFailed as failure:
                    _answer(job.loop, [(job.future, failure)])
                if count == limits.BATCH_WRITES_MAX:
                    break
                job = self._take(0)
                if job is None and not waiting and not self._stopping:
                    _acknowledge(riding)
                    job = self._take(max(0.0, closes - time.monotonic()))
                if job is None:
                    break
            _acknowledge(riding)
            self._commit()
            _acknowledge(waiting)
        except Exception as error:
            # An assertion of project() lands here too: a history that can't be is never written.
            self._fail(error, waiting + riding)
            return False
        return True

    def _write(self, write: Write) -> int:
        for guard in write.guards:
            check(guard, self._tables, self._db, self._runtime.now_us())
        for address, value in write.blobs.items():
            self._db.execute(sql.ADD_BLOB, (address, value))
        if write.key:
            self._db.execute(sql.ADD_KEY, (write.run, write.key))
        row = None if write.run == KERNEL else self._tables.get("run", write.run)
        seq = self._kernel_seq if write.run == KERNEL else (0 if row is None else row.events)
        first = seq + 1
        self._tables.scope_blobs = write.blobs
        for event in write.events:
            seq += 1
            entry = Entry(run=write.run, seq=seq, at_us=self._runtime.now_us(), body=event)
            body = encode_entry(entry)
            leaf = merkle.leaf_hash(body)
            self._db.execute(sql.ADD_EVENT, (self._tree.size, write.run, seq, leaf, body))
            self._tree.append(leaf)
            project(entry, self._tables)
        if write.run == KERNEL:
            self._kernel_seq = seq
        return first

    def _commit(self) -> None:
        tree = self._tree
        self._db.execute(sql.MOVE_TREE, (tree.size, b"".join(tree.peaks), self._kernel_seq))
        self._db.execute("COMMIT")
        # Written after the journal is on disk: the head never claims more than there is.
        os.pwrite(self._head_file, head_text(tree.size, tree.root().hex()), 0)

    def _fail(self, error: Exception, jobs: list[Job]) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except apsw.Error:
            pass
        self._failed = explain(error)
        self._failed.__cause__ = error
        for job in jobs:
            _answer(job.loop, [(job.future, self._failed)])


def _acknowledge(done: list[Job]) -> None:
    if done:
        _answer(done[0].loop, [(job.future, job.seq) for job in done])
        done.clear()


def _answer(
    loop: asyncio.AbstractEventLoop, answers: list[tuple[asyncio.Future[int], int | Exception]]
) -> None:
    def give() -> None:
        for future, answer in answers:
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    try:
        loop.call_soon_threadsafe(give)
    except RuntimeError:  # The loop has been closed: nobody waits any more.
        pass


def head_text(size: int, root: str) -> bytes:
    """The head file: one line of fixed width, so that it is replaced in one write."""
    return f"ring0-head-v1 {size:020d} {root}\n".encode()


def explain(error: Exception) -> Ring0Error:
    """What a failing disk means to a person."""
    if isinstance(error, apsw.FullError):
        return StoreFull(
            "The disk is full: the journal can't be written.",
            why="Nothing runs that isn't on record, so every call is refused from here on.",
            todo="Free some space, then run `ring0 recover`; what was acknowledged is safe.",
        )
    return StoreFailed(
        f"The journal can't be written: {error}.",
        why="Nothing runs that isn't on record, so every call is refused from here on.",
        todo="See to the disk, then run `ring0 recover`; what was acknowledged is safe.",
    )
