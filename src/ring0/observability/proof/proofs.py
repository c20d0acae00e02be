"""Proofs over a Merkle log: an entry is in it, a log goes on from an older one. Pure.

Sources: RFC 6962 and RFC 9162 (section 2.1), and for subtrees draft-ietf-plants-merkle-tree-certs,
section 4. Not here: where the hashes lie (tiles.py), who vouches for a root (checkpoints.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ring0.errors import VerifyFailed
from ring0.store import merkle

HASH_BYTES: Final = 32
Nodes = Callable[[int, int], bytes]
"""The root over the leaves [begin, end); what proofs are made from."""


class ProofWrong(VerifyFailed):
    """A proof does not show what it is said to show."""

    code = "proof_wrong"


# --- checking -------------------------------------------------------------------------------------


def check_inclusion(
    index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes, *, strict: bool = True
) -> None:
    """That `leaf` (a leaf hash) is entry `index` of the tree of `size` leaves. Raises ProofWrong.

    `strict`: every hash has 32 bytes. Without it the vectors' own hashes of other lengths compare.
    """
    _lengths(strict, leaf, root, *proof)
    if not 0 <= index < size:
        raise _wrong(f"there is no entry {index} in a tree of {size}")
    if len(leaf) != HASH_BYTES:
        raise _wrong("a leaf hash has 32 bytes")
    if _folded(index, size, leaf, proof) != root:
        raise _wrong(f"entry {index} is not in that tree")


def check_consistency(
    old_size: int,
    size: int,
    proof: Sequence[bytes],
    old_root: bytes,
    root: bytes,
    *,
    strict: bool = True,
) -> None:
    """That the tree of `size` leaves begins with that of `old_size`. Raises ProofWrong.

    Of an empty tree nothing can be proved: every tree begins with it.
    """
    _lengths(strict, old_root, root, *proof)
    if old_size < 1:
        raise _wrong("an empty tree proves nothing of a later one")
    check_subtree(0, old_size, size, proof, old_root, root, strict=strict)


def check_subtree_inclusion(
    index: int,
    begin: int,
    end: int,
    leaf: bytes,
    proof: Sequence[bytes],
    root: bytes,
    *,
    strict: bool = True,
) -> None:
    """That `leaf` is entry `index` of the log, by the root of its subtree [begin, end)."""
    _lengths(strict, leaf, root, *proof)
    if begin >= end or not is_subtree(begin, end):
        raise _wrong(f"[{begin}, {end}) is no subtree")
    check_inclusion(index - begin, end - begin, leaf, proof, root, strict=strict)


def check_subtree(
    begin: int,
    end: int,
    size: int,
    proof: Sequence[bytes],
    subtree_root: bytes,
    root: bytes,
    *,
    strict: bool = True,
) -> None:
    """That the subtree [begin, end) is a part of the tree of `size` leaves. Raises ProofWrong.

    Without `strict` an empty subtree is a part of every tree: its root is that of no leaves.
    """
    _lengths(strict, subtree_root, root, *proof)
    if not 0 <= begin <= end <= size or not is_subtree(begin, end):
        raise _wrong(f"[{begin}, {end}) is no subtree of a tree of {size}")
    if begin == end:
        if strict or proof or subtree_root != merkle.EMPTY_ROOT:
            raise _wrong("an empty subtree proves nothing")
        return
    if end - begin == size:
        if proof or subtree_root != root:
            raise _wrong("two trees of one size have one root, and need no proof")
        return
    if _both(begin, end, size, proof, subtree_root) != (subtree_root, root):
        raise _wrong(f"the tree of {size} does not hold that [{begin}, {end})")


def is_subtree(begin: int, end: int) -> bool:
    """Whether [begin, end) is one that proofs can be about: aligned to the power of two over it."""
    width = end - begin
    return width >= 0 and (width == 0 or begin % (1 << (width - 1).bit_length()) == 0)


def _folded(index: int, size: int, leaf: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that the proof makes of the leaf (RFC 9162, 2.1.3.2). Raises ProofWrong."""
    folded, last = leaf, size - 1
    for step in proof:
        if last == 0:
            raise _wrong("it is too long")
        if index & 1 or index == last:
            folded = merkle.node_hash(step, folded)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            folded = merkle.node_hash(folded, step)
        index, last = index >> 1, last >> 1
    if last:
        raise _wrong("it is too short")
    return folded


def _both(
    begin: int, end: int, size: int, proof: Sequence[bytes], subtree_root: bytes
) -> tuple[bytes, bytes]:
    """The roots of the subtree and of the tree that the proof makes (draft, 4.4.3)."""
    first, last, end_last = begin, end - 1, size - 1
    while first != last and (last & 1 or last == end_last):
        first, last, end_last = first >> 1, last >> 1, end_last >> 1
    steps = list(proof)
    if first == last:
        inner = outer = subtree_root
    elif steps:
        inner = outer = steps.pop(0)
    else:
        raise _wrong("it is empty")
    for step in steps:
        if end_last == 0:
            raise _wrong("it is too long")
        if last & 1 or last == end_last:
            if first < last:
                inner = merkle.node_hash(step, inner)
            outer = merkle.node_hash(step, outer)
            while last and not last & 1:
                first, last, end_last = first >> 1, last >> 1, end_last >> 1
        else:
            outer = merkle.node_hash(outer, step)
        first, last, end_last = first >> 1, last >> 1, end_last >> 1
    if end_last:
        raise _wrong("it is too short")
    return inner, outer


def _lengths(strict: bool, *hashes: bytes) -> None:
    if strict and any(len(each) != HASH_BYTES for each in hashes):
        raise _wrong("a hash has 32 bytes")


# --- making ---------------------------------------------------------------------------------------


def inclusion(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """From the leaf's sibling up (RFC 6962, 2.1.1)."""
    assert 0 <= index < size, f"there is no entry {index} in a tree of {size}"
    steps: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            steps.append(nodes(middle, end))
            end = middle
        else:
            steps.append(nodes(begin, middle))
            begin = middle
    return steps[::-1]


def consistency(nodes: Nodes, old_size: int, size: int) -> list[bytes]:
    """RFC 6962, 2.1.2; empty where either tree is, or both are one."""
    return [] if old_size == 0 else subtree(nodes, 0, old_size, size)


def subtree(nodes: Nodes, begin: int, end: int, size: int) -> list[bytes]:
    """That [begin, end) is a part of the tree of `size` leaves (draft, 4.4.1)."""
    assert 0 <= begin < end <= size and is_subtree(begin, end), f"[{begin}, {end}) of {size}"
    steps: list[bytes] = []
    low, high, is_known = 0, size, True
    while (low, high) != (begin, end):
        middle = low + _split(high - low)
        if end <= middle:
            steps.append(nodes(middle, high))
            high = middle
        elif middle <= begin:
            steps.append(nodes(low, middle))
            low = middle
        else:  # It begins where the tree does: the left half is a part of both.
            steps.append(nodes(low, middle))
            low = begin = middle
            is_known = False
    if not is_known:
        steps.append(nodes(low, high))
    return steps[::-1]


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _wrong(why: str) -> ProofWrong:
    return ProofWrong(
        "A proof does not hold.",
        why=f"{why[0].upper()}{why[1:]}.",
        todo="Ask for it anew; if it still fails, one of its ends is not what was written.",
    )
