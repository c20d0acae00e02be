"""Which embedder a kernel uses: the one that ring0.toml names, else the best that is installed; and
the one before it, until all that is remembered has vectors of the new one.

Offline models run in sandboxes: no door, no network, nothing of the host but the interpreter and
their weights. What goes in and out is `memory/embedding`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.kernel.agent.config_embeddings import RecallTable, RemoteTable, model_of
from ring0.kernel.localmodels import LocalProcess
from ring0.kernel.memory.remoteembedder import RemoteEmbedder
from ring0.kernel.sandboxes import Sandboxes
from ring0.memory.embedding import server
from ring0.memory.embedding.base import Embedder
from ring0.memory.embedding.offline import OfflineEmbedder
from ring0.memory.embedding.offlinemodels import MODELS, OfflineModel
from ring0.models import OVER_HTTP
from ring0.runtime import Runtime
from ring0.tools.sandbox import Mount, SandboxLimits, SandboxSpec
from ring0.types import Confidentiality, Label

_PURPOSE: Final = "embedder"
_INSIDE: Final = "/opt/embedder"
"""Where its files lie inside, wherever they are outside."""


class Embedders:
    """Those of one kernel. `close` it before its sandboxes."""

    def __init__(
        self,
        table: RecallTable,
        sandboxes: Sandboxes,
        runtime: Runtime,
        secret: Callable[[str], str],
    ) -> None:
        """Raises ManifestInvalid."""
        self._sandboxes = sandboxes
        self._runtime = runtime
        self._made: dict[str, Embedder] = {}
        self.wanted: Embedder | None = self._wanted(table, secret)
        """What ring0.toml asks for; None: what is recalled is found by its words alone."""
        self.serving: Embedder | None = self.wanted
        """Whose vectors recall compares now (indexing.py says which)."""
        self.told: str = _told(table, self.wanted)
        """For people: what is used, and how there would be more."""

    def for_label(self, label: Label) -> Embedder | None:
        """The one that a query of this label may be shown to."""
        away = isinstance(self.serving, RemoteEmbedder)
        public = label.confidentiality is Confidentiality.PUBLIC
        return None if away and not public else self.serving

    def sends_away(self) -> bool:
        """Whether what is embedded leaves this machine."""
        return isinstance(self.wanted, RemoteEmbedder)

    def named(self, name: str) -> Embedder | None:
        """Who made the vectors of that name, where it can still be asked."""
        if name not in self._made:
            for model in MODELS.values():
                if model.identity == name and model.files():
                    self._made[name] = OfflineEmbedder(model, self._start, self._runtime)
        return self._made.get(name)

    async def close(self) -> None:
        for embedder in self._made.values():
            await embedder.close()

    def _wanted(self, table: RecallTable, secret: Callable[[str], str]) -> Embedder | None:
        said = table.embeddings
        if isinstance(said, RemoteTable):
            remote = RemoteEmbedder(
                said, secret(said.key or OVER_HTTP[said.provider].key), self._runtime
            )
            self._made[remote.name] = remote
            return remote
        model = model_of(table)
        return None if model is None else self.named(model.identity)

    async def _start(self, model: OfflineModel) -> LocalProcess:
        """A `memory.embedding.Start`. Raises SandboxUnavailable, SandboxFailed."""
        files = model.files()
        if files is None:
            raise ManifestInvalid(
                f"The embedder {model.name} is not installed any more.",
                todo=f"Install ring0's extra `{model.extra}`.",
            )
        return LocalProcess(
            await self._sandboxes.start("kernel", spec(model, *files), _PURPOSE),
            self._sandboxes,
            self._runtime,
        )


def spec(model: OfflineModel, weights: Path, tokens: Path) -> SandboxSpec:
    """The sandbox of its process."""
    inside = [f"{_INSIDE}/weights{weights.suffix}", f"{_INSIDE}/tokens{tokens.suffix}"]
    return SandboxSpec(
        argv=(
            sys.executable, "-P", os.path.realpath(server.__file__), model.name,
            inside[0], model.weights_sha256, inside[1], model.tokens_sha256,
            str(model.tokens_max),
        ),
        env=dict(_ENVIRONMENT),
        mounts=(
            Mount(os.path.realpath(weights), inside[0]),
            Mount(os.path.realpath(tokens), inside[1]),
        ),
        limits=SandboxLimits(
            memory_bytes=limits.EMBEDDER_MEMORY_BYTES, processes=limits.EMBEDDER_THREADS_MAX
        ),
    )  # fmt: skip


_ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Its work is small: more threads than one wait for each other.
    "TOKENIZERS_PARALLELISM": "false",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


def _told(table: RecallTable, wanted: Embedder | None) -> str:
    if isinstance(table.embeddings, RemoteTable):
        return (
            f"{table.embeddings.model[:60]} of {table.embeddings.provider}: what is remembered"
            " and public is sent there"
        )
    if wanted is None and not table.embeddings:
        return (
            "none: what is recalled is found by its words; ring0's extra `embeddings` finds it by"
            " its meaning, too"
        )
    return "none" if wanted is None else wanted.name
