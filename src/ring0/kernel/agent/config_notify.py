"""[[notify]] of ring0.toml: who is told that a person is waited for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid, Ring0Error
from ring0.tools.egress.hosts import is_loopback
from ring0.tools.egress.request import split_url
from ring0.tools.egress.rules import Rule
from ring0.tools.egress.targets import canonical_target
from ring0.types import Frozen

SECRET = "secret://"  # noqa: S105


class NotifyTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place that is told of each ask."""

    url: str
    """Where a message is posted; `secret://NAME` where the address is a secret itself."""
    secret: str
    """The name of the secret in the vault that signs messages."""


def secrets_of(table: NotifyTable) -> tuple[str, ...]:
    """Names of the secrets that it names: kept in like every other."""
    if table.url.startswith(SECRET):
        return table.secret, table.url.removeprefix(SECRET)
    return (table.secret,)


class Place(Frozen, frozen=True, kw_only=True):
    """A place of `[[notify]]`, ready to be posted to."""

    name: str
    """As it is on record and shown: its host, and a digest of the rest, which may be a secret."""
    rule: Rule
    target: str
    secret: str

    def __repr__(self) -> str:
        return f"Place({self.name})"


def places_of(tables: Sequence[NotifyTable], secret: Callable[[str], str]) -> list[Place]:
    """Raises ManifestInvalid."""
    if len(tables) > limits.NOTIFY_PLACES_MAX:
        raise ManifestInvalid(
            f"ring0.toml has more than {limits.NOTIFY_PLACES_MAX} [[notify]].",
            todo="Let one of them tell the others.",
        )
    found = [_place(table, secret) for table in tables]
    names = [place.name for place in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ManifestInvalid(
            f"ring0.toml has two [[notify]] of {twice[0]}.", todo="Take one of them out."
        )
    return found


def _place(table: NotifyTable, secret: Callable[[str], str]) -> Place:
    for name in secrets_of(table):
        if not (name and secret(name)):
            raise ManifestInvalid(
                f"ring0.toml: [[notify]] names the secret {name[:60]!r}, which is not there.",
                why="Messages are signed, so that whoever gets one knows who has sent it.",
                todo=f"`ring0 secret set {name[:60] or 'NAME'}`, or take it out.",
            )
    url = table.url
    if url.startswith(SECRET):
        url = secret(url.removeprefix(SECRET))
    try:
        scheme, host, port, target = split_url(url)
        path, _ = canonical_target(target)
    except Ring0Error as error:
        why = "It is a secret, so it is not shown." if url != table.url else f"{error}"
        raise ManifestInvalid(
            "ring0.toml: [[notify]] has a url that is none.",
            why=why[:300],
            todo="Write it like https://hooks.example.com/ring0.",
        ) from None
    if scheme != "https" and not is_loopback(host):
        raise ManifestInvalid(
            f"ring0.toml: [[notify]] of {host} is no https.",
            why="What is told names tools and arguments: everybody on the way could read it.",
            todo="Use https; plain http only to 127.0.0.1.",
        )
    name = f"{host}#{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    rule = Rule(
        text=f"POST to {name}",
        methods=("POST",),
        scheme=scheme,
        host=host,
        port=port,
        path=path,
        beneath=False,
        own_auth=True,  # Its query and the signature go through as they are.
    )
    return Place(name=name, rule=rule, target=target, secret=table.secret)
