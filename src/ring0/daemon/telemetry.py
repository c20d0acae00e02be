"""What a daemon tells others by itself: spans to `[otlp]`, numbers to who asks at `[metrics]`, and
that its journal was changed."""

from __future__ import annotations

from collections.abc import Callable

from ring0.gateway.metrics import MetricsDoor
from ring0.kernel.kernel import Kernel
from ring0.kernel.telemetry import making
from ring0.kernel.telemetry.measuring import Measures
from ring0.kernel.telemetry.watching import Watching


class Telemetry:
    """Of one kernel. `bind` it, `begin` it, `close` it."""

    def __init__(self, kernel: Kernel, measures: Measures, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._exporting = making.exporter(kernel, lambda what: say(what, ""))
        self._door = MetricsDoor(kernel, measures) if kernel.config.metrics else None
        measures.exporting = self._exporting
        self._watching = measures.watching = Watching(kernel, say)

    def bind(self) -> None:
        """Raises InvalidInput."""
        if self._door is not None:
            self._door.bind()

    async def begin(self) -> None:
        if self._door is not None:
            await self._door.open()
            self._say(f"answers Prometheus at http://{self._door.address}/metrics", "")
        if self._exporting is not None:
            self._exporting.begin()
            self._say(f"sends spans to {self._exporting.name}", "")
        self._watching.begin()

    async def close(self) -> None:
        await self._watching.close()
        if self._exporting is not None:
            await self._exporting.close()
        if self._door is not None:
            await self._door.close()
