"""What ring0.toml has to fit beyond its form, before a kernel takes it up: held by every start, by
`ring0 reload` and by `ring0 doctor`, so that none of them takes what another refuses.

Nothing is kept or opened here. Not here: the form of the file (agent/manifests.py), the policies.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from ring0.errors import InvalidInput, ManifestInvalid
from ring0.guardrails.redact import Secrets
from ring0.identity import Vault, narrowing
from ring0.identity.vault import secret_name
from ring0.kernel import identities
from ring0.kernel.agent import chains, config_embeddings, config_telemetry, manifests
from ring0.kernel.agent.config_checkpoints import anchorages_of
from ring0.kernel.agent.config_identity import IdentityTable, listening_at
from ring0.kernel.agent.config_notify import places_of
from ring0.kernel.agent.manifests import Config
from ring0.kernel.calls.outside import Outside
from ring0.runtime import Runtime


def check(config: Config, environment: Mapping[str, str], vault: Vault, runtime: Runtime) -> None:
    """Raises ManifestInvalid, InvalidInput, StoreDamaged (of the vault)."""

    def secret(name: str) -> str:
        key = secret_name(name)
        return vault.value(key) or environment.get(key, "")

    manifests.caps_of(config)
    Secrets(manifests.secrets_of(config, environment, vault.values()))
    identities.check(config.identity)
    for name, model in config.models.items():
        _check_address(name, model.base_url)
        chains.fallbacks(name, model, config.models.get)
    # Made and thrown away: credentials, ranges and authorities are read here, not midway.
    outside = Outside(config, secret, runtime)
    if config.network.authorities:
        _ = outside.egress
    places_of(config.notify, secret)
    anchorages_of(config.checkpoints, vault.home, secret)
    config_telemetry.check(config.otlp, config.metrics, secret)
    config_embeddings.check(config.memory, secret)
    for table in config.principals.values():
        narrowing.for_task(table.only)


def listener(table: IdentityTable) -> socket.socket | None:
    """Bound to what `[identity] listen` names; None: it names nothing. Raises InvalidInput."""
    where = listening_at(table)
    if where is None:
        return None
    address, port = where
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((address, port))
    except OSError as error:
        found.close()
        raise InvalidInput(
            f"[identity] listen: {table.listen} can't be listened at: {error.strerror}.",
            todo="Name a port that is free.",
        ) from None
    return found


def check_free(table: IdentityTable) -> None:
    """That its port could be listened at now. Raises InvalidInput."""
    found = listener(table)
    if found is not None:
        found.close()


def _check_address(name: str, url: str) -> None:
    try:
        urlsplit(url).port  # noqa: B018  # it is parsed when it is asked for
    except ValueError as error:
        raise ManifestInvalid(
            f"ring0.toml: [models.{name[:60]}] base_url = {url[:200]!r} is no address.",
            why=f"{error}.",
            todo="Write it like `https://models.example.com/v1`.",
        ) from None
