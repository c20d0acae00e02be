"""Certificates of runs: what SPIFFE wants of them, for minutes, from an authority that changes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from ring0 import limits
from ring0.identity.certificates import Certificates, name_of
from ring0.identity.keys import KEY_FILE, Keys

DOMAIN = "agents.example.com"


class Here:
    def __init__(self, folder: Path) -> None:
        self.now_us = 1_800_000_000_000_000
        self.keys = Keys(folder)
        self.made = Certificates(self.keys, DOMAIN, lambda: self.now_us)

    def authorities(self) -> list[x509.Certificate]:
        found, rest = [], self.made.bundle()
        while rest:
            one = x509.load_der_x509_certificate(rest[: 4 + int.from_bytes(rest[2:4], "big")])
            found.append(one)
            rest = rest[len(one.public_bytes(serialization.Encoding.DER)) :]
        return found

    def check(self, leaf: x509.Certificate) -> None:
        """By the rules of the web, as any TLS server would. Raises VerificationError."""
        store = Store(self.authorities())
        now = datetime.fromtimestamp(self.now_us / 1e6, UTC)
        PolicyBuilder().store(store).time(now).build_client_verifier().verify(leaf, [])


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def leaf_of(here: Here, run: str = "r-1", agent: str = "clerk") -> x509.Certificate:
    return x509.load_der_x509_certificate(here.made.issue(run, agent).chain)


def test_a_certificate_is_as_spiffe_wants_it(here: Here) -> None:
    leaf = leaf_of(here)
    names = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert list(names) == [x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/run/r-1/agent/clerk")]
    basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert basic.critical and not basic.value.ca
    assert usage.critical and usage.value.digital_signature
    assert not usage.value.key_cert_sign and not usage.value.crl_sign
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"


def test_a_certificate_lives_for_minutes_and_is_verified_by_its_authority(here: Here) -> None:
    leaf = leaf_of(here)
    here.check(leaf)
    lives = leaf.not_valid_after_utc - datetime.fromtimestamp(here.now_us / 1e6, UTC)
    assert lives.total_seconds() <= 600
    here.now_us += (limits.CERTIFICATE_S + 1) * 1_000_000
    with pytest.raises(VerificationError):
        here.check(leaf)


def test_the_private_key_is_the_certificates_own(here: Here) -> None:
    made = here.made.issue("r-1", "clerk")
    private = serialization.load_der_private_key(made.private, None)
    leaf = x509.load_der_x509_certificate(made.chain)
    assert private.public_key() == leaf.public_key()  # type: ignore[union-attr]
    assert made.private.hex() not in repr(made) and "private" not in repr(made)


def test_an_agents_name_can_leave_no_place_in_the_path(here: Here) -> None:
    assert (
        name_of("d", "r-1", "../../run/r-2/agent/x")
        == "spiffe://d/run/r-1/agent/.._.._run_r-2_agent_x"
    )
    assert name_of("d", "r-1", "a b/é?#") == "spiffe://d/run/r-1/agent/a_b____"


def test_an_authority_signs_for_half_of_its_time_and_is_trusted_for_all_of_it(here: Here) -> None:
    old = leaf_of(here)
    (first,) = here.authorities()
    here.now_us += limits.AUTHORITY_S * 1_000_000 // 2
    new = leaf_of(here)
    assert len(here.authorities()) == 2 and new.issuer == old.issuer
    here.check(new)
    with pytest.raises(VerificationError):
        Store_of(first).verify(new, [])
    here.now_us += limits.AUTHORITY_S * 1_000_000 // 2 - 1_000_000
    leaf_of(here)
    here.now_us += 2_000_000
    assert first not in here.authorities()


def Store_of(one: x509.Certificate) -> object:
    return PolicyBuilder().store(Store([one])).build_client_verifier()


def test_no_certificate_outlives_what_signed_it(here: Here) -> None:
    here.made.issue("r-0", "x")
    here.now_us += limits.AUTHORITY_S * 1_000_000 // 2 - 1
    leaf = leaf_of(here)
    (authority,) = here.authorities()
    assert leaf.not_valid_after_utc < authority.not_valid_after_utc


def test_an_authority_is_kept_over_a_restart_and_another_domain_gets_another(
    here: Here, tmp_path: Path
) -> None:
    leaf = leaf_of(here)
    again = Here(tmp_path)
    again.check(leaf)
    again.made = Certificates(Keys(tmp_path), "other.example.com", lambda: again.now_us)
    again.made.issue("r-1", "x")
    with pytest.raises(VerificationError):
        again.check(leaf)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_an_authority_signs_no_other_authority(here: Here) -> None:
    here.made.issue("r-1", "x")
    (one,) = here.authorities()
    basic = one.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = one.extensions.get_extension_for_class(x509.KeyUsage)
    assert basic.critical and basic.value.ca and basic.value.path_length == 0
    assert usage.critical and usage.value.key_cert_sign and not usage.value.digital_signature
