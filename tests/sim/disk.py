"""A disk for one journal: the real store's logic on SQLite, with a simulated writer and faults.

The writer's thread is replaced by timers of the simulated loop: a group is filled, those that ride
are told, time passes, and then it is on disk or the kernel is dead. Everything else (guards,
projections, Merkle tree, readers on a connection of their own) is the real store.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import random
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw

from ring0.errors import Ring0Error
from ring0.runtime import Runtime
from ring0.store.sqlite import create_tables, failing
from ring0.store.sqlite.committing import Answer, Committer, Job, Work
from ring0.store.sqlite.store import SqliteStore
from ring0.store.sqlite.writer import give

FAST = "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA foreign_keys = ON"


class _NotYet(BaseException):
    """The group is filled, and not on disk."""


class SplitCommitter(Committer):
    """A `Committer` whose groups take time between filling and the disk."""

    fault: Callable[[], Exception | None] = staticmethod(lambda: None)
    _splits = False

    def begin(self, job: Job, source: Any) -> bool:
        """Fills a group, and tells those that ride. `end` it, where a transaction is open."""
        self._splits = True
        try:
            return self.group(job, source)
        except _NotYet:
            return True
        finally:
            self._splits = False

    def _commit(self) -> None:
        if self._splits:
            self._splits = False
            raise _NotYet
        super()._commit()

    def end(self) -> bool:
        """Puts it on disk, and tells the rest: as the end of `group`."""
        try:
            if (error := self.fault()) is not None:
                raise error
            self._commit()
        except Exception as error:
            jobs = self._jobs
            self._undo()
            return self._goes_on_without_reserve(error, jobs)
        return self._finish(self._jobs)


class SimulatedWriter:
    """`committing.Writer` without a thread."""

    def __init__(self, disk: Disk, connection: apsw.Connection, runtime: Runtime) -> None:
        self._disk = disk
        self._db = connection
        head = disk.head
        self.committer = SplitCommitter(connection, head, runtime, self._tell, disk.reserve())
        self.committer.fault = disk.fault
        self._jobs: deque[Job] = deque()
        self._busy = False
        self._closed = False
        self.dead = False

    def submit(self, write: Work | None) -> asyncio.Future[int]:
        job = Job(write)
        if self.dead:
            return job.future  # Nobody is there to say anything.
        if (refused := self._refusal()) is not None:
            job.future.set_exception(refused)
            return job.future
        self._jobs.append(job)
        self._disk.moment("append")
        if not self._busy:
            self._busy = True
            self._disk.later("begin", self._begin)
        return job.future

    def _refusal(self) -> Ring0Error | None:
        if self.committer.failure is not None:
            return failing.explain(self.committer.failure)
        return failing.closed() if self._closed else None

    def _begin(self) -> None:
        if self.dead:
            return
        if not self._jobs:
            self._busy = False
            return
        going = self.committer.begin(self._jobs.popleft(), self)
        self._disk.moment("told")
        if not going:
            self._refuse()
        elif not self._db.in_transaction:  # The reserve was given up: it is on disk already.
            self._begin()
        else:
            self._disk.later("commit", self._end)

    def _end(self) -> None:
        if self.dead:
            return
        self._disk.moment("commit")
        if self.dead:
            return
        going = self.committer.end()
        self._disk.moment("on disk")
        if going:
            self._begin()
        else:
            self._refuse()

    def _refuse(self) -> None:
        self._busy = False
        failure = self.committer.failure
        assert failure is not None
        jobs, self._jobs = list(self._jobs), deque()
        self._tell([(job, failing.explain(failure)) for job in jobs])

    def now(self) -> Job | None:
        return self._jobs.popleft() if self._jobs else None

    def later(self) -> Job | None:
        return None

    def _tell(self, answers: Sequence[tuple[Job, Answer]]) -> None:
        if not self.dead:
            give(answers)

    def latest_us(self) -> int:
        return self.committer.latest_us

    def stop(self) -> None:
        """The kernel closes: what is queued goes to the disk now."""
        self._closed = True
        while not self.dead and self.committer.failure is None:
            if self._db.in_transaction:
                if not self.committer.end():
                    self._refuse()
            elif self._jobs:
                if not self.committer.begin(self._jobs.popleft(), self):
                    self._refuse()
            else:
                break
        self.dead = True

    def close(self) -> None:
        self.committer.close()

    def die(self) -> None:
        """What is not on disk is gone."""
        self.dead = True
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")


class NoRoom:
    """The reserve of a disk that may be full, without its eight megabytes."""

    def __init__(self) -> None:
        self.held = True

    def give_up(self) -> bool:
        was, self.held = self.held, False
        return was


class Disk:
    """The folder of one journal, through any number of kernels."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.folder = folder
        self._dice = dice
        self._moments: Callable[[str], None] = lambda name: None
        self.writer: SimulatedWriter | None = None
        self.store: SqliteStore | None = None
        self._reader: apsw.Connection | None = None
        self.head = -1
        self.faults: deque[str] = deque()
        """What goes wrong at coming commits: `full` or `broken`."""
        self.slow = False
        shutil.copy(_template(), self._file)

    @property
    def _file(self) -> Path:
        return self.folder / "journal.db"

    def reserve(self) -> Any:
        return NoRoom()

    def watch(self, moment: Callable[[str], None]) -> None:
        """`moment` hears of each point at which a process may die."""
        self._moments = moment

    def moment(self, name: str) -> None:
        self._moments(name)

    def open(self, folder: Path, runtime: Runtime, *, write: bool) -> SqliteStore:
        """In the place of `open_store`."""
        assert folder == self.folder and write and self.writer is None
        writing = apsw.Connection(str(self._file))
        writing.execute(FAST).fetchall()
        self._reader = apsw.Connection(str(self._file), flags=apsw.SQLITE_OPEN_READONLY)
        self.head = self._open_head()
        self.writer = SimulatedWriter(self, writing, runtime)
        self.store = SqliteStore(self._reader, self.writer, self.head, runtime)
        return self.store

    def _open_head(self) -> int:
        return os.open(self.folder / "journal.head", os.O_RDWR | os.O_CREAT, 0o600)

    def reopen(self) -> SqliteStore:
        """To read, when the last kernel is gone."""
        self._reader = apsw.Connection(str(self._file), flags=apsw.SQLITE_OPEN_READONLY)
        return SqliteStore(self._reader, None, self._open_head(), Runtime())

    def later(self, what: str, go: Callable[[], None]) -> None:
        """A disk takes its time."""
        most_ms = {"begin": 1.0, "commit": 400.0 if self.slow else 8.0}[what]
        delay_s = self._dice.random() ** 3 * most_ms / 1_000
        asyncio.get_running_loop().call_later(delay_s, go)

    def fault(self) -> Exception | None:
        if not self.faults:
            return None
        kind = self.faults.popleft()
        return apsw.FullError("simulated") if kind == "full" else apsw.IOError("simulated")

    @property
    def failed(self) -> bool:
        """The kernel of this moment can write no more."""
        committer = self.writer.committer if self.writer else None
        return committer is not None and (committer.failure is not None or committer.full)

    def die(self) -> None:
        """The process is gone, and with it all that it had open."""
        if self.writer is not None:
            self.writer.die()
            self.writer.close()
            os.close(self.head)
        if self._reader is not None:
            self._reader.close()
        self.writer = self.store = self._reader = None


@functools.cache
def _template() -> Path:
    """An empty journal, made once a process; its children share it."""
    folder = tempfile.TemporaryDirectory(prefix="ring0-sim-", dir=scratch())
    atexit.register(_remove, folder, os.getpid())
    path = Path(folder.name) / "journal.db"
    made = apsw.Connection(str(path))
    made.execute(FAST).fetchall()
    create_tables(made)
    made.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    made.close()
    return path


def _remove(folder: tempfile.TemporaryDirectory[str], owner: int) -> None:
    if os.getpid() == owner:
        folder.cleanup()


def scratch() -> Path:
    """Memory, where there is some to be had as files."""
    shm = Path("/dev/shm")
    return shm if os.access(shm, os.W_OK) else Path("/tmp")
