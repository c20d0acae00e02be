"""`audit verify`: is the journal what it was, and do the tables say what the journal says?

Checked from the stored bytes, in one pass over one moment of the journal: every leaf hash, the
order without gaps, the Merkle root against the tree and the head file, every blob that an event
names against its keyed address, every row of every projection (and what lies beside it) against a
rebuild, the index of memory against its texts, the schema against ours; the root at each size of
which a checkpoint was signed (proof/anchors.py). The limit: what was written after the last one
that is kept elsewhere can be rewritten by whoever owns the machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import apsw
import msgspec

from ring0.observability.proof.anchors import Anchors
from ring0.observability.remembered import Memory
from ring0.store import address, merkle
from ring0.store import events as ev
from ring0.store.events import KERNEL, Entry, decode_entry
from ring0.store.lists import ADDRESS_BYTES, list_address
from ring0.store.project import project
from ring0.store.sqlite import SqliteStore
from ring0.store.sqlite.snapshot import Snapshot
from ring0.store.sqlite.sql import ARCHIVED, COLUMNS, LIST, VALUE
from ring0.store.sqlite.tables import columns, decode
from ring0.types import Call, Frozen

PROBLEMS_OF_A_KIND_MAX: Final = 8


class Report(Frozen, frozen=True, kw_only=True):
    """What `verify` found."""

    ok: bool
    events: int
    blobs: int
    unnamed: int = 0
    """Blobs that no event names: nothing reads them, so nothing is said of them."""
    archived: int = 0
    """Values that lie in archives beside the journal: not looked at here."""
    rows: int
    root: str
    """Of the Merkle tree over all entries."""
    anchored: int
    """How many events the head file vouches for."""
    signed: int = 0
    """How many events the newest checkpoint that holds vouches for."""
    problems: tuple[str, ...] = ()
    """The first ones of each kind, in order."""


async def verify(store: SqliteStore, anchors: Anchors | None = None) -> Report:
    """Checks the whole store. Reads only; never raises for what it finds."""
    try:
        with store.snapshot() as moment:
            return _Verification(moment, anchors or Anchors((), ())).report()
    except (apsw.Error, UnicodeDecodeError) as error:
        return Report(
            ok=False,
            events=0,
            blobs=0,
            rows=0,
            root="",
            anchored=0,
            problems=(f"the journal can't be read: {error}",),
        )


class _Rebuilt:
    """`store.project.Tables` in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {table: {} for table in COLUMNS}

    def get(self, table: str, key: str) -> Any:
        return self.rows[table].get(key)

    def put(self, table: str, key: str, row: Any) -> None:
        if row is None:
            self.rows[table].pop(key, None)
        else:
            self.rows[table][key] = row


