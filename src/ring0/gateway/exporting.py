"""What an operator asks of telemetry: `export-otlp`. As entering.py, a struct for each verb.

Not here: what is sent, and how (kernel/telemetry/); numbers for Prometheus (metrics.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from ring0 import limits

if TYPE_CHECKING:
    from ring0.gateway.operations import Direct


class Otlp(msgspec.Struct, forbid_unknown_fields=True):
    """Sends runs, with all beneath them, to the place of `[otlp]`; there is no other."""

    runs: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=limits.OTLP_RUNS_MAX)]

    async def do(self, to: Direct) -> Any:
        from ring0.kernel.telemetry import making

        by = to.may("export-otlp").name
        return await making.export(to.kernel, self.runs, by=by)


VERBS: Final[dict[str, Any]] = {"export-otlp": Otlp}
