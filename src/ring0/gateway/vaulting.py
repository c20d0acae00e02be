"""What an operator asks about secrets: take up what the vault holds now.

Values never go through this socket: they are written to the vault's own file. As operations.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ring0.kernel import keeping

if TYPE_CHECKING:
    from ring0.gateway.operations import Direct


class _Secrets(msgspec.Struct, forbid_unknown_fields=True):
    """The vault was changed."""

    async def do(self, to: Direct) -> Any:
        return await keeping.take_up(to.kernel, by=to.may("secrets").name)


VERBS: Final[dict[str, Any]] = {"secrets": _Secrets}
