"""What an operator does about room: `archive`, `unarchive`, `vacuum`, `quota`, `backup`. As
operations.py.

Not here: `restore`, which takes a folder that no kernel has (kernel/operating/restoring.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from ring0 import limits
from ring0.kernel.operating import backing, storing

if TYPE_CHECKING:
    from ring0.gateway.operations import Direct

_Runs = Annotated[list[str], msgspec.Meta(max_length=limits.ARCHIVED_AT_ONCE_MAX)]
_Age = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Archive(msgspec.Struct, forbid_unknown_fields=True):
    runs: _Runs
    """Of none: all that ended so long ago."""
    older_us: _Age = 0

    async def do(self, to: Direct) -> Any:
        by = to.may("archive").name
        return await storing.archive(to.kernel, self.runs, self.older_us, by=by)


class Unarchive(msgspec.Struct, forbid_unknown_fields=True):
    run: str

    async def do(self, to: Direct) -> Any:
        return await storing.unarchive(to.kernel, self.run, by=to.may("unarchive").name)


class Vacuum(msgspec.Struct, forbid_unknown_fields=True):
    async def do(self, to: Direct) -> Any:
        return await storing.give_back(to.kernel, by=to.may("vacuum").name)


class Quota(msgspec.Struct, forbid_unknown_fields=True):
    tenant: str
    stored_bytes: int

    async def do(self, to: Direct) -> Any:
        by = to.may("quota").name
        return await storing.quota(to.kernel, self.tenant, self.stored_bytes, by=by)


class Backup(msgspec.Struct, forbid_unknown_fields=True):
    folder: str
    keys: bool = False

    async def do(self, to: Direct) -> Any:
        by = to.may("backup").name
        return await backing.back_up(to.kernel, Path(self.folder), keys=self.keys, by=by)


VERBS: Final[dict[str, Any]] = {
    "archive": Archive,
    "unarchive": Unarchive,
    "vacuum": Vacuum,
    "quota": Quota,
    "backup": Backup,
}
