"""What a human's yes is bound to, and whether it still holds for the call that wants to use it.

Pure: the store keeps approvals, consumes them in one transaction and knows the time.
"""

from __future__ import annotations

import hashlib
from typing import Final

from ring0.errors import CallDenied
from ring0.types import Approval, ApprovalState, Label

_DOMAIN: Final = b"ring0 approval 1"

_ASK_AGAIN: Final = "Make the call again: it is asked anew."

_NOT_APPROVED: Final = {
    ApprovalState.PENDING: ("nobody has answered it yet", "Wait for the answer."),
    ApprovalState.DENIED: ("a person said no", "Find another way, or explain it and ask anew."),
    ApprovalState.EXPIRED: ("nobody answered it in time", _ASK_AGAIN),
    ApprovalState.REVOKED: ("it was revoked by a kill or by the end of the run", ""),
    ApprovalState.CONSUMED: ("it was used already, and one yes is for one call", _ASK_AGAIN),
}


def bound_to(
    call_id: str, tool_digest: str, driver_bytes: bytes, label: Label, dry_run_digest: str
) -> str:
    """SHA-256 (hex) over all that the human said yes to.

    Every part goes in behind its length, so no two different tuples make the same bytes.
    """
    parts = [
        call_id.encode(),
        tool_digest.encode(),
        driver_bytes,
        label.integrity.encode(),
        label.confidentiality.encode(),
        dry_run_digest.encode(),
        *(source.encode() for source in label.sources),  # last: their number varies
    ]
    framed = [len(part).to_bytes(8, "big") + part for part in parts]
    whole = b"".join([_DOMAIN, len(parts).to_bytes(8, "big"), *framed])
    return hashlib.sha256(whole).hexdigest()


def check(approval: Approval, bound: str, now_us: int) -> None:
    """Raises CallDenied unless `approval` is a yes to exactly `bound` that still holds at `now_us`.

    Expiry counts from the deadline itself, also for a yes that was given before it.
    """
    if approval.state is not ApprovalState.APPROVED:
        why, todo = _NOT_APPROVED.get(approval.state, ("its state is unknown", _ASK_AGAIN))
        raise CallDenied(
            f"The call is not approved: {why}.",
            why=f"It was held until a person answers (approval {approval.id}).",
            todo=todo,
        )
    if now_us >= approval.expires_us:
        raise _refused(approval, "it has expired since it was given", _ASK_AGAIN)
    if not bound or approval.bound_to != bound:
        raise _refused(
            approval,
            "it was given for something else: the call, the tool, the arguments, their labels or "
            "what the call would change are not what the person saw",
            _ASK_AGAIN,
        )


def _refused(approval: Approval, why: str, todo: str) -> CallDenied:
    return CallDenied(
        f"Approval {approval.id} does not cover this call: {why}.",
        why="An approval is for one call, exactly as it was shown.",
        todo=todo,
    )
