"""Who runs are to others: the keys of the data folder, and what is signed with them for a run.

Nothing is read or made before it is asked for. Not here: tokens (life/granting.py), the doors.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ring0 import limits
from ring0.errors import ManifestInvalid, RunDead
from ring0.identity.certificates import Certificate, Certificates, name_of
from ring0.identity.jwts import Actor, Jwts
from ring0.identity.keys import Keys
from ring0.kernel.agent.config_identity import IdentityTable
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.store import GuardFailed, Store, Write, base
from ring0.store import events as ev
from ring0.types import Run

DOOR: Final = "unix:///run/ring0/door.sock"
"""Where a run finds the SPIFFE Workload API: on its own door."""
_NEEDED: Final = ("grpclib", "google.protobuf")


def check(table: IdentityTable) -> None:
    """Raises ManifestInvalid where ring0.toml asks for what is not installed."""
    if table.spiffe and not all(map(_is_installed, _NEEDED)):
        raise ManifestInvalid(
            "ring0.toml asks for certificates ([identity] spiffe), and what serves them is not"
            " installed.",
            why="The SPIFFE Workload API speaks gRPC.",
            todo="Install its extra `spiffe`"
            " (in a checkout: `.venv/bin/pip install -e '.[spiffe]'`).",
        )


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # Not even the package that it would be in.
        return False


class Identities:
    """The identities of one kernel's runs."""

    def __init__(
        self,
        home: Path,
        table: IdentityTable,
        store: Store,
        runtime: Runtime,
        live: Mapping[str, LiveRun],
    ) -> None:
        """Raises ManifestInvalid."""
        check(table)
        self.keys = Keys(home)
        self.spiffe = table.spiffe
        self.domain = table.trust_domain
        self._store = store
        self._runtime = runtime
        self._live = live
        now_us = self._now_us
        self.certificates = Certificates(self.keys, self.domain, now_us)
        self.jwts = Jwts(self.keys, f"spiffe://{self.domain}", now_us, runtime.random_bytes)
        self._of_runs: dict[str, Certificate] = {}

    def _now_us(self) -> int:
        return self._store.now_us()

    @property
    def environment(self) -> dict[str, str]:
        """What an agent's process is told of its identity."""
        return {"SPIFFE_ENDPOINT_SOCKET": DOOR} if self.spiffe else {}

    def name_of(self, row: Run) -> str:
        """A run's SPIFFE id."""
        return name_of(self.domain, row.id, row.agent)

    async def certificate(self, run: LiveRun) -> Certificate:
        """The one that the run has; a new one where half of its time is over. On record as issued.
        Raises RunDead, StoreDamaged."""
        half_us = limits.CERTIFICATE_S * 1_000_000 // 2
        has = self._of_runs.get(run.id)
        if has is not None and has.expires_us - self._now_us() > half_us:
            return has
        made = await self._runtime.in_thread(self.certificates.issue, run.id, run.row.agent)
        event = ev.CertificateIssued(name=made.name, serial=made.serial, expires_us=made.expires_us)
        guards: list[base.Guard] = [
            base.RunLive(run=run.id, epoch=run.row.epoch),
            base.NotKilled(run=run.id),
        ]
        try:
            await self._store.append(Write(run=run.id, events=[event], guards=guards))
        except GuardFailed as failure:
            raise RunDead(f"{run.id} is nobody any more.", why=failure.detail, todo="") from None
        if self._live.get(run.id) is not run:
            raise RunDead(f"{run.id} is nobody any more.", todo="Start a new run.")
        if run.id not in self._of_runs:
            run.leaving.append(lambda: self._forget(run.id))
        self._of_runs[run.id] = made
        return made

    async def _forget(self, run: str) -> None:
        self._of_runs.pop(run, None)

    async def edge_jwt(self, row: Run, audience: str, details: dict[str, Any]) -> str:
        """In whose name one request of a run is made, for the server that it goes to. Raises
        RunDead, StoreDamaged."""
        if row.id not in self._live:
            raise RunDead(f"{row.id} is nobody any more.", todo="Start a new run.")
        has = self._of_runs.get(row.id)
        return self.jwts.edge(
            audience,
            principal=row.principal,
            actor=await self._actor(row),
            details=details,
            certificate=has.chain if has else b"",
        )

    async def _actor(self, row: Run) -> Actor:
        above = await self._store.run(row.parent) if row.parent else None
        return Actor(name=self.name_of(row), above=await self._actor(above) if above else None)
