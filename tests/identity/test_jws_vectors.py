"""Wycheproof's vectors for signed tokens, through `identity/jws.py` as the kernel calls it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.errors import JoseError
from joserfc.jwk import import_key

from ring0.identity import jws
from ring0.identity.jws import PublicKey, TokenRefused

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("RING0_DATA") or ROOT.parent / "shared" / "data")
VECTORS = DATA / "vectors" / "wycheproof"

OTHERWISE = {
    346: "the key says PS256, the token PS384: a key is for its own algorithm alone",
    350: "as 346",
    347: "the key says ES521, which is no algorithm",
    351: "as 347",
    367: "the wrong padding that it is about is not in the file: to the byte it is a good token",
    370: "as 367",
    372: "a `?` in the header, which it wants to be overlooked: one token has one spelling here",
    373: "as 372, in the payload",
}
"""Where we say otherwise than the vectors, by tcId."""
KEYS_OTHERWISE = dict.fromkeys(
    (2, 13, 14, 15), "a symmetric key: whoever verifies with it can make tokens, so none is taken"
)

pytestmark = pytest.mark.skipif(not VECTORS.is_dir(), reason=f"there is no {VECTORS}")


def groups(name: str) -> Iterator[dict[str, Any]]:
    yield from json.loads((VECTORS / name).read_text())["testGroups"]


def is_good(group: dict[str, Any], token: str) -> bool:
    """With the one key of the group, and the algorithm that it says it is for."""
    said = group.get("public") or group["private"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joserfc's, of keys that are there to be refused.
            key = import_key(said)
        algorithm = said.get("alg") or jws.header_of(token)["alg"]
        jws.signed(token, [PublicKey(key, algorithm, said.get("kid", ""))], [algorithm])
    except (TokenRefused, JoseError, ValueError):
        return False
    return True


def test_393_of_401_signatures_of_wycheproof_and_the_other_eight_by_their_reason() -> None:
    otherwise, count = set(), 0
    for group in groups("json_web_signature_test.json"):
        for test in group["tests"]:
            count += 1
            if is_good(group, test["jws"]) != (test["result"] == "valid"):
                otherwise.add(test["tcId"])
    assert count == 401
    assert otherwise == set(OTHERWISE)


def test_a_token_that_wycheproof_calls_forged_is_never_taken() -> None:
    for group in groups("json_web_signature_test.json"):
        for test in group["tests"]:
            if test["result"] == "invalid" and test["tcId"] not in (367, 370):
                assert not is_good(group, test["jws"]), test


def test_a_set_of_keys_with_weak_wrong_or_doubled_ones_verifies_nothing_by_them() -> None:
    otherwise = set()
    for group in groups("json_web_key_test.json"):
        keys = jws.public_keys(json.dumps(group.get("public") or group["private"]).encode())
        for test in group["tests"]:
            try:
                jws.signed(test["jws"], keys)
                good = True
            except TokenRefused:
                good = False
            if good != (test["result"] == "valid"):
                otherwise.add(test["tcId"])
    assert otherwise == set(KEYS_OTHERWISE)
