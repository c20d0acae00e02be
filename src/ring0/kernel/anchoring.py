"""Keeps the journal anchored: a signed checkpoint every second or 256 events, and its places told.

The signer (observability/proof/signer.py) signs, this asks it, writes `journal.checkpoint`, and
pushes. Not here: what a checkpoint is, and how one is checked. A signer that is gone is started
again and runs go on; a journal that the signer does not know again ends the kernel.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ring0 import limits
from ring0.errors import Ring0Error, StoreDamaged
from ring0.kernel.agent.config_checkpoints import Anchorage
from ring0.kernel.agent.manifests import Config
from ring0.kernel.pushing import Pushing, append
from ring0.observability.proof import anchors
from ring0.observability.proof.checkpoints import notes_in
from ring0.observability.proof.link import Link, SignerGone
from ring0.observability.proof.signer import Answer, Ask
from ring0.runtime import Runtime
from ring0.store import Write
from ring0.store import events as ev
from ring0.store.base import WriteImpossible
from ring0.store.rows import Head
from ring0.store.sqlite import SqliteStore
from ring0.tools.egress import Egress
from ring0.types import Setting


def _nobody(what: str) -> None:
    """Nobody listens."""


class Anchoring:
    """The anchoring of one journal. `begin` it, `close` it."""

    def __init__(
        self,
        home: Path,
        store: SqliteStore,
        runtime: Runtime,
        places: Sequence[Anchorage],
        secret: Callable[[str], str],
        egress: Callable[[], Egress],
        operator: str,
    ) -> None:
        """`operator`: on whose behalf the first key is put on record."""
        self._home = home
        self._store = store
        self._runtime = runtime
        self._operator = operator
        self._link = Link(home, runtime)
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._gone = False
        self.signed = Head(size=0, root="")
        """The newest checkpoint."""
        self._newest = ""
        """As it lies there: with what witnesses have signed since."""
        self.uid = -1
        """Of the signer."""
        self.damage: StoreDamaged | None = None
        """The journal is not the one that was signed."""
        self._damaged_now = asyncio.Event()
        self.say: Callable[[str], None] = _nobody
        self.pushing = Pushing(
            places, store, runtime, secret, egress, self._cosigned, lambda what: self.say(what)
        )

    def begin(self) -> None:
        """Starts the signer, and looks from now on; once."""
        if self._task is not None:
            return
        self._link.begin()
        self._task = self._runtime.start(self._look(), name="checkpoints")

    async def first(self) -> None:
        """Whose key it is comes on record before the kernel's end does."""
        if self._task is not None and not self.signed.size and self.damage is None:
            await self._try()

    async def close(self) -> None:
        """A last checkpoint, then the signer's end."""
        if self._task is None:
            return
        async with self._lock:  # Never between a question to the signer and its answer.
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        try:
            if self.damage is None:
                await self.anchor()
            await self.pushing.close()
        except (Ring0Error, OSError) as error:
            why = f"{error.what} {error.why}" if isinstance(error, Ring0Error) else f"{error}"
            self.say(f"no last checkpoint was signed: {why}")
        finally:
            await self._link.close()

    async def _look(self) -> None:
        signed_us, wait_s = self._runtime.monotonic_us(), limits.CHECKPOINT_LOOK_S
        await self._try()
        while self.damage is None:
            await self._runtime.sleep(wait_s)
            fresh = (await self._store.head()).size - self.signed.size
            old = self._runtime.monotonic_us() - signed_us >= limits.CHECKPOINT_S * 1_000_000
            if fresh >= limits.CHECKPOINT_EVENTS or (fresh and old):
                good = await self._try()
                signed_us = self._runtime.monotonic_us()
                wait_s = limits.CHECKPOINT_LOOK_S if good else limits.SIGNER_ANSWER_S_MAX

    async def _try(self) -> bool:
        """One checkpoint; what keeps it from being is said once."""
        try:
            await self.anchor()
        except StoreDamaged as damage:
            self.say(f"{damage.what} {damage.why}")
            return False
        except (Ring0Error, OSError) as error:
            if not self._gone:
                self.say(f"checkpoints are not signed just now: {error}")
            self._gone = True
            return False
        if self._gone:
            self.say("checkpoints are signed again")
        self._gone = False
        return True

    # --- one checkpoint -------------------------------------------------------------------------

    async def anchor(self) -> str:
        """Signs the journal as it is on disk now; the note. Raises SignerGone, StoreDamaged."""
        async with self._lock:
            note, told = await self._signed()
            settled = told.key_before and await self._is_on_record(told)
            if told.key and not await self._is_on_record(told):
                await self._put_on_record(told)
                note, told = await self._signed()
                settled = bool(told.key_before)
            if settled:  # Both keys have signed that the one follows the other.
                handovers = os.fspath(self._home / anchors.HANDOVERS)
                await self._runtime.in_thread(append, handovers, note, told.size)
                await self._link.ask(Ask(say="settle"))
            return note

    async def rotate(self, by: str) -> str:
        """A new key; the old one vouches for it once, on record and in a checkpoint. Returns it.
        Raises SignerGone, StoreDamaged."""
        await self.anchor()  # The key that goes vouches for all until now, and is on record.
        async with self._lock:
            told = self._sure(await self._link.ask(Ask(say="rotate")))
            await self._put_on_record(told, by)
        await self.anchor()
        return told.key

    async def _signed(self) -> tuple[str, Answer]:
        head = await self._store.head()
        told = self._sure(await self._link.ask(Ask(say="state")))
        self.uid = told.uid
        if told.size > head.size:
            raise self._damaged(anchors.shorter(self._home, head.size, told.size))
        begin = told.size
        while head.size - begin > limits.SIGNER_LEAVES_MAX:
            end = begin + limits.SIGNER_LEAVES_MAX
            leaves = b"".join(self._store.leaves(begin, end))
            self._sure(await self._link.ask(Ask(say="leaves", leaves=leaves)))
            begin = end
        leaves = b"".join(self._store.leaves(begin, head.size))
        root = bytes.fromhex(head.root)
        answer = await self._link.ask(Ask(say="extend", leaves=leaves, size=head.size, root=root))
        if answer.changed:
            raise self._damaged(anchors.other(self._home, told.size))
        self._sure(answer)
        self.signed = head
        if not (answer.note and self._newest.startswith(answer.note)):
            self._newest = answer.note
        write_newest(self._home, self._newest)
        self.pushing.push(answer.note, head)
        return answer.note, answer

    def _sure(self, answer: Answer) -> Answer:
        if answer.refused:
            raise _refused(answer.refused)
        return answer

    async def until_damaged(self) -> None:
        """Raises StoreDamaged when the journal is not the one that was signed; else never ends."""
        await self._damaged_now.wait()
        assert self.damage is not None, "it was found"
        raise self.damage

    def _damaged(self, damage: StoreDamaged) -> StoreDamaged:
        self.damage = damage
        self._damaged_now.set()
        return damage

    async def _is_on_record(self, told: Answer) -> bool:
        row = (await self._store.settings()).get(anchors.SETTING)
        return row is not None and row.value == told.key

    async def _put_on_record(self, told: Answer, by: str = "") -> None:
        row = (await self._store.settings()).get(anchors.SETTING)
        old, new = row.value.partition("+")[0] if row else "", told.origin
        if old and old.split("/")[:2] != new.split("/")[:2]:  # Not after a restore, either.
            self.say(
                f"the signer of {old} is gone, and {new} begins anew: it does not know what was"
                " signed before. `ring0 audit verify` with an older checkpoint says what holds"
            )
        changed = ev.SettingChanged(
            name=anchors.SETTING,
            before=row.value if row else "",
            after=told.key,
            by=by or self._operator,
        )
        try:
            await self._store.append(Write(run=ev.KERNEL, durable=True, events=[changed]))
        except WriteImpossible:
            pass  # Somebody else has just done it.

    async def _cosigned(self, line: str, head: Head) -> None:
        """A witness has signed it too: the newest checkpoint says so, while it is the newest."""
        if head == self.signed:
            self._newest += line
            write_newest(self._home, self._newest)


