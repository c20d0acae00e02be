"""A cassette: a run and all beneath it in one file, to be replayed anywhere and nothing else.

`ring0 cassette 1\\n`, then frames: a letter, a length of eight bytes, the content. `H` says what it
is of; each `E` is the exact bytes of an entry with its place in the log and its inclusion proof;
each `B` a value under its address; each `C` a file of the code; `Z`, the last, is the SHA-256 of
all before. Nothing is compressed, so nothing is larger than the file. It is read as what it is: a
file from a stranger.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import CassetteInvalid
from ring0.observability.proof.proofs import ProofWrong, check_inclusion
from ring0.store import address
from ring0.store import events as ev
from ring0.store.events import Entry, decode_entry
from ring0.store.merkle import leaf_hash
from ring0.types import Frozen, ToolManifest

MAGIC: Final = b"ring0 cassette 1\n"
_FRAME: Final = struct.Struct(">cQ")
_PLACE: Final = struct.Struct(">QB")
_ADDRESS_CHARS: Final = 64
_HASH_BYTES: Final = 32
_DIGITS: Final = frozenset("0123456789abcdef")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


class RecordedTool(Frozen, frozen=True, kw_only=True):
    """A tool that a run had."""

    manifest: ToolManifest
    bare: str = ""
    """What its MCP server calls it, where the agent meets it under that name."""


class RecordedRun(Frozen, frozen=True, kw_only=True):
    """What of a run stands in no event."""

    run: str
    key: str
    """Its digest key, in hex."""
    tools: tuple[RecordedTool, ...] = ()
    models: tuple[str, ...] = ()
    """Names of the operator's models that it might ask for."""


class Head(Frozen, frozen=True, kw_only=True):
    """What a cassette is of."""

    run: str
    """The run that was exported; the others are beneath it."""
    runs: tuple[RecordedRun, ...]
    version: str
    """Of the ring0 that wrote it."""
    written_us: int
    size: int
    """Of the log that its entries are of."""
    root: str
    """Of that log's Merkle tree, in hex."""


class Placed(Frozen, frozen=True, kw_only=True):
    """An entry, its exact bytes and its place in the log."""

    index: int
    proof: tuple[bytes, ...]
    body: bytes


class Cassette:
    """What a cassette holds, checked."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.entries: dict[str, list[Entry]] = {one.run: [] for one in head.runs}
        self.blobs: dict[str, bytes] = {}
        self.code: dict[str, dict[str, bytes]] = {}
        """By the digest of a snapshot, its files: path to content."""

        self._runs = {one.run: one for one in head.runs}
        self._keys: dict[str, set[bytes]] = {}

    def of(self, run: str) -> RecordedRun:
        return self._runs[run]

    def naming(self, entry: Entry) -> None:
        """What the entry names lies under its run's key."""
        for where in filter(None, read_by_replays(entry)):
            self._keys.setdefault(where, set()).add(bytes.fromhex(self.of(entry.run).key))

    def keys(self, where: str) -> Iterator[bytes]:
        """Those that what lies there may be under: a file of many runs is not tried with each."""
        found = self._keys.get(where, set())
        yield from itertools.islice(found, limits.CASSETTE_KEYS_TRIED_MAX)
        if found:
            yield b""


def read_by_replays(entry: Entry) -> Iterator[str]:
    """Addresses that an entry names, of what a replay reads."""
    match entry.body:
        case ev.RunQueued(run=run, manifest=manifest):
            yield from (run.task, manifest)
        case ev.RunEnded(result=result):
            yield result
        case ev.CallRefused(call=call) | ev.CallIntended(call=call) | ev.CallCopied(call=call):
            yield from (call.args, call.asked, call.outcome, call.stream)
        case ev.CallEnded(outcome=outcome) | ev.CallSettled(outcome=outcome):
            yield outcome
        case ev.CallStreamed(stream=stream):
            yield stream


# --- written -------------------------------------------------------------------------------------


