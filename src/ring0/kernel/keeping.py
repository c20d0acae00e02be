"""The secrets of a kernel at work: the vault as it is now, what is kept back, and logins.

A change of the vault is taken up while runs go on; an old value is kept back for a while longer.
Not here: how the vault lies on disk, who may use a secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ring0 import limits
from ring0.guardrails.redact import Secrets
from ring0.identity import Vault
from ring0.identity.vault import secret_name
from ring0.kernel.agent import manifests
from ring0.kernel.agent.manifests import Config
from ring0.kernel.logins import Logins
from ring0.runtime import Runtime
from ring0.store import Write, address
from ring0.store import events as ev
from ring0.store.base import WriteImpossible

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel

SETTING: Final = "secrets"
"""What the journal calls the vault's names and versions (`types.Setting`)."""
_OF_LOGINS: Final = "oauth/"


class Keeping:
    """One for a kernel. `secrets` is its redactor: the same object for as long as it lives."""

    def __init__(
        self, vault: Vault, config: Config, environment: Mapping[str, str], runtime: Runtime
    ) -> None:
        """Raises ManifestInvalid, InvalidInput, StoreDamaged."""
        self.vault = vault
        self._config = config
        self._environment = environment
        self._runtime = runtime
        self._current = dict(self._known())
        self._old: list[tuple[int, str, str]] = []
        """(until when, name, value) of what was taken out of the vault."""
        self.secrets = Secrets(self._current)
        logins = Logins(config, vault, environment, runtime)
        self.logins = logins.refreshing(self.took_up)

    def __repr__(self) -> str:
        return f"Keeping({self.vault!r})"

    def value(self, name: str) -> str:
        """Of the vault or the environment; empty where there is none, and where a change of the
        vault is not taken up yet: what is not kept back is not used."""
        name = secret_name(name)
        value = self.vault.value(name)
        if value:
            return value if self._current.get(name) == value else ""
        return self._environment.get(name, "")

    async def reload(self) -> list[str]:
        """Takes up what others have changed in the vault. Returns its names. Raises StoreDamaged,
        ManifestInvalid, InvalidInput; what was known is then still kept back."""
        await self._runtime.in_thread(self.vault.reload)
        self.took_up()
        return list(self.vault.names())

    def took_up(self) -> None:
        """The vault holds other values now: they are kept back from here on."""
        known = dict(self._known())
        if known == self._current:
            return
        now_us = self._runtime.now_us()
        old = [row for row in self._old if row[0] > now_us]
        for name, value in self._current.items():
            if known.get(name) != value:
                old.append((now_us + _kept_us(name), name, value))
        self._old = old[-limits.SECRETS_OLD_MAX :]
        self.secrets.replace(known, [(name, value) for _, name, value in self._old])
        self._current = known

    def _known(self) -> Mapping[str, str]:
        return manifests.secrets_of(self._config, self._environment, self.vault.values())


async def take_up(kernel: Kernel, *, by: str) -> list[str]:
    """Takes up what the vault holds now, and puts on record that it is another and who said so:
    names and versions. Returns the names. Raises what `Keeping.reload` raises."""
    names = await kernel.keeping.reload()
    text = "\n".join(_told(kernel.keeping.vault, name) for name in names).encode()
    now = hashlib.sha256(text).hexdigest()
    recorded = (await kernel.store.settings()).get(SETTING)
    before = recorded.value if recorded else ""
    if now != before:
        where = address(b"", text)
        change = ev.SettingChanged(name=SETTING, before=before, after=now, text=where, by=by)
        try:
            await kernel.store.append(
                Write(run=ev.KERNEL, durable=True, events=[change], blobs={where: text})
            )
        except WriteImpossible:
            pass  # Somebody else has put the same on record just now.
    return names


def _told(vault: Vault, name: str) -> str:
    """A login's tokens change by themselves: that they are there is all that is said of them."""
    entry = vault.entry(name)
    is_token = name.startswith(_OF_LOGINS)
    return name if is_token or entry is None else f"{name} {entry.version}"


def _kept_us(name: str) -> int:
    """A login's tokens change often, and an old one is soon of no use."""
    is_short = name.startswith(_OF_LOGINS)
    return (limits.TOKEN_OLD_S_MAX if is_short else limits.SECRET_OLD_S_MAX) * 1_000_000
