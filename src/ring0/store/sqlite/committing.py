"""How a group of writes becomes one transaction: guards, events, rows, Merkle tree, head, answers.

No thread, no clock and no waiting: `writer.py` runs it in the one writer thread, a simulator on a
simulated clock. Rows are worked out in memory and go to the database once a group, so a write that
can't be leaves nothing behind. The first failure of the disk ends it: every write after it is
refused, so that nothing durable is ever acknowledged that a later crash could contradict. Where the
disk is full and there is a reserve, the reserve is given up, the group written again, and from then
on only what stops or ends something is taken.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import apsw

from ring0 import limits
from ring0.runtime import Runtime
from ring0.store import merkle
from ring0.store.base import Write
from ring0.store.events import KERNEL, decode_entry, seal
from ring0.store.project import project
from ring0.store.sqlite import failing, sql
from ring0.store.sqlite.beside import Beside
from ring0.store.sqlite.guards import LOOKS_THROUGH_A_TABLE, check
from ring0.store.sqlite.quotas import check_quota
from ring0.store.sqlite.reserve import Reserve, may_use_reserve
from ring0.store.sqlite.tables import SqliteTables, first, tree_of

Work = Write | Beside


class Job:
    """Work on its way to the disk (None: a flush), and the future of who waits for it."""

    __slots__ = ("future", "seq", "write")

    def __init__(self, write: Work | None) -> None:
        self.write = write
        self.future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.seq = 0

    @property
    def waits(self) -> bool:
        """Is its caller told only when it is on disk?"""
        return not isinstance(self.write, Write) or self.write.durable

    @property
    def closes(self) -> bool:
        """Does its group go to the disk at once? Those of it that ride are told when nothing more
        is taken into it: what they make their callers do comes after it."""
        if isinstance(self.write, Write):
            return self.write.durable or self.write.soon
        return self.write is None or self.write.after


Answer = int | Exception
"""The seq of a write's first event, or why it was refused."""
Tell = Callable[[Sequence[tuple[Job, Answer]]], None]
"""Answers jobs; it is called where `Committer.group` runs. A future that is done stays as it is."""


class Source(Protocol):
    """Where a group gets its jobs from, in the order in which they were appended."""

    def now(self) -> Job | None:
        """The next job, if there is one."""
        ...

    def later(self) -> Job | None:
        """The next job, waiting for one as long as a group may ride; None closes the group."""
        ...


class Writer(Protocol):
    """What a store needs of whatever runs a `Committer`."""

    def submit(self, write: Work | None) -> asyncio.Future[int]:
        """Queues some work; None is a flush. Never blocks; refuses when the queue is full."""
        ...

    def stop(self) -> None:
        """Writes what is queued; what comes later is refused."""
        ...

    def close(self) -> None:
        """After `stop`: lets go of the file."""
        ...

    def latest_us(self) -> int:
        """The journal's own time: that of its newest entry, as far as this thread can see."""
        ...


class _Mark(NamedTuple):
    """Where the log stands."""

    size: int
    peaks: tuple[bytes, ...]
    kernel_seq: int


