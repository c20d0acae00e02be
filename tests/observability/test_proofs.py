"""Merkle proofs: transparency-dev's vectors, all of them, and proofs of trees of every size."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring0.observability.proof import proofs
from ring0.observability.proof.proofs import ProofWrong
from ring0.observability.proof.tiles import TILE_LEAVES, Tiles, root_of
from ring0.store import merkle

DATA = Path(os.environ.get("RING0_DATA") or Path(__file__).parents[3] / "shared" / "data")
VECTORS = DATA / "vectors" / "merkle"
COUNTS = {"inclusion": 98, "consistency": 98, "subtreeinclusion": 204, "subtreeconsistency": 118}
"""518 in all."""


def vectors(kind: str) -> list[tuple[str, dict[str, Any]]]:
    if not VECTORS.is_dir():
        pytest.skip(f"no vectors in {VECTORS}: set RING0_DATA to the folder that has them")
    paths = sorted((VECTORS / kind).rglob("*.json"))
    return [(str(path.relative_to(VECTORS)), json.loads(path.read_text())) for path in paths]


def binary(vector: dict[str, Any], key: str) -> bytes:
    return base64.b64decode(vector[key] or "")


def steps(vector: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(step) for step in vector["proof"] or []]


def is_right(kind: str, of: dict[str, Any], *, strict: bool) -> bool:
    proof = steps(of)
    try:
        if kind == "inclusion":
            proofs.check_inclusion(
                of["leafIdx"],
                of["treeSize"],
                binary(of, "leafHash"),
                proof,
                binary(of, "root"),
                strict=strict,
            )
        elif kind == "consistency":
            sizes, roots = (of["size1"], of["size2"]), (binary(of, "root1"), binary(of, "root2"))
            proofs.check_consistency(*sizes, proof, *roots, strict=strict)
        elif kind == "subtreeinclusion":
            place = of["leafIdx"], of["start"], of["end"]
            proofs.check_subtree_inclusion(
                *place, binary(of, "leafHash"), proof, binary(of, "root"), strict=strict
            )
        else:
            place = of["start"], of["end"], of["size"]
            roots = binary(of, "root1"), binary(of, "root2")
            proofs.check_subtree(*place, proof, *roots, strict=strict)
    except ProofWrong:
        return False
    return True


@pytest.mark.parametrize("kind", COUNTS)
def test_every_vector_of_transparency_dev_comes_out_as_it_says(kind: str) -> None:
    found = vectors(kind)
    assert len(found) == COUNTS[kind]
    assert [n for n, one in found if is_right(kind, one, strict=False) is one["wantErr"]] == []


@pytest.mark.parametrize("kind", COUNTS)
def test_hashes_that_have_not_32_bytes_and_empty_trees_are_refused_beyond_the_vectors(
    kind: str,
) -> None:
    refused = 0
    for name, one in vectors(kind):
        hashes = [binary(one, key) for key in ("root", "root1", "root2", "leafHash") if key in one]
        odd = any(len(each) != 32 for each in [*hashes, *steps(one)])
        empty = one.get("end") is not None and one["start"] == one["end"]
        wanted = not one["wantErr"] and not odd and not empty
        assert is_right(kind, one, strict=True) is wanted, name
        refused += (odd or empty) and not one["wantErr"]
    assert refused == {"consistency": 1, "subtreeconsistency": 7}.get(kind, 0)


def leaves(count: int) -> list[bytes]:
    return [merkle.leaf_hash(b"entry %d" % number) for number in range(count)]


def test_every_proof_of_every_small_tree_holds_and_none_holds_for_another_place() -> None:
    hashes = leaves(40)
    for size in range(1, 41):
        tiles = Tiles(lambda a, b, size=size: hashes[:size][a:b])  # type: ignore[misc]
        root = root_of(hashes[:size])
        for index in range(size):
            proof = proofs.inclusion(tiles.nodes, index, size)
            proofs.check_inclusion(index, size, hashes[index], proof, root)
            with pytest.raises(ProofWrong):
                proofs.check_inclusion((index + 1) % (size + 1), size, hashes[index], proof, root)
        for old in range(1, size + 1):
            proof = proofs.consistency(tiles.nodes, old, size)
            proofs.check_consistency(old, size, proof, root_of(hashes[:old]), root)
            if old > 1:
                other = root_of([hashes[1], hashes[0], *hashes[2:old]])
                with pytest.raises(ProofWrong):
                    proofs.check_consistency(old, size, proof, other, root)


def test_every_subtree_of_a_tree_is_proved_and_no_other_range_is_one() -> None:
    hashes, seen = leaves(23), 0
    for size in (1, 2, 7, 16, 23):
        root = root_of(hashes[:size])
        tiles = Tiles(lambda a, b, size=size: hashes[:size][a:b])  # type: ignore[misc]
        for begin in range(size):
            for end in range(begin + 1, size + 1):
                if not proofs.is_subtree(begin, end):
                    with pytest.raises(ProofWrong):
                        proofs.check_subtree(begin, end, size, [], root, root)
                    continue
                part = root_of(hashes[begin:end])
                proof = proofs.subtree(tiles.nodes, begin, end, size)
                proofs.check_subtree(begin, end, size, proof, part, root)
                for index in range(begin, end):
                    path = proofs.inclusion(
                        lambda a, b, begin=begin: root_of(hashes[begin + a : begin + b]),  # type: ignore[misc]
                        index - begin,
                        end - begin,
                    )
                    proofs.check_subtree_inclusion(index, begin, end, hashes[index], path, part)
                seen += 1
    assert seen > 60


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_proof_with_one_bit_turned_never_holds(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 300))
    old = data.draw(st.integers(1, size - 1))
    hashes = leaves(size)
    tiles = Tiles(lambda a, b: hashes[a:b])
    proof = proofs.consistency(tiles.nodes, old, size)
    at = data.draw(st.integers(0, len(proof) * 256 - 1))
    turned = bytearray(proof[at // 256])
    turned[at % 256 // 8] ^= 1 << at % 8
    wrong = [*proof[: at // 256], bytes(turned), *proof[at // 256 + 1 :]]
    roots = root_of(hashes[:old]), root_of(hashes)
    proofs.check_consistency(old, size, proof, *roots)
    for bad in (wrong, proof[:-1], [*proof, proof[-1]], proof[1:]):
        with pytest.raises(ProofWrong):
            proofs.check_consistency(old, size, bad, *roots)


def test_tiles_make_the_same_proofs_as_the_whole_tree_and_read_little_of_it_again() -> None:
    size = 5 * TILE_LEAVES + 77
    hashes = leaves(size)
    read = 0

    def some(begin: int, end: int) -> list[bytes]:
        nonlocal read
        read += end - begin
        return hashes[begin:end]

    tiles = Tiles(some)
    root = root_of(hashes)
    for index in (0, 1, 255, 256, 700, size - 1):
        proof = proofs.inclusion(tiles.nodes, index, size)
        proofs.check_inclusion(index, size, hashes[index], proof, root)
    read = 0
    proofs.inclusion(tiles.nodes, 300, size)
    assert read < 2 * TILE_LEAVES


def test_a_log_that_is_too_short_for_a_proof_says_so() -> None:
    tiles = Tiles(lambda a, b: leaves(10)[a:b])
    with pytest.raises(LookupError):
        proofs.inclusion(tiles.nodes, 3, 12)
