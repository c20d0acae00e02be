"""Takes out of the file what no table holds any more: SQLite's own traces of what was deleted.

With `secure_delete` SQLite writes over each cell and page that it frees. But where it moves cells
from one page to another (a tree is balanced), copies stay in the room between a page's pointers and
its cells until something is put there. Here that room is written over: it means nothing to SQLite,
whatever it holds. Source: https://sqlite.org/fileformat2.html (sections 1.5, 1.6, 1.8).
"""

from __future__ import annotations

import struct
from typing import Any, Final

import apsw

_HEADER_BYTES: Final = 100
"""Of the file, in front of page 1's own header."""
_HEADS: Final = {0x02: 12, 0x05: 12, 0x0A: 8, 0x0D: 8}
"""Kinds of a tree's page, and how long the head of each is."""
_ROOT, _TREE = 1, 5
"""What the pointer map says of pages of a tree."""
_ENTRY_BYTES: Final = 5
_HEAD: Final = struct.Struct(">BHHHB")


def scrub(db: apsw.Connection, begin: int, end: int) -> int:
    """Pages [begin, end) of the file, from 1; how many held something. The caller is the only one
    that writes, its WAL is empty, and it keeps no page in memory."""
    page_bytes, pages = _asked(db, "page_size"), _asked(db, "page_count")
    flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE
    # Through SQLite's own door: closing the file by another would drop SQLite's locks on it.
    file = apsw.VFSFile(db.open_vfs or "", db.filename, [flags, 0])
    try:
        kinds = _Kinds(file, page_bytes)
        count = 0
        for page in range(begin, min(end, pages + 1)):
            if page != 1 and kinds.of(page) not in (_ROOT, _TREE):
                continue
            at = (page - 1) * page_bytes
            stale = stale_of(file.xRead(page_bytes, at), _HEADER_BYTES if page == 1 else 0)
            for first, last in stale:
                file.xWrite(b"\0" * (last - first), at + first)
            count += bool(stale)
        if count:
            file.xSync(apsw.SQLITE_SYNC_FULL)
        return count
    finally:
        file.xClose()


def stale_of(page: bytes, begins: int) -> list[tuple[int, int]]:
    """Where a page of a tree holds bytes that mean nothing: [first, last)."""
    kind, free, cells, content, _ = _HEAD.unpack_from(page, begins)
    if kind not in _HEADS:
        return []
    first = begins + _HEADS[kind] + 2 * cells
    last = content or 65_536
    if not first <= last <= len(page):
        return []  # It is damaged: not ours to mend.
    found = [(first, last)] if page.count(0, first, last) != last - first else []
    while free:
        if not last <= free <= len(page) - 4:
            return found
        after, size = struct.unpack_from(">HH", page, free)
        inside = (free + 4, free + size)
        if size < 4 or inside[1] > len(page) or (after and after <= free):
            return found
        if page.count(0, *inside) != size - 4:
            found.append(inside)
        free = after
    return found


def _asked(db: apsw.Connection, what: str) -> int:
    found: Any = db.pragma(what)
    return int(found)


class _Kinds:
    """What the file's pointer map says of each page."""

    def __init__(self, file: apsw.VFSFile, page_bytes: int) -> None:
        self._file, self._page_bytes = file, page_bytes
        self._entries = page_bytes // _ENTRY_BYTES
        self._at, self._map = 0, b""

    def of(self, page: int) -> int:
        """0: a page of the map itself."""
        # Page 2 is the first of the map, and each tells of those right behind it.
        at = (page - 2) // (self._entries + 1) * (self._entries + 1) + 2
        if page == at:
            return 0
        if at != self._at:
            self._map = self._file.xRead(self._page_bytes, (at - 1) * self._page_bytes)
            self._at = at
        return self._map[(page - at - 1) * _ENTRY_BYTES]
