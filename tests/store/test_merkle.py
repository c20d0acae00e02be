"""The Merkle tree, against RFC 6962 written down once more, slowly, and against others' vectors."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring0.store import merkle

DATA = Path(os.environ.get("RING0_DATA") or Path(__file__).parents[3] / "shared" / "data")
VECTORS = DATA / "vectors" / "merkle"
LEAVES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")
KNOWN_LEAVES = [bytes.fromhex(leaf) for leaf in (*LEAVES, "606162636465666768696a6b6c6d6e6f")]
"""The tree that the vectors of Certificate Transparency are of."""


def slow_root(entries: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + slow_root(entries[:k]) + slow_root(entries[k:])).digest()


def tree_of(entries: Sequence[bytes]) -> merkle.Tree:
    tree = merkle.Tree()
    for entry in entries:
        tree.append(merkle.leaf_hash(entry))
    return tree


def test_the_root_is_that_of_the_rfc_at_every_size() -> None:
    entries = [b"entry %d" % number for number in range(300)]
    tree = merkle.Tree()
    for size, entry in enumerate(entries):
        assert tree.root() == slow_root(entries[:size])
        assert len(tree.peaks) == size.bit_count()
        tree.append(merkle.leaf_hash(entry))
    assert tree.root() == slow_root(entries)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=70), max_size=70), st.integers(0, 70))
def test_a_tree_that_is_taken_up_again_from_its_peaks_grows_the_same(
    entries: list[bytes], stop: int
) -> None:
    half = tree_of(entries[:stop])
    again = merkle.Tree(half.size, half.peaks)
    for entry in entries[stop:]:
        again.append(merkle.leaf_hash(entry))
    assert again.root() == tree_of(entries).root() == slow_root(entries)
    assert half.root() == slow_root(entries[:stop]), "the tree it came from has not moved"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_every_change_of_the_entries_changes_the_root(
    entries: list[bytes], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(entries) - 1))
    root = tree_of(entries).root()
    assert tree_of([*entries[:at], entries[at] + b"!", *entries[at + 1 :]]).root() != root
    assert tree_of(entries[:at] + entries[at + 1 :]).root() != root
    assert tree_of([*entries[:at], entries[at], *entries[at:]]).root() != root
    swapped = [*entries[:at], *reversed(entries[at:])]
    assert (tree_of(swapped).root() == root) == (swapped == entries)


def test_an_entry_can_not_pose_as_a_node() -> None:
    left, right = merkle.leaf_hash(b"a"), merkle.leaf_hash(b"b")
    assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)
    assert merkle.leaf_hash(b"\x01" + left + right) != merkle.node_hash(left, right)


@pytest.mark.parametrize(
    ("size", "peaks"),
    [(1, []), (0, [bytes(32)]), (3, [bytes(32)]), (2, [bytes(32)] * 2), (1, [bytes(31)])],
)
def test_peaks_that_make_no_tree_are_refused(size: int, peaks: list[bytes]) -> None:
    with pytest.raises(ValueError, match="peaks do not make a tree"):
        merkle.Tree(size, peaks)


# --- vectors of transparency-dev/merkle -----------------------------------------------------------


def happy(kind: str) -> list[dict[str, Any]]:
    """The vectors of a kind that must verify and are of that tree (the numbered folders)."""
    if not VECTORS.is_dir():
        pytest.skip(f"no vectors in {VECTORS}: set RING0_DATA to the folder that has them")
    paths = sorted((VECTORS / kind).glob("[0-9]*/*.json"))
    vectors = [json.loads(path.read_text()) for path in paths]
    return [vector for vector in vectors if not vector["wantErr"]]


def bytes_of(vector: dict[str, Any], key: str) -> bytes:
    return base64.b64decode(vector[key] or "")


def test_the_roots_of_the_vectors_are_ours() -> None:
    wanted = set()
    for vector in happy("consistency"):
        for size, root in (("size1", "root1"), ("size2", "root2")):
            wanted.add((vector[size], bytes_of(vector, root)))
    wanted |= {(v["treeSize"], bytes_of(v, "root")) for v in happy("inclusion")}
    assert len(wanted) >= 6
    assert wanted <= {(size, tree_of(KNOWN_LEAVES[:size]).root()) for size in range(9)}


def test_the_leaves_and_proofs_of_the_vectors_fold_to_our_root() -> None:
    """Folding an inclusion proof (RFC 9162, 2.1.3.2) with our node hash gives our tree's root."""
    checked = 0
    for vector in happy("inclusion"):
        index, size = vector["leafIdx"], vector["treeSize"]
        assert bytes_of(vector, "leafHash") == merkle.leaf_hash(KNOWN_LEAVES[index])
        folded, last = bytes_of(vector, "leafHash"), size - 1
        for step in map(base64.b64decode, vector["proof"] or []):
            if index & 1 or index == last:
                folded = merkle.node_hash(step, folded)
                while not index & 1 and index:
                    index, last = index >> 1, last >> 1
            else:
                folded = merkle.node_hash(folded, step)
            index, last = index >> 1, last >> 1
        assert last == 0 and folded == tree_of(KNOWN_LEAVES[:size]).root()
        checked += 1
    assert checked >= 4
