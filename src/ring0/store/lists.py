"""Values that are kept in parts: a question to a model is a list of its messages.

A list is the concatenation of its parts' values, and lies in the store as their addresses. A part
is a value or a list again (`SPREAD` of them at most where they are full), so that what one turn of
a conversation adds takes room for what is new of it. Not here: where blobs lie (sqlite/), what
makes the parts of a value (kernel/messagelists.py).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Final

from ring0 import limits
from ring0.errors import StoreDamaged
from ring0.store.addresses import address

ADDRESS_BYTES: Final = 32
SPREAD: Final = 16
"""How many addresses a full list within a list holds."""
_DOMAIN: Final = b"ring0 list v1"


class Listed(bytes):
    """The form in which a list lies in the store: the addresses of its parts, 32 bytes each."""

    __slots__ = ()

    def parts(self) -> list[str]:
        """Addresses, in order. Raises ValueError."""
        if not self or len(self) % ADDRESS_BYTES:
            raise ValueError(f"{len(self)} bytes are no list of addresses")
        return [self[at : at + ADDRESS_BYTES].hex() for at in range(0, len(self), ADDRESS_BYTES)]


def list_key(key: bytes) -> bytes:
    """The key of the addresses of a run's lists. Another than that of its values: so an address
    says which of the two lies there, and no value can pass for a list."""
    return hmac.digest(key, _DOMAIN, "sha256")


def list_address(key: bytes, form: bytes) -> str:
    """The address of a list of the run with this key."""
    return address(list_key(key), form)


def fits(key: bytes, where: str, value: bytes, *, is_list: bool) -> bool:
    """Whether that lies there rightly: the address is made of it, and of the run's key."""
    return where == (list_address(key, value) if is_list else address(key, value))


def form_of(parts: Sequence[str]) -> Listed:
    return Listed(b"".join(map(bytes.fromhex, parts)))


def grown(parts: Sequence[str], add: Callable[[Listed], str]) -> list[str]:
    """What the topmost list of a long one holds, when `add` has kept each list beneath it and said
    its address. The same parts in front make the same lists, whatever comes after them."""
    level, tails = list(parts), []
    while len(level) > SPREAD:
        full = len(level) // SPREAD * SPREAD
        tails.append(level[full:])
        level = [add(form_of(level[at : at + SPREAD])) for at in range(0, full, SPREAD)]
    for tail in reversed(tails):
        level += tail
    return level


def whole(form: Listed, read: Callable[[str], tuple[bool, bytes]]) -> bytes:
    """The value of a list. `read`: whether a list lies at an address, and what lies there.

    Raises StoreDamaged where it is deeper or longer than any that was ever written.
    """
    found: list[bytes] = []
    size = 0
    stack: list[tuple[int, str]] = [(1, part) for part in reversed(_parts(form))]
    while stack:
        depth, where = stack.pop()
        is_list, value = read(where)
        if is_list:
            if depth >= limits.LIST_DEPTH_MAX:
                raise _unfit("it is deeper than any that ring0 writes")
            stack += ((depth + 1, part) for part in reversed(_parts(Listed(value))))
            continue
        size += len(value)
        if size > limits.BLOB_SIZE_BYTES_MAX:
            raise _unfit("its parts are longer together than a value may be")
        found.append(value)
    return b"".join(found)


def _parts(form: Listed) -> list[str]:
    try:
        return form.parts()
    except ValueError as error:
        raise _unfit(str(error)) from None


def _unfit(why: str) -> StoreDamaged:
    return StoreDamaged(
        "A value that is kept in parts can't be put together.",
        why=f"{why[:1].upper()}{why[1:]}.",
        todo="Run `ring0 audit verify`, and put back a copy of the journal.",
    )