def written(
    head: Head,
    entries: Iterable[Placed],
    blobs: Iterable[tuple[str, bytes]],
    code: Iterable[tuple[str, str, bytes]],
) -> Iterator[bytes]:
    """The file, in pieces. `code`: (snapshot's digest, path, content). Raises CassetteInvalid for
    one that nobody would read."""
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(head, entries, blobs, code):
        size += len(piece)
        if size > limits.CASSETTE_SIZE_BYTES_MAX:
            raise CassetteInvalid(
                "The run is too large for a cassette.",
                why=f"A cassette has at most {limits.CASSETTE_SIZE_BYTES_MAX:,} bytes.",
                todo="Export a run beneath it by itself.",
            )
        digest.update(piece)
        yield piece
    yield _frame(b"Z", digest.digest())


def _pieces(
    head: Head,
    entries: Iterable[Placed],
    blobs: Iterable[tuple[str, bytes]],
    code: Iterable[tuple[str, str, bytes]],
) -> Iterator[bytes]:
    yield MAGIC
    yield _frame(b"H", msgspec.json.encode(head))
    for entry in entries:
        place = _PLACE.pack(entry.index, len(entry.proof))
        yield _frame(b"E", place + b"".join(entry.proof) + entry.body)
    for where, value in blobs:
        yield _frame(b"B", where.encode() + value)
    for snapshot, path, content in code:
        name = path.encode()
        yield _frame(b"C", snapshot.encode() + struct.pack(">H", len(name)) + name + content)


def _frame(kind: bytes, content: bytes) -> bytes:
    return _FRAME.pack(kind, len(content)) + content


# --- read ----------------------------------------------------------------------------------------


def read(data: bytes) -> Cassette:
    """Raises CassetteInvalid for whatever is not as it was written."""
    if len(data) > limits.CASSETTE_SIZE_BYTES_MAX + limits.CASSETTE_SEAL_SIZE_BYTES_MAX:
        raise _invalid(f"it has more than {limits.CASSETTE_SIZE_BYTES_MAX:,} bytes")
    if not data.startswith(MAGIC):
        raise CassetteInvalid(
            "This is no cassette of ring0.",
            why="It does not begin as one does, or is of another version.",
            todo="Write one: `ring0 export run RUN -o FILE`.",
        )
    frames = _frames(memoryview(data))
    kind, content = next(frames, (b"", memoryview(b"")))
    if kind != b"H":
        raise _invalid("it does not begin with what it is of")
    made = Cassette(_head(bytes(content)))
    for kind, content in frames:
        if kind == b"E":
            _take_entry(made, content)
        elif kind == b"B":
            _take_value(made, content)
        elif kind == b"C":
            _take_code(made, content)
        else:
            raise _invalid(f"a frame of the kind {kind!r} is in it")
    for run, entries in made.entries.items():
        if not entries:
            raise _invalid(f"it holds no event of {run}")
    return made


