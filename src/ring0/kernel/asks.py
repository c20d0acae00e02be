"""Which of the approvals of a call counts. Not here: asking, and answering (steps/)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ring0.types import Approval, ApprovalState

_RANKS: Final = {
    ApprovalState.REVOKED: 0,
    ApprovalState.EDITED: 1,
    ApprovalState.DENIED: 2,
    ApprovalState.EXPIRED: 2,
}
_RANK_LAST: Final = 3


def newest(approvals: Iterable[Approval]) -> dict[str, Approval]:
    """The one that counts of each call's. An ask that is asked anew keeps the time of the first,
    but all before the last were revoked, or asked about what people have changed since."""
    ranked = sorted(
        approvals,
        key=lambda one: (one.edition, _RANKS.get(one.state, _RANK_LAST), one.expires_us),
    )
    return {approval.call: approval for approval in ranked}
