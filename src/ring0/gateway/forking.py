"""What an operator asks for to fork a run. Not here: what a fork is (kernel/life/forking.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from ring0.gateway.operations import Direct


class Fork(msgspec.Struct, forbid_unknown_fields=True):
    run: str
    at: int
    edits: dict[str, Any] = {}
    only: tuple[str, ...] | None = None

    async def do(self, to: Direct) -> Any:
        by = to.may("fork").name
        return await to.kernel.forking.fork(self.run, self.at, self.edits, by=by, only=self.only)


VERBS: Final[dict[str, Any]] = {"fork": Fork}