class Committer:
    """Owns the only connection that writes, and the Merkle tree."""

    def __init__(
        self,
        connection: apsw.Connection,
        head_file: int,
        runtime: Runtime,
        tell: Tell,
        reserve: Reserve | None = None,
    ) -> None:
        """`head_file` -1: none. `reserve` None: a full disk ends it."""
        self._db = connection
        self._tables = SqliteTables(connection)
        self._head_file = head_file
        self._runtime = runtime
        self._tell = tell
        self._reserve = reserve
        self._reserve_used_bytes = 0
        self.full = reserve is not None and not reserve.held
        """Only what stops or ends something is taken."""
        self.failure: BaseException | None = None
        """Nothing is taken any more."""
        self._tree, self._kernel_seq = tree_of(connection)
        self._on_disk = self._tree.size
        last = first(connection, sql.LAST_EVENT)
        self.latest_us = decode_entry(last[0]).at_us if last is not None else 0
        self._jobs: list[Job] = []
        """Of the group, without those that were refused."""
        self._riding: list[Job] = []
        """Those of them that are told as soon as their rows are in the transaction."""
        self._began = self._mark()
        """Where the log stood before the group."""

    def group(self, job: Job, source: Source) -> bool:
        """One transaction, beginning with this job. False: nothing more can be written."""
        self._jobs, self._riding, self._began = [], [], self._mark()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._fill(job, source)
            self._runtime.reached("group.written")
            self._commit()
        except Exception as error:
            jobs = self._jobs or [job]
            self._undo()
            return self._goes_on_without_reserve(error, jobs)
        return self._finish(self._jobs)

    def close(self) -> None:
        self._db.close()

    def fail(self, error: BaseException, jobs: Sequence[Job]) -> None:
        """Nothing is written from here on; these jobs are told."""
        self._roll_back()
        self.failure = error
        self._tell([(job, failing.explain(error)) for job in jobs])

    # --- a group ------------------------------------------------------------------------------

    def _fill(self, first: Job, source: Source) -> None:
        job: Job | None = first
        room = limits.BATCH_WRITES_MAX
        closes = False
        while job is not None:
            self._add(job)
            closes = closes or job.closes
            room = 0 if self._tables.group_bytes > limits.GROUP_SIZE_BYTES_MAX else room - 1
            job = source.now() if room > 0 else None
            if job is None and room > 0 and not closes:
                self._settle()
                job = source.later()
        self._settle()

    def _add(self, job: Job, *, again: bool = False) -> None:
        """One write of the group, all of it or nothing. Raises what the disk does to us.

        `again`: it was added before, and held then.
        """
        self._jobs.append(job)
        if job.write is not None:
            try:
                if not isinstance(job.write, Write):
                    self._put_beside(job)
                else:
                    if not again:
                        self._check(job.write)
                    job.seq = self._put(job.write)
            except Exception as error:
                if failing.is_of_the_disk(error):
                    raise
                self._tables.drop()
                self._jobs.pop()
                self._tell([(job, failing.refusal(job.write, error))])
                return
        if not job.waits:
            self._riding.append(job)

    def _check(self, write: Write) -> None:
        # A clock that was set back revives nothing that has expired.
        now_us = max(self._runtime.now_us(), self.latest_us)
        for guard in write.guards:
            if type(guard) in LOOKS_THROUGH_A_TABLE:
                self._flush()
            check(guard, self._tables, self._db, now_us)
        check_quota(write, self._tables)
        if self.full:
            self._reserve_used_bytes = may_use_reserve(write, self._reserve_used_bytes)

    def _put(self, write: Write) -> int:
        tables, run = self._tables, write.run
        new_bytes = tables.begin(write)
        row = None if run == KERNEL else tables.get("run", run)
        seq = self._kernel_seq if run == KERNEL else (0 if row is None else row.events)
        begins, bodies = seq + 1, []
        latest_us = self.latest_us
        for event in write.events:
            seq += 1
            # The journal's time never goes back, also over restarts: its end says how late it is.
            latest_us = max(latest_us, self._runtime.now_us())
            entry, body = seal(run, seq, latest_us, event, new_bytes)
            new_bytes = 0  # They are the first event's.
            project(entry, tables)
            bodies.append((seq, body))
        # Nothing can fail from here on.
        for number, body in bodies:
            leaf = merkle.leaf_hash(body)
            tables.add_event((self._tree.size, run, number, leaf, body))
            self._tree.append(leaf)
        tables.keep()
        self.latest_us = latest_us
        if run == KERNEL:
            self._kernel_seq = seq
        return begins

    def _put_beside(self, job: Job) -> None:
        """What it is about is in the transaction. Nothing of the journal hangs on it."""
        beside = job.write
        assert beside is not None and not isinstance(beside, Write), "it is no write"
        if not beside.after:
            if self.full:
                raise failing.full()
            self._flush()
            job.seq = beside.do(self._db)

    def _settle(self) -> None:
        """Rows of all that was added are in the transaction; then those that ride are told."""
        self._flush()
        if self._riding:
            self._tell([(job, job.seq) for job in self._riding])
            self._riding = []

    def _flush(self) -> None:
        try:
            self._tables.flush()
        except Exception as error:
            if failing.is_of_the_disk(error):
                raise
            self._one_by_one()

    def _one_by_one(self) -> None:
        """One of them holds what the database does not take: the others are not to suffer."""
        suspects, self._jobs, self._riding = self._jobs, [], []
        self._undo()
        self._db.execute("BEGIN IMMEDIATE")
        for job in suspects:
            before = self._mark()
            self._add(job, again=True)
            self._db.execute("SAVEPOINT one")
            try:
                self._tables.flush()
            except Exception as error:
                if failing.is_of_the_disk(error) or not isinstance(job.write, Write):
                    raise
                self._db.execute("ROLLBACK TO one")
                self._restore(before)
                self._jobs.remove(job)
                self._riding = [one for one in self._riding if one is not job]
                self._tell([(job, failing.refusal(job.write, error))])
            self._db.execute("RELEASE one")

    # --- the end of a group -------------------------------------------------------------------

    def _commit(self) -> None:
        tree = self._tree
        if tree.size != self._on_disk:
            self._db.execute(sql.MOVE_TREE, (tree.size, b"".join(tree.peaks), self._kernel_seq))
        self._db.execute("COMMIT")

    def _finish(self, jobs: Sequence[Job]) -> bool:
        """All is on disk. The head follows, so that it never claims more than there is."""
        self._tables.committed()
        self._runtime.reached("group.committed")
        try:
            if self._tree.size != self._on_disk:
                if self._head_file >= 0:
                    write_head(self._head_file, self._tree)
                self._on_disk = self._tree.size
                self._runtime.reached("group.headed")
        except Exception as error:
            return self._goes_on_without_reserve(error, ())
        finally:
            # The head file may lag; what they wait for is on disk.
            self._tell([(job, job.seq) for job in jobs if job.waits and not _is_after(job)])
            self._tell([(job, self._after(job)) for job in jobs if _is_after(job)])
        return True

    def _after(self, job: Job) -> Answer:
        """What is done when the group is on disk. If it fails, nothing of the journal does."""
        assert job.write is not None and not isinstance(job.write, Write), "it is no write"
        try:
            return job.write.do(self._db)
        except Exception as error:
            return failing.explain(error)

    def _undo(self) -> None:
        """Nothing of the group was."""
        self._roll_back()
        self._restore(self._began)

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except apsw.Error:
            pass

    def _mark(self) -> _Mark:
        return _Mark(self._tree.size, tuple(self._tree.peaks), self._kernel_seq)

    def _restore(self, mark: _Mark) -> None:
        self._tree = merkle.Tree(mark.size, mark.peaks)
        self._kernel_seq = mark.kernel_seq
        self._tables.forget()

    # --- a full disk --------------------------------------------------------------------------

    def _goes_on_without_reserve(self, error: Exception, jobs: Sequence[Job]) -> bool:
        """Some of the group may have been told already: with the reserve's room all of it is
        written again, and what comes later is refused."""
        reserve = self._reserve
        if reserve is None or not failing.is_full(error) or not reserve.give_up():
            self.fail(error, jobs)
            return False
        self.full = True
        if not jobs:
            return True
        self._jobs, self._riding = [], []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for job in jobs:
                self._add(job, again=True)
            self._settle()
            self._commit()
        except Exception as still:
            self._undo()
            self.fail(still, jobs)
            return False
        return self._finish(self._jobs)


def _is_after(job: Job) -> bool:
    return job.write is not None and not isinstance(job.write, Write) and job.write.after


def write_head(head_file: int, tree: merkle.Tree) -> None:
    """The head file: one line of fixed width, so that it is replaced in one write."""
    line = f"ring0-head-v1 {tree.size:020d} {tree.root().hex()}\n".encode()
    if os.pwrite(head_file, line, 0) != len(line):
        raise OSError(errno.ENOSPC, "the head file could not be written")
