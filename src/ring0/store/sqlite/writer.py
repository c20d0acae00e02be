"""The one writer: a thread that takes writes in order and commits them in groups.

A write whose caller waits for the disk closes the group at once; the others ride until then, or
for GROUP_COMMIT_DELAY_MS. A write that can't be is refused alone. The first failure of the disk
ends the writer: every write after it is refused, so that nothing durable is ever acknowledged that
a later crash could contradict.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Iterable

import apsw

from ring0 import limits
from ring0.errors import Ring0Error, StoreFailed, StoreFull
from ring0.runtime import Runtime
from ring0.store import merkle
from ring0.store.base import GuardFailed, Write, WriteImpossible
from ring0.store.events import KERNEL, Entry, decode_entry, encode_entry
from ring0.store.project import project
from ring0.store.sqlite import sql
from ring0.store.sqlite.guards import check
from ring0.store.sqlite.tables import SqliteTables, first, tree_of


class Job:
    """A write on its way to the disk (None: a flush) and who waits for it."""

    __slots__ = ("future", "loop", "seq", "write")

    def __init__(self, write: Write | None) -> None:
        self.write = write
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[int] = self.loop.create_future()
        self.seq = 0

    @property
    def waits(self) -> bool:
        """Is its caller told only when it is on disk?"""
        return self.write is None or self.write.durable


class Writer:
    """Owns the only connection that writes, and the Merkle tree."""

    def __init__(self, connection: apsw.Connection, head_file: int, runtime: Runtime) -> None:
        self._db = connection
        self._tables = SqliteTables(connection)
        self._head_file = head_file
        self._runtime = runtime
        self._changed = threading.Condition()
        """Guards the next three: what is queued is answered, what comes too late is refused."""
        self._jobs: deque[Job] = deque()
        self._failure: BaseException | None = None
        self._closed = False
        self._tree, self._kernel_seq = tree_of(connection)
        self._on_disk = self._tree.size
        last = first(connection, sql.LAST_EVENT)
        self._latest_us = decode_entry(last[0]).at_us if last is not None else 0
        self._thread = threading.Thread(target=self._work, name="ring0-writer", daemon=True)
        self._thread.start()

    def submit(self, write: Write | None) -> asyncio.Future[int]:
        """Queues a write; None is a flush. Never blocks; refuses when the queue is full."""
        job = Job(write)
        with self._changed:
            refused = self._refusal()
            if refused is None:
                self._jobs.append(job)
                self._changed.notify()
        if refused is not None:
            job.future.set_exception(refused)
        return job.future

    def stop(self) -> None:
        """Writes what is queued, then ends the thread. Blocks; what comes later is refused."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def close(self) -> None:
        """After `stop`: lets go of the file."""
        self._db.close()

    def _refusal(self) -> Ring0Error | None:
        if self._failure is not None:
            return explain(self._failure)
        if self._closed:
            return closed()
        if len(self._jobs) >= limits.QUEUED_WRITES_MAX:
            return StoreFailed(
                f"{limits.QUEUED_WRITES_MAX} writes wait for the disk.",
                why="The disk is slower than what asks to be written.",
                todo="Run less at once, or put RING0_HOME on a faster disk.",
            )
        return None

    # --- the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        job: Job | None = None
        try:
            while (job := self._take(None)) is not None and self._group(job):
                pass
        except BaseException as error:  # A fault of ours: nobody may wait for ever because of it.
            self._fail(error, [job] if job is not None else [])

    def _take(self, timeout_s: float | None) -> Job | None:
        """The next job; None when none comes in time, or when the last one was taken."""
        with self._changed:
            if not self._jobs and timeout_s != 0:
                self._changed.wait_for(lambda: self._jobs or self._closed, timeout_s)
            return self._jobs.popleft() if self._jobs else None

    def _group(self, job: Job | None) -> bool:
        """One transaction. Returns False when nothing more can be written."""
        waiting: list[Job] = []
        riding: list[Job] = []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            closes = time.monotonic() + limits.GROUP_COMMIT_DELAY_MS / 1_000
            room = limits.BATCH_WRITES_MAX
            while job is not None:
                self._do(job, waiting if job.waits else riding)
                room -= 1
                job = self._take(0) if room else None
                if job is None and room and not waiting:
                    _acknowledge(riding)
                    job = self._take(max(0.0, closes - time.monotonic()))
            _acknowledge(riding)
            self._commit()
            try:
                self._move_head()
            finally:
                _acknowledge(waiting)  # The head file may lag; what they wait for is on disk.
        except Exception as error:
            self._fail(error, waiting + riding)
            return False
        return True

    def _do(self, job: Job, done: list[Job]) -> None:
        """One write of the group, all of it or nothing. Raises what the disk does to us."""
        if job.write is None:
            done.append(job)
            return
        size, peaks = self._tree.size, list(self._tree.peaks)
        try:
            self._db.execute("SAVEPOINT one")
            self._guard(job.write)
            job.seq = self._write(job.write)
            self._db.execute("RELEASE one")
            done.append(job)
        except Exception as error:
            if _is_of_the_disk(error):
                done.append(job)
                raise
            self._db.execute("ROLLBACK TO one")
            self._db.execute("RELEASE one")
            self._tree = merkle.Tree(size, peaks)
            known = isinstance(error, GuardFailed)
            _answer([(job, error if known else impossible(job.write, error))])

    def _guard(self, write: Write) -> None:
        # A clock that was set back revives nothing that has expired.
        now_us = max(self._runtime.now_us(), self._latest_us)
        for guard in write.guards:
            check(guard, self._tables, self._db, now_us)

    def _write(self, write: Write) -> int:
        for address, value in write.blobs.items():
            assert len(value) <= limits.BLOB_SIZE_BYTES_MAX, f"a value of {len(value)} bytes"
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
            self._latest_us = max(self._latest_us, entry.at_us)
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
        if tree.size != self._on_disk:
            self._db.execute(sql.MOVE_TREE, (tree.size, b"".join(tree.peaks), self._kernel_seq))
        self._db.execute("COMMIT")

    def _move_head(self) -> None:
        """After the journal is on disk, so that the head never claims more than there is."""
        if self._tree.size != self._on_disk:
            write_head(self._head_file, self._tree)
            self._on_disk = self._tree.size

    def _fail(self, error: BaseException, jobs: list[Job]) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except apsw.Error:
            pass
        with self._changed:
            self._failure = error
            jobs = [*jobs, *self._jobs]
            self._jobs.clear()
        _answer([(job, explain(error)) for job in jobs])


