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


def test_an_anchor_that_is_older_than_the_key_on_record_holds_once_the_log_names_it() -> None:
    log = [other(1), *(change(2, None, FIRST), other(3))]
    assert checked(log, [note(log, 1, FIRST), note(log, 3, FIRST)]).ok
    forged = checked(log, [note([other(9)], 1, FIRST)])
    assert not forged.ok and "not those that were signed" in forged.problems[0]
    assert not checked(log, [note(log, 1, THIEF)]).ok


def restored(after: Ed25519PrivateKey) -> list[bytes]:
    was, name = str(key(FIRST)), f"{ORIGIN}/2"
    event = ev.SettingChanged(name=SETTING, before=was, after=str(key(after, name)), by="ann")
    return [*LOG[:2], seal(KERNEL, 3, 1, event, 0)[1], other(4)]


def test_a_key_is_followed_into_the_name_of_a_restored_journal_and_no_other_key_is() -> None:
    log = restored(FIRST)
    report = checked(log, [note(log, 4, FIRST, origin=f"{ORIGIN}/2")])
    assert report.ok and report.signed == 4
    log = restored(THIEF)
    assert checked(log, [note(log, 4, THIEF, origin=f"{ORIGIN}/2")]).signed == 0


def test_a_handover_of_the_journal_that_was_replaced_is_of_no_weight_unless_it_was_given() -> None:
    log, gone = restored(FIRST), note(LOG, 4, FIRST, NEXT)
    newest = note(log, 4, FIRST, origin=f"{ORIGIN}/2")

    def found(notes: list[str], handovers: list[str]) -> LogReport:
        rows = ((at, None, entry) for at, entry in enumerate(log))
        return check_log(rows, Anchors(notes, [key(FIRST)], handovers))

    report = found([newest], [gone, "no note"])
    assert report.ok and report.signed == 4
    assert not found([newest, gone], []).ok
    assert not found([newest, gone], [gone]).ok, "given is given"


def test_a_handover_beside_the_journal_lets_the_first_key_reach_the_newest_anchor() -> None:
    rows = [(at, None, entry) for at, entry in enumerate(LOG)]
    newest, handover = note(LOG, 5, NEXT), note(LOG, 3, FIRST, NEXT)
    assert not check_log(iter(rows), Anchors([newest], [key(FIRST)])).ok
    report = check_log(iter(rows), Anchors([newest], [key(FIRST)], [handover]))
    assert report.ok and report.signed == 5


def test_who_trusts_the_newest_key_alone_is_not_held_up_by_how_the_older_ones_followed() -> None:
    rows = [(at, None, entry) for at, entry in enumerate(LOG)]
    newest, older = note(LOG, 5, NEXT), note(LOG, 2, FIRST)
    assert check_log(iter(rows), Anchors([newest], [key(NEXT)], [older])).ok
    assert not check_log(iter(rows), Anchors([newest, older], [key(NEXT)])).ok
