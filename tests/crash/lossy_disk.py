"""A disk that loses what was not synced when the power goes: a VFS of SQLite, and who writes to it.

What SQLite writes is held in this process's memory until it asks for a sync, so that a kill -9 of
the process loses exactly what a power cut may lose. `cut(torn=True)` first lets some of the writes
through, in any order, some of them in part: a disk promises no more than that before a sync.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

import journals
from ring0.runtime import Runtime
from ring0.store import Write
from ring0.store import events as ev
from ring0.store.sqlite import open_store
from ring0.types import RunState

NAME = "lossy"
SECTOR = 512


class Volatile:
    """One file as its process sees it, and what of that is not on the disk."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.content = bytearray(Path(path).read_bytes())
        self.pending: list[tuple[int, bytes | None]] = []
        """Writes; None: cut to that length."""

    def write(self, data: bytes, offset: int) -> None:
        if len(self.content) < offset:
            self.content.extend(bytes(offset - len(self.content)))
        self.content[offset : offset + len(data)] = data
        self.pending.append((offset, bytes(data)))

    def truncate(self, size: int) -> None:
        del self.content[size:]
        self.pending.append((size, None))

    def sync(self) -> None:
        self._let_through(self.pending)
        self.pending = []

    def tear(self, dice: random.Random) -> None:
        """Some of the writes reach the disk: any of them, in any order, cut at any sector."""
        some = [one for one in self.pending if dice.random() < 0.5]
        dice.shuffle(some)
        torn = []
        for offset, data in some:
            if data is not None and dice.random() < 0.5:
                data = data[: dice.randrange(0, len(data) + 1, SECTOR)]
            torn.append((offset, data))
        self._let_through(torn)

    def _let_through(self, writes: list[tuple[int, bytes | None]]) -> None:
        with open(self.path, "r+b", buffering=0) as disk:
            for offset, data in writes:
                if data is None:
                    disk.truncate(offset)
                else:
                    os.pwrite(disk.fileno(), data, offset)


class LossyDisk(apsw.VFS):
    """The VFS. One a process; locks and shared memory are the real one's."""

    def __init__(self) -> None:
        super().__init__(NAME, "")
        self.files: dict[str, Volatile] = {}
        self.power = threading.RLock()
        """Nobody reads or writes without it: it is the power."""

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        if name is None:  # A file for the time of one statement: nobody looks for it after a cut.
            return apsw.VFSFile("", name, flags)
        return LossyFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        with self.power:
            self.files.pop(filename, None)
            super().xDelete(filename, syncdir)

    def cut(self, dice: random.Random | None) -> None:
        """The power goes. `dice`: some of what is pending gets through before."""
        with self.power:
            if dice is not None:
                for file in self.files.values():
                    file.tear(dice)
            os.kill(os.getpid(), signal.SIGKILL)


class LossyFile(apsw.VFSFile):
    """A file that is open."""

    def __init__(self, disk: LossyDisk, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        with disk.power:
            if path not in disk.files:
                disk.files[path] = Volatile(path)
            self._file = disk.files[path]

    def xRead(self, amount: int, offset: int) -> bytes:
        with self._disk.power:
            return bytes(self._file.content[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        with self._disk.power:
            self._file.write(data, offset)

    def xTruncate(self, size: int) -> None:
        with self._disk.power:
            self._file.truncate(size)

    def xSync(self, flags: int) -> None:
        with self._disk.power:
            self._file.sync()

    def xFileSize(self) -> int:
        with self._disk.power:
            return len(self._file.content)


def writes(run: str) -> Iterator[tuple[int, Write]]:
    """Numbered writes, every third durable, some with values of many pages."""
    number = 0
    while True:
        event = ev.RunMoved(state=RunState.RUNNING, note=str(number))
        value = (b"%d " % number) * (5_000 if number % 7 == 0 else 20)
        blobs = journals.named(run, value)
        yield number, Write(run=run, events=[event], blobs=blobs, durable=number % 3 == 0)
        number += 1


async def write_until_the_power_goes(folder: Path, run: str, told: int) -> None:
    """Tells the pipe, as a line, what was acknowledged as on disk."""
    store = open_store(folder, Runtime(), write=True, vfs=NAME)
    await store.append(journals.queued(run))
    await store.append(journals.moved(run, epoch=1))
    waits: set[asyncio.Task[None]] = set()
    os.write(told, b"ready\n")

    async def one(number: int, write: Write) -> None:
        seq = await store.append(write)
        if write.durable:
            os.write(told, f"{seq} {number}\n".encode())

    for number, write in writes(run):
        waits.add(asyncio.ensure_future(one(number, write)))
        if len(waits) >= 20:
            _, waits = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)


def live_until_the_power_goes(folder: Path, run: str, told: int, orders: int) -> None:
    """The body of a process. A line on `orders` cuts the power: `torn SEED`, or `plain`."""
    disk = LossyDisk()

    def obey() -> None:
        words = os.read(orders, 100).decode().split()
        disk.cut(random.Random(int(words[1])) if words and words[0] == "torn" else None)

    threading.Thread(target=obey, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(write_until_the_power_goes(folder, run, told))
