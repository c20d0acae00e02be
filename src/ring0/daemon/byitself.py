"""What a daemon starts by itself, while its kernel is at work: crons that are due, deliveries.

Not here: when and how (kernel/life/firing.py, gateway/hooks.py).
"""

from __future__ import annotations

from collections.abc import Callable

from ring0.daemon.channel import Options
from ring0.gateway import hooks
from ring0.gateway.hooks import Hooks
from ring0.kernel.kernel import Kernel
from ring0.kernel.life.firing import Firing
from ring0.types import ENDED, Run


class ByItself:
    """The crons and hooks of one kernel. `bind` it, `begin` it, `end` it."""

    def __init__(self, kernel: Kernel, options: Options, say: Callable[[str, str], None]) -> None:
        self._options = options
        self._say = say
        self._firing = Firing(kernel.orders, kernel.store, kernel.runtime, say)
        self._hooks = Hooks(kernel, options.hooks_hosts, say) if options.hooks else None

    def bind(self) -> None:
        """Takes the address for deliveries; they wait. Raises InvalidInput."""
        if self._hooks is not None:
            self._hooks.bind(*hooks.place(self._options.hooks))

    async def begin(self) -> None:
        """After a crash's runs have gone on: moments that have come, deliveries that wait."""
        self._firing.begin()
        if self._hooks is not None:
            await self._hooks.open()
            self._say(f"takes deliveries at {self._hooks.address}", "")

    def seen(self, row: Run) -> None:
        """A run has begun or ended: a cron may wait for its end."""
        if row.state in ENDED:
            self._firing.poke()

    async def end(self) -> None:
        """Starts nothing more."""
        await self._firing.close()
        if self._hooks is not None:
            self._hooks.is_ending = True

    async def close(self) -> None:
        await self._firing.close()
        if self._hooks is not None:
            await self._hooks.close()
