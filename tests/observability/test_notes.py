"""Signed notes, checkpoints and receipts: the bytes of C2SP, read with care."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ring0.observability.proof import checkpoints, proofs
from ring0.observability.proof.checkpoints import Checkpoint, Receipt
from ring0.observability.proof.notes import (
    COSIGNATURE,
    Key,
    NoteWrong,
    open_note,
    public_of,
    read_key,
    sign,
)
from ring0.observability.proof.tiles import root_of
from ring0.store import merkle

PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SAID = "If you think cryptography is the answer to your problem,\n"
PETERS = (
    SAID + "then you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKv"
    "qfqdngotpRZb6KE6RyyBwJnAM=\n"
)
"""Go's own example of a note (the documentation of x/mod/sumdb/note)."""
ORIGIN = "ring0.local/test"


@pytest.fixture
def signer() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def test_gos_own_example_of_a_note_is_read_and_its_signature_holds() -> None:
    signed = open_note(PETERS, [read_key(PETER)])
    assert signed.text.startswith(SAID) and [key.name for key in signed.by] == ["PeterNeumann"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cryptography", "Cryptography"),
        ("x08go/ZJ", "x08go/ZK"),
        ("\n\n—", "\n—"),
        ("— Peter", "- Peter"),
        ("cryptography", "crypto\x07graphy"),
        ("wJnAM=\n", "wJnAN=\n"),  # The same bytes to a reader who is not strict.
        ("wJnAM=\n", "wJnAM="),
        ("wJnAM=\n", "wJnAM=\nmore\n"),
    ],
)
def test_a_note_that_was_changed_anywhere_is_refused(old: str, new: str) -> None:
    with pytest.raises(NoteWrong):
        open_note(PETERS.replace(old, new), [read_key(PETER)])


def test_a_note_that_only_strangers_signed_is_refused(signer: Ed25519PrivateKey) -> None:
    with pytest.raises(NoteWrong, match="No key that is trusted"):
        open_note(PETERS, [public_of("PeterNeumann", signer)])


def test_a_wrong_signature_of_a_key_that_is_trusted_spoils_the_note_whatever_others_say(
    signer: Ed25519PrivateKey,
) -> None:
    other = Ed25519PrivateKey.generate()
    note = sign("text\n", [("a", signer), ("b", other)])
    lines = note.splitlines(keepends=True)
    last = lines[-1]
    lines[-1] = last[:-10] + ("A" if last[-10] != "A" else "B") + last[-9:]
    keys = [public_of("a", signer), public_of("b", other)]
    assert len(open_note(note, keys).by) == 2
    with pytest.raises(NoteWrong):
        open_note("".join(lines), keys)


def test_a_key_whose_id_is_not_its_own_is_refused() -> None:
    for bad in (PETER.replace("c74f", "c74e"), "name+1+2", "", "a b+00000000+AQ==", PETER + "AA"):
        with pytest.raises(NoteWrong):
            read_key(bad)


def test_a_witness_signs_the_time_with_the_text(signer: Ed25519PrivateKey) -> None:
    text = "log\n0\n" + base64.b64encode(merkle.EMPTY_ROOT).decode() + "\n"
    key = Key(name="w", kind=COSIGNATURE, public=signer.public_key().public_bytes_raw())
    when = 1_700_000_000
    said = signer.sign(f"cosignature/v1\ntime {when}\n{text}".encode())
    line = base64.b64encode(key.id + when.to_bytes(8, "big") + said).decode()
    note = f"{text}\n— w {line}\n"
    assert open_note(note, [key]).times_s == (when,)
    later = base64.b64encode(key.id + (when + 1).to_bytes(8, "big") + said).decode()
    with pytest.raises(NoteWrong):
        open_note(f"{text}\n— w {later}\n", [key])
    with pytest.raises(NoteWrong, match="No key of the log"):
        checkpoints.open_checkpoint(note, [key])


def test_a_checkpoint_comes_back_as_it_was(signer: Ed25519PrivateKey) -> None:
    said = Checkpoint(origin=ORIGIN, size=7, root=bytes(32))
    note = sign(said.text(), [(ORIGIN, signer)])
    found, signed = checkpoints.open_checkpoint(note, [public_of(ORIGIN, signer)])
    assert found == said and signed.text == said.text()


@pytest.mark.parametrize(
    "text",
    [
        "log\n07\n{root}\n",
        "log\n-1\n{root}\n",
        "log\n٣\n{root}\n",
        "log\n9223372036854775808\n{root}\n",
        "log\n7\nAAAA\n",
        "log\n0\n{root}\n",
        "a log\n7\n{root}\n",
        "\n7\n{root}\n",
        "log\n7\n",
    ],
)
def test_a_checkpoint_that_says_no_size_or_no_root_is_refused(
    text: str, signer: Ed25519PrivateKey
) -> None:
    said = text.format(root=base64.b64encode(bytes(32)).decode())
    with pytest.raises(NoteWrong):
        checkpoints.read_text(said)


def test_notes_that_stand_one_after_the_other_are_read_each(signer: Ed25519PrivateKey) -> None:
    made = [
        sign(Checkpoint(origin=ORIGIN, size=n, root=bytes([n] * 32)).text(), [(ORIGIN, signer)])
        for n in range(1, 5)
    ]
    assert list(checkpoints.notes_in("".join(made))) == made
    assert list(checkpoints.notes_in("\n".join(made))) == made
    assert next(iter(checkpoints.notes_in(made[0] + made[1][:40]))) == made[0]


def test_a_receipt_proves_its_entry_and_no_other(signer: Ed25519PrivateKey) -> None:
    entries = [b"entry %d" % n for n in range(11)]
    hashes = [merkle.leaf_hash(entry) for entry in entries]
    said = Checkpoint(origin=ORIGIN, size=11, root=root_of(hashes))
    note = sign(said.text(), [(ORIGIN, signer)])
    proof = proofs.inclusion(lambda a, b: root_of(hashes[a:b]), 4, 11)
    text = Receipt(index=4, proof=tuple(proof), note=note).text()
    assert text.startswith("c2sp.org/tlog-proof@v1\nindex 4\n")
    keys = [public_of(ORIGIN, signer)]
    assert checkpoints.check_receipt(checkpoints.read_receipt(text), entries[4], keys) == said
    with pytest.raises(proofs.ProofWrong):
        checkpoints.check_receipt(checkpoints.read_receipt(text), entries[5], keys)
    moved = checkpoints.read_receipt(text.replace("index 4", "index 5"))
    with pytest.raises(proofs.ProofWrong):
        checkpoints.check_receipt(moved, entries[4], keys)


@pytest.mark.parametrize(
    ("old", "new"),
    [("@v1", "@v2"), ("index 0", "index 00"), ("index 0", "index -0"), ("index 0\n", "")],
)
def test_what_is_no_receipt_is_refused(old: str, new: str, signer: Ed25519PrivateKey) -> None:
    note = sign("log\n1\n" + base64.b64encode(bytes(32)).decode() + "\n", [("log", signer)])
    text = Receipt(index=0, proof=(), note=note).text()
    assert checkpoints.read_receipt(text).note == note
    with pytest.raises(NoteWrong):
        checkpoints.read_receipt(text.replace(old, new))
