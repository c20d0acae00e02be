"""Takes signed checkpoints to the places of `[[checkpoints]]`: files, addresses, witnesses.

A place that is behind gets the newest one only: it vouches for all before it. One that fails is
tried again, later and later; runs never wait for it.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence

from ring0 import limits
from ring0.errors import Ring0Error, StoreFailed
from ring0.identity import signing
from ring0.kernel.agent.config_checkpoints import Anchorage
from ring0.observability.proof import notes, proofs
from ring0.observability.proof.checkpoints import CUT_OFF, encoded, is_number
from ring0.observability.proof.notes import NoteWrong
from ring0.observability.proof.tiles import Tiles
from ring0.runtime import Runtime
from ring0.store.rows import Head
from ring0.store.sqlite import SqliteStore
from ring0.tools.egress import Egress, EgressAnswer
from ring0.tools.egress.request import canonical

Cosigned = Callable[[str, Head], Awaitable[None]]


class Pushing:
    """All places of one journal. `push` never waits; `close` tries once more."""

    def __init__(
        self,
        places: Sequence[Anchorage],
        store: SqliteStore,
        runtime: Runtime,
        secret: Callable[[str], str],
        egress: Callable[[], Egress],
        cosigned: Cosigned,
        say: Callable[[str], None],
    ) -> None:
        self._runtime = runtime
        self._secret = secret
        self._egress = egress
        self._cosigned = cosigned
        self._say = say
        self._tiles = Tiles(store.leaves)
        self._places = places
        self._newest: tuple[str, Head] = ("", Head(size=0, root=""))
        self._seen: dict[str, int] = {}
        """By place: the size that it has."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.failing: dict[str, str] = {}
        """By place: why it has not got the newest."""

    def push(self, note: str, head: Head) -> None:
        """This is the newest."""
        self._newest = note, head
        for place in self._places:
            if place.name not in self._tasks:
                task = self._runtime.start(self._keep(place), name=f"checkpoints to {place.name}")
                self._tasks[place.name] = task
                task.add_done_callback(lambda _, name=place.name: self._tasks.pop(name, None))  # type: ignore[misc]

    async def close(self) -> None:
        """Whoever is behind is tried once more, for a moment."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        behind = [place for place in self._places if not self._has_newest(place)]
        tries = [self._runtime.start(self._give(place), name=place.name) for place in behind]
        try:
            async with asyncio.timeout(limits.SIGNER_ANSWER_S_MAX):
                await asyncio.gather(*tries)
        except TimeoutError:
            pass
        for place in behind:
            if not self._has_newest(place):
                self._say(f"{place.name} has not got the last checkpoint")

    def _has_newest(self, place: Anchorage) -> bool:
        return self._seen.get(place.name, 0) >= self._newest[1].size

    async def _keep(self, place: Anchorage) -> None:
        """Until it has the newest."""
        tries = 0
        while not self._has_newest(place):
            if await self._give(place):
                tries = 0
                continue
            back_s = min(1 << min(tries, 16), limits.CHECKPOINT_BACK_S_MAX)
            await self._runtime.sleep(back_s)
            tries += 1

    async def _give(self, place: Anchorage) -> bool:
        note, head = self._newest
        if not note:
            return True
        try:
            if place.file:
                await self._runtime.in_thread(append, place.file, note, head.size)
            elif place.witness is not None:
                await self._ask_witness(place, note, head)
            else:
                await self._post(place, note)
        except (Ring0Error, OSError) as error:
            why = f"{error.what} {error.why}" if isinstance(error, Ring0Error) else f"{error}"
            if place.name not in self.failing:
                self._say(f"{place.name} has not taken a checkpoint, and is tried again: {why}")
            self.failing[place.name] = why[:300]
            return False
        self.failing.pop(place.name, None)
        self._seen[place.name] = head.size
        return True

    # --- an address -----------------------------------------------------------------------------

    async def _post(self, place: Anchorage, note: str) -> None:
        key = signing.key_of(self._secret(place.secret))
        if not key:
            raise _failed(place, f"the secret {place.secret} is gone")
        time, body = str(self._runtime.now_us() // 1_000_000), note.encode()
        ident = f"checkpoint_{hashlib.sha256(body).hexdigest()[:24]}"
        signed = signing.signature(key, ident.encode(), time.encode(), body).decode()
        named = [("webhook-id", ident), ("webhook-timestamp", time), ("webhook-signature", signed)]
        answer = await self._send(place, body, named)
        if not 200 <= answer.status < 300:
            raise _failed(place, f"it answers {answer.status}")

    async def _send(
        self, place: Anchorage, body: bytes, headers: Sequence[tuple[str, str]] = ()
    ) -> EgressAnswer:
        rule = place.rule
        assert rule is not None, "it is posted to"
        request = canonical(
            "POST",
            rule.scheme,
            rule.host,
            rule.port,
            place.target,
            [("content-type", "text/plain; charset=utf-8"), *headers],
            body,
            own_auth=True,
        )
        return await self._egress().send(request, rule, repeatable=True)

    # --- a witness (https://c2sp.org/tlog-witness) ----------------------------------------------

    async def _ask_witness(self, place: Anchorage, note: str, head: Head) -> None:
        """Its signature on the newest one. It says itself where it stands, if we don't know."""
        assert place.witness is not None, "it is a witness"
        old = self._seen.get(place.name, 0)
        answer = await self._add_checkpoint(place, note, head, old)
        if answer.status == 409:
            said = answer.body.decode("ascii", "replace").strip()
            if not is_number(said) or int(said) > head.size:
                raise _failed(place, f"it has seen {said[:20]!r} events of this journal")
            answer = await self._add_checkpoint(place, note, head, int(said))
        if answer.status != 200:
            raise _failed(place, f"it answers {answer.status}")
        lines = notes.signature_lines(answer.body.decode("utf-8", "replace"))
        for line in lines[: limits.WITNESS_SIGNATURES_MAX]:
            try:
                notes.open_note(f"{notes.text_of(note)}\n{line}\n", [place.witness])
            except NoteWrong:
                continue
            await self._cosigned(f"{line}\n", head)
            return
        raise _failed(place, "it has not signed with its key")

    async def _add_checkpoint(
        self, place: Anchorage, note: str, head: Head, old: int
    ) -> EgressAnswer:
        try:
            steps = (
                []
                if old in (0, head.size)
                else proofs.consistency(self._tiles.nodes, old, head.size)
            )
        except LookupError as error:
            raise _failed(place, str(error)) from None
        lines = [f"old {old}", *map(encoded, steps)]
        body = "".join(f"{line}\n" for line in lines) + "\n" + note
        return await self._send(place, body.encode())


