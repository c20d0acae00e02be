"""What an ID token has to say before anybody is anybody by it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from ring0 import limits
from ring0.identity.jws import PublicKey, TokenRefused, public_keys
from ring0.identity.oidc import Expected, Subject, subject

NOW_S = 1_800_000_000
ISSUER = "https://login.example.com"
WANTED = Expected(
    issuer=ISSUER,
    client_id="ring0",
    nonce="n-1",
    begun_us=(NOW_S - 30) * 1_000_000,
    groups_claim="groups",
)
GOOD: dict[str, Any] = {
    "iss": ISSUER, "aud": "ring0", "sub": "ada", "nonce": "n-1",
    "iat": NOW_S - 5, "exp": NOW_S + 300,
}  # fmt: skip
KEY = ECKey.generate_key("P-256", {"kid": "k-1"})


def key_set(*keys: Key) -> tuple[PublicKey, ...]:
    shown = [{**key.as_dict(private=False), "use": "sig"} for key in keys]
    return public_keys(json.dumps({"keys": shown}).encode())


def made(
    claims: dict[str, Any] | None = None,
    *,
    key: Key = KEY,
    alg: str = "ES256",
    header: dict[str, Any] | None = None,
    without: tuple[str, ...] = (),
) -> str:
    said = {name: one for name, one in {**GOOD, **(claims or {})}.items() if name not in without}
    head = {"alg": alg, "kid": "k-1", **(header or {})}
    return jwt.encode(head, said, key, algorithms=[alg])


def taken(token: str, *keys: Key, expected: Expected = WANTED, at_s: int = NOW_S) -> Subject:
    return subject(token, key_set(*(keys or (KEY,))), expected, at_s * 1_000_000)


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed_raw(header: bytes, payload: bytes, key: ECKey = KEY) -> str:
    """Signed well, whatever it says."""
    from joserfc._rfc7518.jws_algs import JWS_ALGORITHMS

    (es256,) = [one for one in JWS_ALGORITHMS if one.name == "ES256"]
    head = f"{part(header)}.{part(payload)}"
    return f"{head}.{part(es256.sign(head.encode(), key))}"


def test_a_good_token_says_who_it_is_by_subject_and_issuer() -> None:
    token = made({"email": "ada@example.com", "email_verified": True, "groups": ["oncall"]})
    assert taken(token) == Subject(
        name=f"ada ({ISSUER})", email="ada@example.com", groups=("oncall",)
    )


@pytest.mark.parametrize(
    ("alg", "make"),
    [
        ("RS256", lambda: RSAKey.generate_key(2048, {"kid": "k-1"})),
        ("ES256", lambda: ECKey.generate_key("P-256", {"kid": "k-1"})),
        ("EdDSA", lambda: OKPKey.generate_key("Ed25519", {"kid": "k-1"})),
    ],
)
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # joserfc's, of what the test signs.
def test_the_three_algorithms_are_taken(alg: str, make: Callable[[], Key]) -> None:
    key = make()
    assert taken(made(key=key, alg=alg), key).name == f"ada ({ISSUER})"


def test_no_token_is_taken_without_a_signature_or_with_a_symmetric_one() -> None:
    claims = part(GOOD)
    for alg in ("none", "None", "NONE", ""):
        for tail in ("", "AA"):
            with pytest.raises(TokenRefused):
                taken(f"{part({'alg': alg, 'kid': 'k-1'})}.{claims}.{tail}")
    known = OctKey.import_key(json.dumps(KEY.as_dict(private=False)))
    for alg in ("HS256", "HS384", "HS512"):
        forged = jwt.encode({"alg": alg, "kid": "k-1"}, GOOD, known, algorithms=[alg])
        with pytest.raises(TokenRefused):
            taken(forged)


def test_other_algorithms_are_not_taken_though_the_key_could_do_them() -> None:
    rsa = RSAKey.generate_key(2048, {"kid": "k-1"})
    for alg in ("RS384", "RS512", "PS256", "PS512"):
        with pytest.raises(TokenRefused):
            taken(made(key=rsa, alg=alg), rsa)
    wide = ECKey.generate_key("P-384", {"kid": "k-1"})
    with pytest.raises(TokenRefused):
        taken(made(key=wide, alg="ES384"), wide)


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": KEY.as_dict(private=False)},
        {"jku": "https://attacker.example/keys"},
        {"x5u": "https://attacker.example/cert"},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"], "exp": 1},
        {"b64": False},
        {"kid": "../../../dev/null"},
        {"kid": "k-1' OR '1'='1"},
        {"kid": "x" * 10_000},
        {"kid": 1},
        {"kid": None},
    ],
)
def test_a_header_can_neither_bring_a_key_nor_choose_one_that_is_not_the_issuers(
    header: dict[str, Any],
) -> None:
    head = {"alg": "ES256", "kid": "k-1", **header}
    with pytest.raises(TokenRefused):
        taken(signed_raw(json.dumps(head).encode(), json.dumps(GOOD).encode()))


def test_a_key_of_somebody_else_under_the_same_name_signs_nothing() -> None:
    other = ECKey.generate_key("P-256", {"kid": "k-1"})
    with pytest.raises(TokenRefused):
        taken(made(key=other))


def test_without_a_keys_name_only_a_single_fitting_key_is_tried() -> None:
    token = signed_raw(b'{"alg":"ES256"}', json.dumps(GOOD).encode())
    assert taken(token).name == f"ada ({ISSUER})"
    with pytest.raises(TokenRefused):
        taken(token, KEY, ECKey.generate_key("P-256", {"kid": "k-2"}))


def test_two_keys_of_one_name_are_no_key() -> None:
    with pytest.raises(TokenRefused):
        taken(made(), KEY, ECKey.generate_key("P-256", {"kid": "k-1"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://login.example.com/"},
        {"iss": "https://LOGIN.example.com"},
        {"iss": [ISSUER]},
        {"iss": None},
        {"aud": "somebody-else"},
        {"aud": ["somebody-else"]},
        {"aud": []},
        {"aud": None},
        {"aud": {"ring0": 1}},
        {"aud": ["ring0", 1]},
        {"aud": ["ring0", "other"]},
        {"aud": ["ring0", "other"], "azp": "other"},
        {"azp": "other"},
        {"azp": ["ring0"]},
        {"nonce": "n-2"},
        {"nonce": None},
        {"nonce": ["n-1"]},
        {"nonce": ""},
        {"exp": NOW_S - 61},
        {"exp": None},
        {"exp": "1900000000"},
        {"exp": True},
        {"exp": -1},
        {"exp": 1e300},
        {"iat": NOW_S + 61},
        {"iat": NOW_S - 30 - 61},
        {"iat": None},
        {"nbf": NOW_S + 61},
        {"nbf": "soon"},
        {"sub": ""},
        {"sub": None},
        {"sub": 7},
        {"sub": "x" * 256},
        {"sub": "ada\n"},
        {"sub": " ada"},
        {"sub": "аda"},
        {"sub": "ada\x1b[2J"},
        {"groups": "admins"},
        {"groups": [1]},
        {"groups": [""]},
        {"groups": ["a\nb"]},
        {"groups": {"admins": True}},
        {"groups": ["g"] * (limits.LOGIN_GROUPS_MAX + 1)},
    ],
)
def test_a_token_that_is_not_for_this_login_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(TokenRefused) as caught:
        taken(made(changes))
    assert caught.value.why and caught.value.todo


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "exp", "iat", "nonce"])
def test_what_a_token_has_to_say_may_not_be_missing(name: str) -> None:
    with pytest.raises(TokenRefused):
        taken(made(without=(name,)))


def test_clocks_may_differ_by_a_minute_and_no_more() -> None:
    skew_s = limits.CLOCK_SKEW_S_MAX
    assert taken(made({"exp": NOW_S - skew_s + 1}))
    assert taken(made({"iat": NOW_S + skew_s}))
    with pytest.raises(TokenRefused):
        taken(made({"exp": NOW_S - skew_s}))


def test_several_audiences_are_taken_where_this_client_asked() -> None:
    assert taken(made({"aud": ["other", "ring0"], "azp": "ring0"}))


def test_another_audience_is_wanted_where_ring0_toml_names_one() -> None:
    from msgspec.structs import replace

    wanted = replace(WANTED, audience="https://ring0.example.com")
    assert taken(made({"aud": "https://ring0.example.com"}), expected=wanted)
    with pytest.raises(TokenRefused):
        taken(made(), expected=wanted)


def test_an_address_counts_only_where_the_issuer_has_verified_it() -> None:
    for verified in (False, "true", 1, None):
        said = {"email": "boss@example.com", "email_verified": verified}
        assert taken(made(said)).email == ""
    assert taken(made({"email": "boss@example.com"})).email == ""
    for odd in ("Boss@Example.com\n", "bоss@example.com", "x" * 300, 7):
        assert taken(made({"email": odd, "email_verified": True})).email == ""
    assert taken(made({"email": "Ada@Example.com", "email_verified": True})).email == (
        "ada@example.com"
    )


def test_groups_of_a_claim_that_ring0_toml_does_not_name_count_nothing() -> None:
    from msgspec.structs import replace

    token = made({"groups": ["admins"], "roles": ["admins"]})
    assert taken(token, expected=replace(WANTED, groups_claim="")).groups == ()
    assert taken(token, expected=replace(WANTED, groups_claim="roles")).groups == ("admins",)


def test_an_access_token_is_no_id_token() -> None:
    for kind in ("at+jwt", "logout+jwt", "application/at+jwt"):
        with pytest.raises(TokenRefused):
            taken(made(header={"typ": kind}))
    assert taken(made(header={"typ": "JWT"}))


def test_names_that_are_there_twice_are_refused_in_header_and_payload() -> None:
    payload = json.dumps(GOOD).encode()
    twice = payload.replace(b'"sub": "ada"', b'"sub": "bob", "sub": "ada"')
    assert twice != payload
    with pytest.raises(TokenRefused):
        taken(signed_raw(b'{"alg":"ES256","kid":"k-1"}', twice))
    with pytest.raises(TokenRefused):
        taken(signed_raw(b'{"alg":"none","alg":"ES256","kid":"k-1"}', payload))


@pytest.mark.parametrize(
    "payload", [b"", b"null", b"[]", b'"x"', b"{", b"\xff", b'{"exp":NaN}', b"[" * 5_000]
)
def test_a_payload_that_is_no_object_is_refused(payload: bytes) -> None:
    with pytest.raises(TokenRefused):
        taken(signed_raw(b'{"alg":"ES256","kid":"k-1"}', payload))


def test_one_token_has_one_spelling() -> None:
    token = made()
    assert taken(token)
    head, body, signature = token.split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    sibling = signature[:-1] + alphabet[alphabet.index(signature[-1]) ^ 1]  # The unused bits.
    for other in (f"{token}=", f"{token}\n", f" {token}", f"{head}.{body}.{signature}==",
                  f"{head}=.{body}.{signature}", f"{head}.{body}.{sibling}",
                  f"{token}.", f"{head}.{body}", f"{head}..{signature}", ""):  # fmt: skip
        with pytest.raises(TokenRefused):
            taken(other)


def test_a_token_beyond_the_bound_is_not_even_read() -> None:
    with pytest.raises(TokenRefused, match="token"):
        taken(made({"x": "x" * limits.JWS_SIZE_BYTES_MAX}))


def test_a_set_of_keys_is_bounded_and_what_does_not_fit_in_it_is_left_out() -> None:
    good = {**KEY.as_dict(private=False), "use": "sig"}
    odd: list[Any] = [
        {**good, "use": "enc"}, {**good, "key_ops": ["sign"]}, {**good, "alg": "ES384"},
        {**good, "crv": "P-384"}, {**good, "x": "AA"}, {**good, "x": None}, {**good, "kid": 7},
        {**good, "kty": "oct", "k": "AAAA"}, {**good, "kty": ["EC"]}, None, 7, "key", {},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "RSA", "n": 7, "e": 7},
        {**OKPKey.generate_key("X25519").as_dict(private=False)},
    ]  # fmt: skip
    assert len(public_keys(json.dumps({"keys": [*odd, good]}).encode())) == 1
    for bad in (b"", b"{}", b'{"keys":{}}', b'{"keys":"x"}', b"[]", b'{"keys":[],"keys":[]}',
                json.dumps({"keys": [good] * (limits.JWKS_KEYS_MAX + 1)}).encode(),
                b" " * (limits.JWKS_SIZE_BYTES_MAX + 1)):  # fmt: skip
        with pytest.raises(TokenRefused):
            public_keys(bad)


def test_a_private_key_that_an_issuer_published_by_mistake_is_kept_as_public_only() -> None:
    (key,) = public_keys(json.dumps({"keys": [KEY.as_dict(private=True)]}).encode())
    assert key.key.private_key is None
