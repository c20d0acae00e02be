"""An exporter out of a kernel's parts: of its journal, its way out and its ring0.toml."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ring0.errors import InvalidInput
from ring0.identity.fetching import trusting
from ring0.kernel.agent import config_telemetry
from ring0.kernel.agent.config_telemetry import Target
from ring0.kernel.telemetry import exporting
from ring0.kernel.telemetry.exporting import Exported, Exporting
from ring0.kernel.telemetry.sending import Sender, sender
from ring0.observability.telemetry.projecting import Projection

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel


def exporter(kernel: Kernel, say: Callable[[str], None]) -> Exporting | None:
    """What tells `[otlp]` all that this kernel's journal says; None: ring0.toml has no such
    table. `begin` it, `close` it."""
    if kernel.config.otlp is None:
        return None
    target, way, projection = _parts(kernel)
    return Exporting(kernel.home, kernel.store, kernel.runtime, target, way, projection, say)


async def export(kernel: Kernel, runs: Sequence[str], *, by: str) -> Exported:
    """Raises InvalidInput, NotFound, LimitReached, ToolFailed."""
    target, way, projection = _parts(kernel)
    return await exporting.export(
        kernel.store, kernel.runtime, target, way, projection, runs, by=by
    )


def _parts(kernel: Kernel) -> tuple[Target, Sender, Projection]:
    table = kernel.config.otlp
    if table is None:
        raise InvalidInput(
            "ring0.toml does not say where spans are sent.",
            todo='Add [otlp] with `endpoint = "https://otel.example.com/v1/traces"`; for one on'
            " this machine also `allow_private` of [network]. See docs/observability.md.",
        )
    target = config_telemetry.target(table, kernel.secret)
    trust = functools.partial(trusting, kernel.config.network.authorities)
    way = sender(target, lambda: kernel.outside.egress, trust, kernel.runtime)
    projection = Projection(kernel.store, kernel.config.models, content=table.content)
    return target, way, projection
