"""What an operator asks before an undo: what it would do. As entering.py, a struct for each verb.

Not here: `kill` and `undo` themselves (operations.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from ring0.gateway.operations import Direct


class Plan(msgspec.Struct, forbid_unknown_fields=True):
    run: str
    call: str = ""
    rehearse: bool = True
    """Look also whether rows and files have changed since."""

    async def do(self, to: Direct) -> Any:
        return await to.kernel.plan_undo(self.run, only=self.call, rehearse=self.rehearse)


VERBS: Final[dict[str, Any]] = {"undo-plan": Plan}