async def check_at_boot(
    home: Path, store: SqliteStore, config: Config, settings: Mapping[str, Setting]
) -> None:
    """Before anything is written: the journal is no shorter than its anchors, here and where its
    checkpoints go. Raises StoreDamaged."""
    row = settings.get(anchors.SETTING)
    files = [os.fspath(home / table.file) for table in config.checkpoints if table.file]
    key = row.value if row else ""
    anchors.check_at_boot(home, await store.head(), key, last_notes(files))


def write_newest(home: Path, note: str) -> None:
    """In one step."""
    path = home / f"{anchors.NEWEST}.new"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(file, "w", encoding="utf-8") as opened:
        opened.write(note)
    os.replace(path, home / anchors.NEWEST)


def last_notes(files: Sequence[str]) -> list[str]:
    """The newest checkpoints of each file, where it can be read: the first may be cut off."""
    found: list[str] = []
    for path in files:
        try:
            with open(path, "rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - limits.NOTE_SIZE_BYTES_MAX))
                tail = file.read().decode("utf-8", "replace")
        except OSError:
            continue  # Not written yet, or not mounted.
        found += notes_in(tail)
    return found


def _refused(why: str) -> Ring0Error:
    return SignerGone("The signer signs nothing.", why=why, todo="Look at the folder `signer`.")
