"""What an operator does about the proof: a checkpoint now, another key, values erased.

Not here: the socket (control.py), how each is done (kernel/anchoring.py, operating/erasing.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from ring0 import limits
from ring0.errors import StoreFailed
from ring0.kernel.operating import erasing

if TYPE_CHECKING:
    from ring0.gateway.operations import Direct


class Checkpoint(msgspec.Struct, forbid_unknown_fields=True):
    async def do(self, to: Direct) -> Any:
        to.may("checkpoint")
        anchoring = to.kernel.anchoring
        anchoring.begin()
        try:
            return await anchoring.anchor()
        except OSError as error:
            raise StoreFailed(
                "The checkpoint could not be written.",
                why=f"{error.filename}: {error.strerror}.",
                todo="Make room, or mend the folder's rights, and ask again.",
            ) from error


class Rotate(msgspec.Struct, forbid_unknown_fields=True):
    async def do(self, to: Direct) -> Any:
        by = to.may("signer-rotate").name
        anchoring = to.kernel.anchoring
        anchoring.begin()
        return await anchoring.rotate(by)


class Erase(msgspec.Struct, forbid_unknown_fields=True):
    runs: Annotated[list[str], msgspec.Meta(min_length=1, max_length=limits.ERASED_AT_ONCE_MAX)]
    note: str = ""

    async def do(self, to: Direct) -> Any:
        by = to.may("erase").name
        return await erasing.erase(to.kernel, self.runs, by=by, note=self.note)


VERBS: Final[dict[str, Any]] = {
    "checkpoint": Checkpoint,
    "erase": Erase,
    "signer-rotate": Rotate,
}
