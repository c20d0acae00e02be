"""The keys and certificates of one sandbox's authority. Loaded only where a sandbox has egress."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ring0 import limits
from ring0.runtime import Runtime
from ring0.tools.egress.hosts import is_address

_SKEW: Final = timedelta(minutes=5)
"""Clocks differ."""


class Signer:
    """A key that signs certificates for some hosts and no others. Its `repr` shows no key."""

    def __init__(self, hosts: Iterable[str], runtime: Runtime) -> None:
        self._runtime = runtime
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ring0 sandbox egress")])
        self._certificate = self._make(hosts)

    def __repr__(self) -> str:
        return "Signer()"

    @property
    def certificate_pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def _make(self, hosts: Iterable[str]) -> x509.Certificate:
        permitted, excluded = _constraints(hosts)
        return (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.NameConstraints(permitted, excluded), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    def leaf(self, host: str) -> bytes:
        """The certificate and its key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        name: x509.GeneralName = (
            x509.IPAddress(ip_address(host)) if is_address(host) else x509.DNSName(host)
        )
        server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        leaf = (
            self._builder(x509.Name([]), key.public_key())
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(server, critical=False)
            .add_extension(authority, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return leaf.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.fromtimestamp(self._runtime.now_us() / 1_000_000, UTC)
        serial = int.from_bytes(self._runtime.random_bytes(19), "big") | 1
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + timedelta(seconds=limits.EGRESS_AUTHORITY_S_MAX))
        )


def _constraints(
    hosts: Iterable[str],
) -> tuple[list[x509.GeneralName] | None, list[x509.GeneralName]]:
    """The hosts of the rules, and no address or name but those."""
    names = sorted(set(hosts))
    permitted: list[x509.GeneralName] = [
        x509.IPAddress(ip_network(name)) if is_address(name) else x509.DNSName(name)
        for name in names
    ]
    excluded: list[x509.GeneralName] = [x509.IPAddress(ip_network("::/0"))]
    if not any(is_address(name) for name in names):
        excluded.append(x509.IPAddress(ip_network("0.0.0.0/0")))
    if all(is_address(name) for name in names):
        excluded.append(x509.DNSName(""))
    return permitted or None, excluded


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