def append(path: str, note: str, size: int) -> None:
    """At the end of the file, on disk when this returns. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    file = os.open(path, flags, 0o600)
    try:
        if _is_cut_off(path):
            _write(file, f"\n{CUT_OFF}")
        if os.fstat(file).st_size + len(note.encode()) > limits.CHECKPOINT_FILE_SIZE_BYTES_MAX:
            os.rename(path, f"{path}.{size}")
            os.close(file)
            file = os.open(path, flags, 0o600)
        _write(file, note)
        os.fsync(file)
    finally:
        os.close(file)


def _is_cut_off(path: str) -> bool:
    """A crash or a full disk left a part of a checkpoint at its end."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limits.NOTE_SIZE_BYTES_MAX))
            tail = file.read()
    except OSError:
        return False  # One that may be added to, and not be read.
    last = tail.rpartition(b"\n")[0].rpartition(b"\n")[2]
    return bool(tail) and not (tail.endswith(b"\n") and last.startswith("— ".encode()))


def _write(file: int, text: str) -> None:
    raw = text.encode()
    if os.write(file, raw) < len(raw):
        raise OSError(errno.ENOSPC, "it was cut off: the disk is full")


def _failed(place: Anchorage, why: str) -> StoreFailed:
    return StoreFailed(
        f"{place.name} did not take a checkpoint.", why=why, todo="It is tried again."
    )
