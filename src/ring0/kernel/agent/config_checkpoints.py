"""[[checkpoints]] of ring0.toml: where signed checkpoints of the journal go, off this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid, Ring0Error
from ring0.kernel.agent.config_notify import SECRET
from ring0.observability.proof.notes import COSIGNATURE, Key, NoteWrong, read_key
from ring0.tools.egress.hosts import is_loopback
from ring0.tools.egress.request import split_url
from ring0.tools.egress.rules import Rule
from ring0.tools.egress.targets import canonical_target
from ring0.types import Frozen


class CheckpointTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place that gets them: a file, an address, or a witness."""

    file: str = ""
    """Each is added at its end: a mounted folder, a file that only grows (`chattr +a`)."""
    url: str = ""
    """Each is posted there, signed with `secret`; `secret://NAME` where the address is one."""
    secret: str = ""
    witness: str = ""
    """The submission prefix of a C2SP witness, which signs what it has seen to be consistent."""
    key: str = ""
    """The witness's key, NAME+ID+BASE64."""


class Anchorage(Frozen, frozen=True, kw_only=True):
    """A place of `[[checkpoints]]`, ready to be written or posted to."""

    name: str
    file: str = ""
    rule: Rule | None = None
    target: str = ""
    secret: str = ""
    witness: Key | None = None

    def __repr__(self) -> str:
        return f"Anchorage({self.name})"


def secrets_of(table: CheckpointTable) -> tuple[str, ...]:
    """Names of the secrets that it names."""
    hidden = table.url.removeprefix(SECRET) if table.url.startswith(SECRET) else ""
    return tuple(filter(None, (table.secret, hidden)))


def anchorages_of(
    tables: Sequence[CheckpointTable], home: Path, secret: Callable[[str], str]
) -> list[Anchorage]:
    """Raises ManifestInvalid."""
    if len(tables) > limits.CHECKPOINT_PLACES_MAX:
        raise _bad(f"there are more than {limits.CHECKPOINT_PLACES_MAX}", "Take some out.")
    found = [_anchorage(table, home, secret) for table in tables]
    if len({one.name for one in found}) < len(found):
        raise _bad("two of them are one place", "Take one of them out.")
    return found


def _anchorage(table: CheckpointTable, home: Path, secret: Callable[[str], str]) -> Anchorage:
    if sum(map(bool, (table.file, table.url, table.witness))) != 1:
        raise _bad("one is a file, a url or a witness", "Write one of the three.")
    if bool(table.secret) != bool(table.url) or bool(table.key) != bool(table.witness):
        raise _bad("a url has a secret, a witness a key, and a file neither", "See the page.")
    if table.file:
        path = home / table.file
        return Anchorage(name=f"file {path}", file=str(path))
    if table.url:
        return _posted(table, secret)
    try:
        key = read_key(table.key)
    except NoteWrong as error:
        raise _bad(f"the witness has no key: {error.what}", error.todo) from None
    if key.kind != COSIGNATURE:
        raise _bad("the witness's key is none of a witness", "Its type is 4.")
    name, rule, target = _place(table.witness.rstrip("/") + "/add-checkpoint")
    return Anchorage(name=f"witness {name}", rule=rule, target=target, witness=key)


def _posted(table: CheckpointTable, secret: Callable[[str], str]) -> Anchorage:
    for name in secrets_of(table):
        if not secret(name):
            raise _bad(f"the secret {name[:60]!r} is not there", f"`ring0 secret set {name[:60]}`.")
    url = table.url
    if url.startswith(SECRET):
        url = secret(url.removeprefix(SECRET))
    name, rule, target = _place(url)
    return Anchorage(name=name, rule=rule, target=target, secret=table.secret)


def _place(url: str) -> tuple[str, Rule, str]:
    try:
        scheme, host, port, target = split_url(url)
        path, _ = canonical_target(target)
    except Ring0Error:
        raise _bad("an address is none", "Write it like https://example.com/ring0.") from None
    if scheme != "https" and not is_loopback(host):
        raise _bad(f"{host} is no https", "Use https; plain http only to 127.0.0.1.")
    name = f"{host}#{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    rule = Rule(
        text=f"POST to {name}",
        methods=("POST",),
        scheme=scheme,
        host=host,
        port=port,
        path=path,
        beneath=False,
        own_auth=True,  # The signature goes through as it is.
    )
    return name, rule, target


def _bad(why: str, todo: str) -> ManifestInvalid:
    return ManifestInvalid(
        "ring0.toml: [[checkpoints]] can't be used.", why=f"{why[0].upper()}{why[1:]}.", todo=todo
    )
