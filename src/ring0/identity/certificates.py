"""Certificates of runs: X.509-SVIDs of minutes, from an authority of the data folder's own.

As SPIFFE wants them (X509-SVID): one URI in the name, P-256, no authority of their own. The
authority changes before its time is over, and is trusted on until the last of its certificates is.
Not here: how a run gets its own (gateway/workload.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ring0 import limits
from ring0.identity.keys import Held, Key, Keys

_NOT_IN_A_PATH: Final = re.compile(r"[^A-Za-z0-9._-]")
_DER: Final = serialization.Encoding.DER
_PLAIN: Final = serialization.NoEncryption()
_S: Final = 1_000_000


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """An X.509-SVID with its key. Its `repr` does not show the key."""

    name: str
    chain: bytes
    """DER, the certificate itself."""
    private: bytes
    """PKCS #8, DER."""
    serial: str
    expires_us: int

    def __repr__(self) -> str:
        return f"Certificate({self.name!r}, {self.serial})"


def name_of(domain: str, run: str, agent: str) -> str:
    """A run's SPIFFE id. What a path can't hold is `_`: the run alone says whose it is."""
    return f"spiffe://{domain}/run/{run}/agent/{_NOT_IN_A_PATH.sub('_', agent)}"


class Certificates:
    """The authority of one data folder. Its `repr` shows no key."""

    def __init__(self, keys: Keys, domain: str, now_us: Callable[[], int]) -> None:
        self._keys = keys
        self.domain = domain
        self._now_us = now_us
        self._authority: tuple[Key, ec.EllipticCurvePrivateKey, x509.Certificate] | None = None

    def issue(self, run: str, agent: str) -> Certificate:
        """A new one for a run. Raises StoreDamaged."""
        _, key, authority = self._newest()
        now_us = self._now_us()
        expires_us = now_us + limits.CERTIFICATE_S * _S
        name = name_of(self.domain, run, agent)
        own = ec.generate_private_key(ec.SECP256R1())
        serial = x509.random_serial_number()
        certificate = (
            _begun(serial, now_us, expires_us)
            .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ring0")]))
            .issuer_name(authority.subject)
            .public_key(own.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)]), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )
        return Certificate(
            name=name,
            chain=certificate.public_bytes(_DER),
            private=own.private_bytes(_DER, serialization.PrivateFormat.PKCS8, _PLAIN),
            serial=f"{serial:x}",
            expires_us=expires_us,
        )

    def bundle(self) -> bytes:
        """The authorities that are trusted now, DER after DER. Raises StoreDamaged."""
        self._newest()
        now_us = self._now_us()
        return b"".join(
            x509.load_pem_x509_certificate(one.certificate.encode()).public_bytes(_DER)
            for one in self._keys.held().authorities
            if one.name == self.domain and now_us < one.made_us + limits.AUTHORITY_S * _S
        )

    def _newest(self) -> tuple[Key, ec.EllipticCurvePrivateKey, x509.Certificate]:
        now_us = self._now_us()
        found = self._authority
        if found is None or _is_old(found[0], self.domain, now_us):
            held = self._keys.held()
            if not held.authorities or _is_old(held.authorities[-1], self.domain, now_us):
                held = self._keys.change(lambda now: _with_authority(now, self.domain, now_us))
            newest = held.authorities[-1]
            private = serialization.load_pem_private_key(newest.private.encode(), None)
            assert isinstance(private, ec.EllipticCurvePrivateKey)
            certificate = x509.load_pem_x509_certificate(newest.certificate.encode())
            found = self._authority = newest, private, certificate
        return found


def _is_old(key: Key, domain: str, now_us: int) -> bool:
    """Half of its time is over: another one takes its place, and this one is trusted on."""
    return key.name != domain or now_us >= key.made_us + limits.AUTHORITY_S * _S // 2


def _with_authority(held: Held, domain: str, now_us: int) -> Held:
    if held.authorities and not _is_old(held.authorities[-1], domain, now_us):
        return held
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ring0"),
            x509.NameAttribute(NameOID.COMMON_NAME, domain[:64]),
        ]
    )
    certificate = (
        _begun(x509.random_serial_number(), now_us, now_us + limits.AUTHORITY_S * _S)
        .subject_name(own)
        .issuer_name(own)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{domain}")]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    made = Key(
        private=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, _PLAIN
        ).decode(),
        made_us=now_us,
        name=domain,
        certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
    )
    return msgspec.structs.replace(held, authorities=(*held.authorities[-1:], made))


def _begun(serial: int, from_us: int, until_us: int) -> x509.CertificateBuilder:
    # A little before now: clocks differ.
    begins = datetime.fromtimestamp(from_us // _S - limits.CLOCK_SKEW_S, UTC)
    return (
        x509.CertificateBuilder()
        .serial_number(serial)
        .not_valid_before(begins)
        .not_valid_after(datetime.fromtimestamp(until_us // _S, UTC))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    """Of a run (it signs what it says), or of an authority (it signs certificates)."""
    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signs,
        crl_sign=not signs,
        encipher_only=False,
        decipher_only=False,
    )
