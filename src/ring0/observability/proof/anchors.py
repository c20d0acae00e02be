"""Anchors: checkpoints that were signed and kept. Is a log still the one that they speak of?

`Anchors` is fed with the log, entry by entry, and compares its root at each size that an anchor
names. Keys change on record (the setting `signer`): a log that an anchor under a trusted key
vouches for says itself which key came next.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import StoreDamaged
from ring0.observability.proof.checkpoints import Checkpoint, notes_in, open_checkpoint, said_in
from ring0.observability.proof.link import FOLDER
from ring0.observability.proof.notes import Key, NoteWrong, read_key
from ring0.observability.proof.signer import STATE, State, fresh_seed, keep
from ring0.store import events as ev
from ring0.store import merkle
from ring0.store.events import KERNEL, decode_entry
from ring0.store.rows import Head

NEWEST: Final = "journal.checkpoint"
"""In the data folder: the newest checkpoint, replaced in one step; its mtime is its time."""
HANDOVERS: Final = "journal.handovers"
"""Beside it: each checkpoint that an old key and the next have both signed."""
SETTING: Final = "signer"
"""Under this name the journal says which key signs its checkpoints."""
_CHANGED: Final = b'"setting-changed"'


class Anchors:
    """Compares a log with the anchors that there are. `saw` each entry, then `end`."""

    def __init__(
        self, notes: Iterable[str], trusted: Sequence[Key], handovers: Iterable[str] = ()
    ) -> None:
        """`trusted`: none where only the log itself says whose key it is. `handovers`: they help to
        follow the keys where they hold, and where they don't they are of no weight: a restored
        journal's folder has some of the journal that it took the place of."""
        self._trusted = list(trusted)
        self._takes_first = not trusted
        self.problems: list[str] = []
        self._helping = frozenset(handovers)
        given = [*notes]
        self._waiting = self._read([*given, *(self._helping - {*given})])
        self._helping -= {*given}
        self._early: list[tuple[Checkpoint, str, int, bytes]] = []
        """Passed before the log named its first key."""
        self.size = 0
        """Of the newest anchor that holds: so many entries are vouched for."""
        self.root = ""
        self.held = 0
        """Anchors that hold."""
        self.witnesses: set[str] = set()
        """Who saw the newest one beside the log itself."""
        self.elsewhere = 0
        """Checkpoints of other logs."""
        self._changes: list[tuple[str, str]] = []
        """Of keys, on record since the last anchor that held: before, after."""
        self.keys: list[str] = []
        """Those that the log names, in order."""

    def _read(self, notes: Iterable[str]) -> list[tuple[Checkpoint, str]]:
        found: dict[tuple[int, str], tuple[Checkpoint, str]] = {}
        for note in notes:
            try:
                said = said_in(note)
            except NoteWrong as error:
                if note not in self._helping:
                    self.problems.append(f"an anchor can't be read: {error.why}")
                continue
            found[said.size, note] = said, note
        return [found[key] for key in sorted(found)]

    def saw(self, index: int, body: bytes, tree: merkle.Tree) -> None:
        """The entry at `index`, and the tree with it."""
        if _CHANGED in body:
            self.note_key(body)
        while self._waiting and self._waiting[0][0].size <= tree.size:
            said, note = self._waiting.pop(0)
            self._compare(said, note, tree.size, tree.root())

    def end(self, tree: merkle.Tree) -> None:
        """The log goes no further."""
        self._waiting += [(said, note) for said, note, *_ in self._early]
        self._takes_first = False
        while self._waiting:
            said, note = self._waiting.pop(0)
            self._compare(said, note, tree.size, tree.root())

    def note_key(self, body: bytes) -> None:
        """Where the entry says which key comes next."""
        if _CHANGED not in body:
            return
        try:
            entry = decode_entry(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        said = entry.body
        if entry.run != KERNEL or not isinstance(said, ev.SettingChanged) or said.name != SETTING:
            return
        self.keys.append(said.after)
        self._changes.append((said.before, said.after))
        if self._takes_first and not self._trusted:
            self._trust(said.after)
            early, self._early = self._early, []
            for passed in early:
                self._compare(*passed)
        elif said.before in map(str, self._trusted) and _goes_on(said.before, said.after):
            self._trust(said.after)

    def _compare(self, said: Checkpoint, note: str, size: int, root: bytes) -> None:
        if said.size == 0:
            return  # Every journal begins with nothing.
        if self._takes_first and not self._trusted:
            self._early.append((said, note, size, root))
            return
        origins = {key.name for key in self._trusted}
        if self._trusted and said.origin not in origins:
            self.elsewhere += note not in self._helping
            return
        try:
            _, signed = open_checkpoint(note, self._trusted)
        except NoteWrong as error:
            if note not in self._helping:
                self.problems.append(f"the anchor at {said.size} events: {error.why}")
            return
        if note in self._helping and (said.size, said.root) != (size, root):
            return
        if said.size > size:
            self.problems.append(
                f"the journal was cut short: {size} events; a checkpoint of {said.size} was signed"
            )
        elif said.size == size and said.root != root:
            self.problems.append(f"the first {said.size} events are not those that were signed")
        elif said.size < size:
            self.problems.append(f"the anchor at {said.size} events came too late to be compared")
        else:
            self.held += 1
            self.size, self.root = said.size, said.root.hex()
            self.witnesses = {key.name for key in signed.by if key.name != said.origin}
            self._take_changes()

    def _take_changes(self) -> None:
        """What an anchor vouches for may name the next key."""
        names = [str(key) for key in self._trusted]
        for before, after in self._changes:
            if before in names:
                self._trust(after)
                names.append(after)
        self._changes = []

    def _trust(self, key: str) -> None:
        try:
            self._trusted.append(read_key(key))
        except NoteWrong:
            self.problems.append("the journal names a key of its signer that is none")


def _goes_on(before: str, after: str) -> bool:
    """Whether it is the same key, under the name with which a restored journal goes on: only who
    could sign as the one can sign as the other."""
    try:
        one, other = read_key(before), read_key(after)
    except NoteWrong:
        return False
    same = (one.kind, one.public) == (other.kind, other.public)
    return same and _base(one.name)[0] == _base(other.name)[0]


def _base(name: str) -> tuple[str, int]:
    """A log's name without its generation, and that."""
    base, _, last = name.rpartition("/")
    counted = base.count("/") >= 1 and last.isdigit()
    return (base, int(last)) if counted else (name, 1)


def read_notes(path: Path) -> list[str]:
    """The checkpoints of a file. Raises NoteWrong."""
    try:
        with path.open("rb") as file:
            raw = file.read(limits.CHECKPOINT_FILE_SIZE_BYTES_MAX + 1)
        if len(raw) > limits.CHECKPOINT_FILE_SIZE_BYTES_MAX:
            raise ValueError(f"it is larger than {limits.CHECKPOINT_FILE_SIZE_BYTES_MAX} bytes")
        return list(notes_in(raw.decode("utf-8", "replace")))
    except (OSError, ValueError) as error:
        raise NoteWrong(
            f"The anchors {path} can't be read.",
            why=f"{error}"[:200],
            todo="Give a file of checkpoints.",
        ) from None


def newest_note(home: Path) -> str:
    """The newest checkpoint that this folder holds; empty: there is none."""
    try:
        return (home / NEWEST).read_text()[: limits.NOTE_SIZE_BYTES_MAX]
    except (OSError, UnicodeDecodeError):
        return ""


def handovers_of(home: Path) -> list[str]:
    """How the keys of this folder followed each other. Raises NoteWrong."""
    return read_notes(home / HANDOVERS) if (home / HANDOVERS).is_file() else []


def notes_here(home: Path) -> list[str]:
    """What this folder holds: how keys followed each other, and the newest checkpoint."""
    return [*handovers_of(home), *filter(None, [newest_note(home)])]


# --- at boot --------------------------------------------------------------------------------------


def check_at_boot(home: Path, head: Head, key: str, notes: Iterable[str]) -> None:
    """That the journal is no shorter than what was signed of it, and no other of the same size.

    `key`: that of the setting; `notes`: beside the newest one here. How it went on from there the
    signer finds at its first checkpoint. Raises StoreDamaged.
    """
    signed: list[tuple[int, str]] = []
    state = read_state(home)
    if state is not None:
        signed.append((state.size, state.tree().root().hex()))
    trusted = [read_key(key)] if key else []
    origin = state.origin if state is not None else trusted[0].name if trusted else ""
    for note in [newest_note(home), *notes]:
        try:
            said = said_in(note)
            if said.origin != origin or said.size < head.size:
                continue  # Of the journal that a restored one took the place of, or of another.
            if said.size == head.size:
                open_checkpoint(note, trusted)
        except NoteWrong:
            continue  # It says nothing of this journal, or nothing that anybody signed.
        # A longer one counts whoever signed it: an older journal does not name the newer keys.
        signed.append((said.size, said.root.hex()))
    for size, root in signed:
        if size > head.size:
            raise shorter(home, head.size, size)
        if size == head.size and size and root != head.root:
            raise other(home, size)


def read_state(home: Path) -> State | None:
    """What the signer knows, where this process may read it."""
    try:
        raw = (home / FOLDER / STATE).read_bytes()[: limits.SIGNER_STATE_SIZE_BYTES_MAX]
        state = msgspec.json.decode(raw, type=State)
        state.tree()
    except (OSError, ValueError, msgspec.MsgspecError):
        return None  # The signer itself says what is wrong with it.
    return state


def begin_generation(home: Path, key: str = "") -> str:
    """An older journal was put back: from here on it is another log, with a name of its own, and
    what was signed of the one before says nothing of it. `key`: which signed it, where the signer
    is not here (another machine). Only while no kernel is at work. Returns the new name; empty:
    nothing was ever signed. Raises OSError."""
    state = read_state(home)
    if state is None and key:
        (home / FOLDER).mkdir(mode=0o700, exist_ok=True)
        state = State(origin=read_key(key).name, seed=fresh_seed())
    if state is None:
        return ""
    base, generation = _base(state.origin)
    name = f"{base}/{generation + 1}"
    folder = os.open(home / FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # A signer of a kernel that was killed may be ending.
        keep(folder, State(origin=name, seed=state.seed))
    finally:
        os.close(folder)
    (home / NEWEST).unlink(missing_ok=True)
    return name


def shorter(home: Path, size: int, signed: int) -> StoreDamaged:
    return StoreDamaged(
        f"The journal in {home} is shorter than its anchor: it holds {size} events, and a"
        f" checkpoint of {signed} was signed.",
        why="An older copy of it was put back, or it was cut short. It opens to be read, and"
        " nothing is written to it.",
        todo="Put the newer journal back; where an older one is what you want, `ring0 restore` says"
        " so on record.",
    )


def other(home: Path, size: int) -> StoreDamaged:
    return StoreDamaged(
        f"The journal in {home} is not the one of which {size} events were signed.",
        why="Entries were changed after they were signed, or another journal was put here. It opens"
        " to be read, and nothing is written to it.",
        todo="`ring0 audit verify` says what holds; put back a copy that does.",
    )