def _acknowledge(done: list[Job]) -> None:
    if done:
        _answer([(job, job.seq) for job in done])
        done.clear()


def _answer(answers: Iterable[tuple[Job, int | Exception]]) -> None:
    """Tells each caller in its own loop."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[int], int | Exception]]] = {}
    for job, answer in answers:
        loops.setdefault(job.loop, []).append((job.future, answer))
    for loop, told in loops.items():
        try:
            loop.call_soon_threadsafe(_give, told)
        except RuntimeError:  # The loop has been closed: nobody waits any more.
            pass


def _give(told: list[tuple[asyncio.Future[int], int | Exception]]) -> None:
    for future, answer in told:
        if future.done():  # Its caller was cancelled.
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def write_head(head_file: int, tree: merkle.Tree) -> None:
    """The head file: one line of fixed width, so that it is replaced in one write."""
    line = f"ring0-head-v1 {tree.size:020d} {tree.root().hex()}\n".encode()
    if os.pwrite(head_file, line, 0) != len(line):
        raise OSError(errno.ENOSPC, "the head file could not be written")


# --- what went wrong, and whose fault it is ------------------------------------------------------


def _is_of_the_disk(error: Exception) -> bool:
    """Nothing can be written any more; otherwise only this write can't be."""
    unfit = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError)
    return isinstance(error, OSError) or (
        isinstance(error, apsw.Error) and not isinstance(error, unfit)
    )


def impossible(write: Write, error: Exception) -> WriteImpossible:
    """A write that contradicts the journal, or that holds what can't be stored."""
    kinds = ", ".join(type(event).__name__ for event in write.events)
    refused = WriteImpossible(
        f"An event of {write.run[:80]!r} can't be put on record ({kinds}).",
        why=f"{type(error).__name__}: {str(error)[:200]}".encode("utf-8", "replace").decode(),
        todo="A fault of ring0: nothing of it was written. Report it, with `ring0 show`.",
    )
    refused.__cause__ = error
    return refused


def closed() -> StoreFailed:
    """The journal was closed."""
    return StoreFailed(
        "The journal is closed.",
        why="The kernel is ending, or has ended.",
        todo="Start it again; `ring0 recover` goes on with what it was doing.",
    )


def explain(error: BaseException) -> Ring0Error:
    """What a failing disk means to a person."""
    told: Ring0Error
    if _is_full(error):
        told = StoreFull(
            "The disk is full: the journal can't be written.",
            why="Nothing runs that isn't on record, so every call is refused from here on.",
            todo="Free some space, then run `ring0 recover`; what was acknowledged is safe.",
        )
    else:
        told = StoreFailed(
            f"The journal can't be written: {error}.",
            why="Nothing runs that isn't on record, so every call is refused from here on.",
            todo="See to the disk, then run `ring0 recover`; what was acknowledged is safe.",
        )
    told.__cause__ = error
    return told


def _is_full(error: BaseException) -> bool:
    if isinstance(error, apsw.IOError):  # The WAL's index grows in a file of its own.
        return bool(getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE)
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, apsw.FullError)
