"""What an operator does about a source: `quarantine`, and a look at what came of it.

Not here: the socket (control.py), how it is found and revoked (kernel/lineage/).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ring0.kernel.lineage import acting

if TYPE_CHECKING:
    from ring0.gateway.operations import Direct


class Quarantine(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    kill: bool = False
    note: str = ""

    async def do(self, to: Direct) -> Any:
        by = to.may("quarantine").name
        return await acting.quarantine(
            to.kernel, self.source, by=by, kill=self.kill, note=self.note
        )


class Lift(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    note: str = ""

    async def do(self, to: Direct) -> Any:
        by = to.may("quarantine-lift").name
        return await acting.lift(to.kernel, self.source, by=by, note=self.note)


VERBS: Final[dict[str, Any]] = {"quarantine": Quarantine, "quarantine-lift": Lift}