class _Verification:
    """One pass over one moment: what was learnt so far, and what was found wrong."""

    def __init__(self, moment: Snapshot, anchors: Anchors) -> None:
        self._moment = moment
        self._anchors = anchors
        self._problems: list[str] = []
        self._tree = merkle.Tree()
        self._anchored_root = ""
        self._rebuilt = _Rebuilt()
        self._seqs: dict[str, int] = {}
        self._named: dict[str, str] = {}
        """By blob: the run under whose key it must lie; that of the event that names it first."""
        self._memory = Memory(moment, self._rebuilt.rows["record"])
        self._blobs = self._unnamed = self._archived = 0

    def report(self) -> Report:
        for check in (
            self._check_events,
            self._check_tree,
            self._check_head,
            self._check_anchors,
            self._check_blobs,
            self._check_rows,
            self._moment.schema_changes,
            self._moment.file_damage,
            self._memory.index_damage,
        ):
            self._run(check)
        anchored = self._moment.anchored
        return Report(
            ok=not self._problems,
            events=self._tree.size,
            blobs=self._blobs,
            unnamed=self._unnamed,
            archived=self._archived,
            rows=sum(len(table) for table in self._rebuilt.rows.values()),
            root=self._tree.root().hex(),
            anchored=anchored.size if anchored else 0,
            signed=self._anchors.size,
            problems=tuple(self._problems),
        )

    def _run(self, check: Callable[[], Iterator[str]]) -> None:
        count = 0
        try:
            for problem in check():
                count += 1
                if count <= PROBLEMS_OF_A_KIND_MAX:
                    self._problems.append(problem)
        except Exception as error:  # Whatever the bytes of somebody else do to our own code.
            self._problems.append(f"the journal can't be read to its end: {str(error)[:200]}")
        if count > PROBLEMS_OF_A_KIND_MAX:
            self._problems.append(f"and {count - PROBLEMS_OF_A_KIND_MAX} more of this kind")

    # --- the log ------------------------------------------------------------------------------

    def _check_events(self) -> Iterator[str]:
        anchored = self._moment.anchored
        for index, run, seq, leaf, body in self._moment.events():
            if index != self._tree.size:
                yield f"event {self._tree.size}: missing (the next is {index})"
                return
            if merkle.leaf_hash(body) != leaf:
                yield f"event {index} ({run} #{seq}): its bytes are not those that were hashed"
            before = self._seqs.get(run, 0)
            if seq != before + 1:
                yield f"event {index}: {run} #{seq} follows #{before}"
            self._seqs[run] = seq
            self._tree.append(leaf)
            self._anchors.saw(index, body, self._tree)
            if anchored is not None and self._tree.size == anchored.size:
                self._anchored_root = self._tree.root().hex()
            yield from self._replay(index, run, seq, body)

    def _replay(self, index: int, run: str, seq: int, body: bytes) -> Iterator[str]:
        """Rebuilds what the event says; keeps which values it names."""
        try:
            entry = decode_entry(body)
            if (entry.run, entry.seq) != (run, seq):
                yield f"event {index}: it calls itself {entry.run} #{entry.seq}, not {run} #{seq}"
                return
            said = entry.body
            owner = (said.key_of or KERNEL) if isinstance(said, ev.MessageSent) else run
            for where in named(entry):
                self._named.setdefault(where, owner)
            self._memory.saw(entry)
            project(entry, self._rebuilt)
        except Exception as error:  # Whatever the bytes of somebody else do to our own code.
            yield f"event {index} ({run} #{seq}): it can't have happened: {str(error)[:200]}"

    def _check_tree(self) -> Iterator[str]:
        mine = self._tree
        try:
            stored, kernel_seq = self._moment.tree()
        except ValueError as error:
            yield f"the tree: {error}"
            return
        if (stored.size, stored.root()) != (mine.size, mine.root()):
            yield (
                f"the tree says {stored.size} events, root {stored.root().hex()[:16]}…; the journal"
                f" has {mine.size}, root {mine.root().hex()[:16]}…"
            )
        if kernel_seq != self._seqs.get(KERNEL, 0):
            yield f"the tree says that the kernel is at #{kernel_seq}, the journal does not"

    def _check_head(self) -> Iterator[str]:
        anchored, size = self._moment.anchored, self._tree.size
        if anchored is None:
            if size:
                yield (
                    "there is no head file that can be read: nobody can tell whether the journal"
                    " was cut short"
                )
        elif anchored.size > size:
            yield f"the journal was cut short: {size} events, the head file says {anchored.size}"
        elif anchored.size and anchored.root != self._anchored_root:
            yield f"the first {anchored.size} events are not those of the head file"
        elif not anchored.size and anchored.root != merkle.EMPTY_ROOT.hex():
            yield "the head file says nothing of any journal"

    def _check_anchors(self) -> Iterator[str]:
        self._anchors.end(self._tree)
        yield from self._anchors.problems

    # --- values -------------------------------------------------------------------------------

    def _check_blobs(self) -> Iterator[str]:
        """Each value that an event names is there, and lies under the address that its run's key
        makes of it. Which key that is comes from the entries: trying all would be quadratic."""
        keys = self._moment.keys()
        for run in self._rebuilt.rows["run"].keys() - keys.keys() - self._erased():
            yield f"the key of run {run} is gone: nothing of its values can be checked"
        acts = self._memory.acts()
        for act in acts - keys.keys():
            yield f"the key of {act} is gone: nothing that it brought to memory can be checked"
        for run in keys.keys() - self._rebuilt.rows["run"].keys() - acts:
            yield f"a key stands for {run!r}, a run that no event queued, or nothing is left of"
        keys[KERNEL] = b""
        erased = self._erased()
        for run in erased & keys.keys():
            yield f"the values of {run} were erased, and the key of their addresses is there"
        missing = self._with_parts()
        self._memory.begin()
        archived: Counter[str] = Counter()
        for where, form, value in self._moment.blobs():
            self._blobs += 1
            taken, problem = self._memory.took(where, form, value, keys)
            if problem:
                yield problem
            if taken:
                continue
            owner = missing.pop(where, "")
            if owner in erased:
                yield f"the value {where[:16]}… of {owner} was erased, and is there"
                continue
            if form == ARCHIVED:  # Who names a part of it is in the archive.
                archived[run := value.decode("utf-8", "replace")] += 1
                if owner not in ("", run):
                    yield f"the value {where[:16]}… of {owner} is said to be in {run[:40]!r}"
            elif not owner:
                self._unnamed += 1
            elif _address(keys.get(owner, b""), form, value) != where:
                yield f"the value {where[:16]}… is not what was stored under that address ({owner})"
        for where, run in missing.items():
            if run in erased:
                continue
            yield f"{run} names the value {where[:16]}…, which is gone"
        yield from self._memory.missing()
        said = {run: row.values for run, row in self._rebuilt.rows["archive"].items()}
        for run in archived.keys() | said.keys():
            if archived[run] != said.get(run, 0):
                yield f"{archived[run]} values of {run} are archived, and {said.get(run, 0)} were"
        self._archived = archived.total()

    def _erased(self) -> set[str]:
        """Runs whose values are gone for good, as it is on record."""
        return {key for key, row in self._rebuilt.rows["run"].items() if row.erased}

    def _with_parts(self) -> dict[str, str]:
        """Every value that must be there, the parts of those that lie in parts too: they are their
        run's as the whole is."""
        found, lists = dict(self._named), self._moment.lists()
        stack = [where for where in found if where in lists]
        while stack:
            form = lists.pop(where := stack.pop(), None)
            if form is None:  # More than one list may hold it.
                continue
            for at in range(0, len(form), ADDRESS_BYTES):
                part = form[at : at + ADDRESS_BYTES].hex()
                found.setdefault(part, found[where])
                if part in lists:
                    stack.append(part)
        return found

    # --- projections --------------------------------------------------------------------------

    def _check_rows(self) -> Iterator[str]:
        for table, wanted in self._rebuilt.rows.items():
            seen = 0
            for key, stored, *beside in self._moment.rows(table):
                row = wanted.get(key)
                if row is None:
                    yield f"table {table}: the row {key!r} comes from no event"
                    continue
                seen += 1
                if not _says(table, stored, row):
                    yield f"table {table}: the row {key!r} does not say what the journal says"
                elif tuple(beside) != self._beside(table, row):
                    names = ", ".join(COLUMNS[table])
                    yield f"table {table}: what lies beside the row {key!r} is not so ({names})"
            if seen != len(wanted):
                there = {key for key, *_ in self._moment.rows(table)}
                for key in wanted.keys() - there:
                    yield f"table {table}: the row {key!r} is missing"

    def _beside(self, table: str, row: Any) -> tuple[Any, ...]:
        return self._memory.beside(row) if table == "record" else columns(table, row)


