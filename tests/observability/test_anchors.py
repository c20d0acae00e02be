"""A log against its anchors, without a kernel: whose key counts, and which roots were compared."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ring0.observability.proof.anchors import SETTING, Anchors
from ring0.observability.proof.checkpoints import Checkpoint
from ring0.observability.proof.logs import LogReport, check_log
from ring0.observability.proof.notes import Key, public_of, sign
from ring0.observability.proof.tiles import root_of
from ring0.store import events as ev
from ring0.store import merkle
from ring0.store.events import KERNEL, seal

ORIGIN = "ring0.local/test"
FIRST, NEXT, THIEF = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))


def key(private: Ed25519PrivateKey, name: str = ORIGIN) -> Key:
    return public_of(name, private)


def change(seq: int, before: Ed25519PrivateKey | None, after: Ed25519PrivateKey) -> bytes:
    was = str(key(before)) if before else ""
    event = ev.SettingChanged(name=SETTING, before=was, after=str(key(after)), by="ann")
    return seal(KERNEL, seq, 1, event, 0)[1]


def other(seq: int) -> bytes:
    return seal(KERNEL, seq, 1, ev.KernelStopped(), 0)[1]


def note(log: list[bytes], size: int, *signers: Ed25519PrivateKey, origin: str = ORIGIN) -> str:
    root = root_of([merkle.leaf_hash(entry) for entry in log[:size]])
    said = Checkpoint(origin=origin, size=size, root=root)
    return sign(said.text(), [(origin, private) for private in signers])


def checked(log: list[bytes], notes: list[str], *trusted: Ed25519PrivateKey) -> LogReport:
    anchors = Anchors(notes, [key(private) for private in trusted])
    return check_log(((at, None, entry) for at, entry in enumerate(log)), anchors)


LOG = [change(1, None, FIRST), other(2), change(3, FIRST, NEXT), other(4), other(5)]


def test_a_key_is_followed_where_the_one_before_it_vouched_for_the_change() -> None:
    notes = [note(LOG, 2, FIRST), note(LOG, 3, FIRST, NEXT), note(LOG, 5, NEXT)]
    report = checked(LOG, notes, FIRST)
    assert report.ok and report.signed == 5
    assert checked(LOG, notes[:2], FIRST).signed == 3


def test_a_key_that_follows_none_that_is_trusted_is_not_followed_though_an_anchor_covers_it() -> (
    None
):
    log = [*LOG[:2], change(3, THIEF, THIEF), other(4)]
    notes = [note(log, 3, FIRST), note(log, 4, THIEF)]
    report = checked(log, notes, FIRST)
    assert not report.ok and report.signed == 3
    assert "No key that is trusted" in report.problems[0]


def test_a_change_that_no_anchor_covers_yet_makes_no_key_trusted() -> None:
    report = checked(LOG, [note(LOG, 2, FIRST), note(LOG, 5, NEXT)], FIRST)
    assert not report.ok and report.signed == 2


def test_every_anchor_is_compared_and_not_the_newest_alone() -> None:
    forged = [*LOG]
    forged[1] = other(9)
    notes = [note(LOG, 2, FIRST), note(forged, 5, FIRST)]
    report = checked(forged, notes, FIRST)
    assert not report.ok and "the first 2 events are not those" in report.problems[0]


def test_two_anchors_of_one_size_with_other_roots_never_both_hold() -> None:
    forged = [*LOG[:4], other(9)]
    notes = [note(LOG, 5, FIRST), note(forged, 5, FIRST)]
    for log in (LOG, forged):
        assert not checked(log, notes, FIRST).ok, "the signer said two things: that is found"


def test_anchors_of_another_log_are_counted_and_hold_of_nothing() -> None:
    anchors = Anchors([note(LOG, 5, FIRST, origin="other.example/log")], [key(FIRST)])
    report = check_log(((at, None, entry) for at, entry in enumerate(LOG)), anchors)
    assert (anchors.elsewhere, anchors.held, report.signed) == (1, 0, 0)


def test_an_anchor_of_an_empty_log_vouches_for_nothing() -> None:
    anchors = Anchors([note(LOG, 0, FIRST)], [key(FIRST)])
    check_log(((at, None, entry) for at, entry in enumerate(LOG)), anchors)
    assert anchors.held == 0 and not anchors.problems


def test_a_log_that_is_shorter_or_has_a_gap_is_found() -> None:
    notes = [note(LOG, 5, FIRST)]
    assert "cut short" in checked(LOG[:4], notes, FIRST).problems[0]
    rows = [(at, None, entry) for at, entry in enumerate(LOG) if at != 2]
    report = check_log(rows, Anchors(notes, [key(FIRST)]))
    assert not report.ok and "event 2: missing" in report.problems[0]
