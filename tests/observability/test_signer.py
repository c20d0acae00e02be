"""The signer by itself: it signs its own tree, and only what goes on from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ring0.observability.proof import signer as signing
from ring0.observability.proof.checkpoints import open_checkpoint
from ring0.observability.proof.notes import NoteWrong, read_key
from ring0.observability.proof.signer import Ask, Signer
from ring0.observability.proof.tiles import root_of
from ring0.store import merkle

LEAVES = [merkle.leaf_hash(b"entry %d" % number) for number in range(40)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield opened
    os.close(opened)


def extend(begin: int, end: int, *, root: bytes = b"", size: int = 0) -> Ask:
    return Ask(
        say="extend",
        leaves=b"".join(LEAVES[begin:end]),
        size=size or end,
        root=root or root_of(LEAVES[:end]),
    )


def test_what_it_signs_is_the_root_that_it_worked_out_itself(folder: int) -> None:
    signer = Signer(folder)
    key = read_key(signer.answer(Ask(say="state")).key)
    for begin, end in ((0, 7), (7, 7), (7, 30)):
        said, _ = open_checkpoint(signer.answer(extend(begin, end)).note, [key])
        assert (said.size, said.root) == (end, root_of(LEAVES[:end]))


@pytest.mark.parametrize(
    "asked",
    [
        extend(8, 20),
        extend(6, 20),
        extend(7, 20, root=bytes(32)),
        extend(7, 20, size=21),
        extend(0, 5),
        Ask(say="extend", leaves=b"short", size=8, root=bytes(32)),
        Ask(say="sign anything", root=bytes(32)),
    ],
)
def test_a_log_that_does_not_go_on_from_what_it_signed_gets_no_signature(
    folder: int, asked: Ask
) -> None:
    signer = Signer(folder)
    signer.answer(extend(0, 7))
    before = signer.answer(Ask(say="state"))
    told = signer.answer(asked)
    assert told.refused and not told.note
    assert signer.answer(Ask(say="state")) == before
    assert signer.answer(extend(7, 20)).note, "the right one is signed after that"


def test_it_remembers_what_it_signed_over_a_restart(folder: int) -> None:
    first = Signer(folder)
    first.answer(extend(0, 13))
    again = Signer(folder)
    assert again.answer(Ask(say="state")) == first.answer(Ask(say="state"))
    assert again.answer(extend(0, 13)).refused
    assert again.answer(extend(13, 14)).note


def test_leaves_that_come_in_pieces_are_signed_as_one_and_not_before(folder: int) -> None:
    signer = Signer(folder)
    told = signer.answer(Ask(say="leaves", leaves=b"".join(LEAVES[:9])))
    assert told.size == 0 and not told.note
    assert signer.answer(extend(9, 20)).note
    assert signer.answer(Ask(say="state")).size == 20


def test_a_change_of_keys_is_signed_by_both_until_it_is_settled(folder: int) -> None:
    signer = Signer(folder)
    old = read_key(signer.answer(Ask(say="state")).key)
    told = signer.answer(Ask(say="rotate"))
    new = read_key(told.key)
    assert read_key(told.key_before) == old and new != old
    assert signer.answer(Ask(say="rotate")).refused, "one change at a time"
    note = signer.answer(extend(0, 5)).note
    for key in (old, new):
        open_checkpoint(note, [key])
    signer.answer(Ask(say="settle"))
    note = Signer(folder).answer(extend(5, 6)).note
    open_checkpoint(note, [new])
    with pytest.raises(NoteWrong):
        open_checkpoint(note, [old])


def test_a_state_that_was_damaged_signs_nothing(folder: int, tmp_path: Path) -> None:
    Signer(folder).answer(extend(0, 7))
    state = tmp_path / signing.STATE
    good = state.read_bytes()
    for bad in (b"", good[:40], good.replace(b'"size":7', b'"size":8')):
        state.write_bytes(bad)
        with pytest.raises((ValueError, msgspec.MsgspecError)):
            Signer(folder)
    state.write_bytes(good)
    assert Signer(folder).answer(extend(7, 8)).note


def test_a_state_that_is_a_link_is_not_followed(folder: int, tmp_path: Path) -> None:
    (tmp_path / signing.STATE).symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        Signer(folder)


def test_its_key_is_for_its_own_eyes(folder: int, tmp_path: Path) -> None:
    Signer(folder)
    assert (tmp_path / signing.STATE).stat().st_mode & 0o777 == 0o600