def _frames(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """All but the last, once that one is seen to be there and to fit."""
    at = len(MAGIC)
    last = len(data) - _FRAME.size - _HASH_BYTES
    if last < at or _FRAME.unpack_from(data, last) != (b"Z", _HASH_BYTES):
        raise _invalid("it was cut short")
    if hashlib.sha256(data[:last]).digest() != bytes(data[last + _FRAME.size :]):
        raise _invalid("its bytes are not those that were written")
    for _ in range(limits.CASSETTE_FRAMES_MAX):
        if at == last:
            return
        if at + _FRAME.size > last:
            raise _invalid("a frame goes beyond its end")
        kind, size = _FRAME.unpack_from(data, at)
        at += _FRAME.size
        if size > last - at:
            raise _invalid("a frame goes beyond its end")
        yield kind, data[at : at + size]
        at += size
    raise _invalid(f"it has more than {limits.CASSETTE_FRAMES_MAX:,} frames")


def _head(content: bytes) -> Head:
    if len(content) > limits.CASSETTE_HEAD_SIZE_BYTES_MAX:
        raise _invalid("its head is too large")
    try:
        head = msgspec.json.decode(content, type=Head)
        for one in head.runs:
            if len(bytes.fromhex(one.key)) != _HASH_BYTES:
                raise _invalid(f"the key of {one.run[:40]} is no key")
        if len(bytes.fromhex(head.root)) != _HASH_BYTES:
            raise _invalid("its root is no hash")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _invalid(f"its head can't be read: {str(error)[:200]}") from None
    names = [one.run for one in head.runs]
    if not 0 < len(names) <= limits.CASSETTE_RUNS_MAX or len(set(names)) != len(names):
        raise _invalid("it names no run, one twice, or too many")
    if not all(_NAME.fullmatch(name) for name in names):  # They are printed.
        raise _invalid("it names a run as none is named")
    if head.run not in names:
        raise _invalid(f"it does not hold {head.run[:40]}, which it is of")
    return head


def _take_entry(made: Cassette, content: memoryview) -> None:
    """The exact bytes stand in the log where the frame says, or it is none of that log."""
    try:
        index, hashes = _PLACE.unpack_from(content, 0)
    except struct.error:
        raise _invalid("an event has no place") from None
    start = _PLACE.size + hashes * _HASH_BYTES
    if start >= len(content):
        raise _invalid("an event is cut short")
    proof = [bytes(content[at : at + _HASH_BYTES]) for at in range(_PLACE.size, start, _HASH_BYTES)]
    body = bytes(content[start:])
    try:
        root = bytes.fromhex(made.head.root)
        check_inclusion(index, made.head.size, leaf_hash(body), proof, root)
    except ProofWrong:
        raise _invalid(
            f"event {index} does not stand in the log that it is said to be of"
        ) from None
    try:
        entry = decode_entry(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _invalid(f"event {index} can't be read: {str(error)[:200]}") from None
    of_run = made.entries.get(entry.run)
    if of_run is None or entry.seq != len(of_run) + 1:
        raise _invalid(f"event {index} ({entry.run[:40]} #{entry.seq}) is out of its order")
    of_run.append(entry)
    made.naming(entry)


def _take_value(made: Cassette, content: memoryview) -> None:
    where, value = _text(content[:_ADDRESS_CHARS]), bytes(content[_ADDRESS_CHARS:])
    if where in made.blobs or not any(address(key, value) == where for key in made.keys(where)):
        raise _invalid(f"the value {where[:16]}… is not what was stored under that address")
    made.blobs[where] = value


def _take_code(made: Cassette, content: memoryview) -> None:
    """A path out of its folder, or one file in place of another, is none."""
    digest = _text(content[:_ADDRESS_CHARS])
    if len(digest) != _ADDRESS_CHARS or not _DIGITS.issuperset(digest):
        raise _invalid("a file of its code belongs to no snapshot")
    rest = content[_ADDRESS_CHARS:]
    size = int.from_bytes(rest[:2], "big")
    name = _text(rest[2 : 2 + size])
    path = PurePosixPath(name)
    plain = name == str(path) and not path.is_absolute() and ".." not in path.parts
    if not plain or name in ("", ".") or len(rest) < 2 + size or not name.isprintable():
        raise _invalid(f"a file of its code lies at {name[:60]!r}")
    files = made.code.setdefault(digest, {})
    files_max = limits.SNAPSHOT_FILES_MAX
    if name in files or len(files) >= files_max or len(made.code) > limits.CASSETTE_RUNS_MAX:
        raise _invalid(f"its code has {name[:60]!r} twice, or too many files")
    files[name] = bytes(rest[2 + size :])


def _text(content: memoryview) -> str:
    try:
        return bytes(content).decode()
    except UnicodeDecodeError:
        raise _invalid("a name in it is no text") from None


def _invalid(why: str) -> CassetteInvalid:
    return CassetteInvalid(
        "The cassette can't be used.",
        why=f"{why[:1].upper()}{why[1:]}.",
        todo="Have it exported and sent again; nothing of it is replayed.",
    )