def _address(key: bytes, form: int, value: bytes) -> str:
    if form not in (VALUE, LIST):
        return ""
    return list_address(key, value) if form == LIST else address(key, value)


def _says(table: str, stored: bytes, row: Any) -> bool:
    try:
        return bool(decode(table, stored) == row)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def named(entry: Entry) -> Iterator[str]:
    """The addresses of the blobs that an entry names; without what it brings to memory."""
    match entry.body:
        case ev.PolicyLoaded(text=text) | ev.SettingChanged(text=text):
            yield from filter(None, (text,))
        case ev.RunQueued(run=run, manifest=manifest, files=files):
            yield from filter(None, (run.task, manifest))
            yield from (file.blob for file in files if file.blob)
        case ev.RunEnded(result=result, output=output):
            yield from filter(None, (result, output))
        case (
            ev.CallRefused(call=Call() as call)
            | ev.CallIntended(call=Call() as call)
            | ev.CallCopied(call=Call() as call)
        ):
            yield from filter(None, (call.args, call.asked, call.outcome, call.decision))
        case ev.CallEnded(outcome=outcome, undo=undo, files=files):
            yield from filter(None, (outcome, undo))
            yield from (file.blob for file in files if file.blob)
        case ev.CallStreamed(stream=stream):
            yield stream
        case ev.CallSettled(outcome=outcome):
            yield outcome
        case ev.ApprovalAsked(approval=approval):
            yield from filter(None, (approval.shown, approval.edits, approval.decision))
        case ev.ApprovalEdited(edits=edits):
            yield edits
        case ev.StandingGiven(standing=standing):
            yield standing.pattern
        case ev.MessageSent(body=body):
            yield body
        case ev.WorkingSetChanged(working=working) | ev.WindowCompacted(working=working):
            yield from filter(None, (working,))
        case ev.CronSet(cron=order) | ev.HookSet(hook=order):
            yield from (order.family, order.task)
        case _:
            pass


__all__ = ["Report", "named", "verify"]
