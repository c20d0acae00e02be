"""What an operator asks of approvals beyond one yes or no, as verbs of the operator's socket.

Not here: the socket (control.py), the other verbs (operations.py), what an answer does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ring0.errors import InvalidInput
from ring0.types import Terms

if TYPE_CHECKING:
    from ring0.gateway.operations import Direct


class Answers(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One answer: to one ask, to several, or to all that are like one."""

    approvals: list[str]
    yes: bool
    note: str = ""
    like: bool = False
    edits: dict[str, str] = {}
    terms: Terms | None = None

    async def do(self, to: Direct) -> Any:
        by, answering = to.may("answers"), to.kernel.answering
        if not (self.edits or self.terms):
            return await answering.answer_all(
                self.approvals, yes=self.yes, by=by, note=self.note, like=self.like
            )
        if len(self.approvals) != 1 or self.like:
            raise InvalidInput(
                "Changes, and what a yes is to reach further to, are for one ask.",
                todo="Name one approval.",
            )
        answered = await answering.answer(
            self.approvals[0],
            yes=self.yes,
            by=by,
            note=self.note,
            edits=self.edits,
            terms=self.terms,
        )
        return [answered]


class Revoke(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A standing approval ends."""

    standing: str

    async def do(self, to: Direct) -> Any:
        return await to.kernel.waiting.standings.revoke(self.standing, to.may("revoke"))


VERBS: dict[str, Any] = {"answers": Answers, "revoke": Revoke}
