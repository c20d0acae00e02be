"""What a human's yes is bound to, and whether it still holds for the call that wants to use it.

Pure: the store keeps approvals, consumes them in one transaction and knows the time.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from ring0.errors import AnswerRefused, CallDenied
from ring0.types import (
    Approval,
    ApprovalState,
    Edit,
    Label,
    Operator,
    Role,
    Shown,
    Verdict,
    VerdictKind,
)

_DOMAIN: Final = b"ring0 approval 1"

_ASK_AGAIN: Final = "Make the call again: it is asked anew."

_NOT_APPROVED: Final = {
    ApprovalState.PENDING: ("nobody has answered it yet", "Wait for the answer."),
    ApprovalState.EDITED: ("a person changed it, and that is asked about anew", _ASK_AGAIN),
    ApprovalState.DENIED: ("a person said no", "Find another way, or explain it and ask anew."),
    ApprovalState.EXPIRED: ("nobody answered it in time", _ASK_AGAIN),
    ApprovalState.REVOKED: ("it was revoked by a kill or by the end of the run", ""),
    ApprovalState.CONSUMED: ("it was used already, and one yes is for one call", _ASK_AGAIN),
}


def bound_to(
    call_id: str,
    tool_digest: str,
    driver_bytes: bytes,
    label: Label,
    dry_run_digest: str,
    *,
    request_digest: str = "",
    verdict: Verdict | None = None,
) -> str:
    """SHA-256 (hex) over all that the human said yes to. `request_digest`: of what the agent asked
    for, its name too. `verdict`: which rules asked, and how many people.

    Every part goes in behind its length, so no two different tuples make the same bytes.
    """
    parts = [
        call_id.encode(),
        request_digest.encode(),
        tool_digest.encode(),
        _wanted(verdict),
        driver_bytes,
        label.integrity.encode(),
        label.confidentiality.encode(),
        dry_run_digest.encode(),
        *(source.encode() for source in label.sources),  # last: their number varies
    ]
    framed = [len(part).to_bytes(8, "big") + part for part in parts]
    whole = b"".join([_DOMAIN, len(parts).to_bytes(8, "big"), *framed])
    return hashlib.sha256(whole).hexdigest()


def _wanted(verdict: Verdict | None) -> bytes:
    """What rules want of people: other rules, or more people, want another yes."""
    if verdict is None or verdict.kind is not VerdictKind.ASK:
        return b""
    rules = sorted({reason.rule for reason in verdict.reasons})
    return msgspec.json.encode([verdict.approvers, rules])


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
            "it was given for something else: the call, the tool, the arguments, their labels, "
            "what the call would change or the rules that ask are not what the person saw",
            _ASK_AGAIN,
        )


def check_person(approval: Approval, principal: str, by: Operator, *, yes: bool) -> None:
    """Raises AnswerRefused where this person may not give that answer. `principal`: whom the run
    acts for. A no is good whoever says it: it lets nothing happen."""
    if Role.APPROVER not in by.roles:
        raise _not_by(approval, by, "has not the role `approver`", "Ask somebody who has it.")
    if yes:
        _check_yes(approval, principal, by.name, by.login)
        if by.name in approval.yes_by:
            todo = f"{approval.needs - len(approval.yes_by)} more have to say yes."
            raise _not_by(approval, by, "has said yes to it already, and counts once", todo)


def counts(approval: Approval, principal: str, edit: Edit, label_version: int) -> bool:
    """Whether who changed an argument of an earlier ask has thereby said yes to this one.

    Not where the run has read something less trusted since (`label_version`: the run's then): that
    person knew nothing of it.
    """
    if label_version != approval.label_version:
        return False
    try:
        _check_yes(approval, principal, edit.by, edit.login)
    except AnswerRefused:
        return False
    return True


def _check_yes(approval: Approval, principal: str, name: str, login: str) -> None:
    by = Operator(name=name)
    if approval.apart and name == principal:
        raise _not_by(
            approval,
            by,
            "is whom the run acts for, and the rule that asks wants somebody else",
            "Ask somebody else to answer it.",
        )
    if approval.needs > 1 and login != "oidc":
        raise _not_by(
            approval,
            by,
            f"has not logged in at an issuer, and {approval.needs} people have to say yes",
            "`ring0 login` first ([oidc] in ring0.toml says where): one uid may be several people,"
            " and one person may have several.",
        )


def unlike(one: Approval, its: Shown, other: Approval, others: Shown) -> str:
    """In what two asks differ that one answer is to be given to; empty: in nothing that counts."""
    if one.run != other.run:
        return "the run that asks"
    if (its.tool, one.tool_digest) != (others.tool, other.tool_digest):
        return "the tool"
    if max(one.needs, other.needs) > 1:
        return "that more than one person has to say yes"
    if (one.policy_digest, its.reasons) != (other.policy_digest, others.reasons):
        return "the rules that ask"
    if its.reversal != others.reversal:
        return "the way back"
    if its.run_label != others.run_label:
        return "what the run has read"
    for origin, its_like in zip(its.origins, others.origins, strict=False):
        if origin.argument != its_like.argument:
            return f"the arguments that choose a target ({origin.argument}, {its_like.argument})"
        if origin.integrity is not its_like.integrity:
            return f"the integrity of {origin.argument} ({origin.integrity}, {its_like.integrity})"
        if origin.sources != its_like.sources:
            return f"where {origin.argument} came from"
    if len(its.origins) != len(others.origins):
        return "how many arguments choose a target"
    return "" if its.edited == others.edited else "what people changed"


def edits_of(stored: bytes) -> tuple[Edit, ...]:
    """What people changed, as `Approval.edits` names it."""
    return msgspec.json.decode(stored, type=tuple[Edit, ...])


def _not_by(approval: Approval, by: Operator, why: str, todo: str) -> AnswerRefused:
    return AnswerRefused(
        f"{by.name} can't say that to {approval.id}.", why=f"{by.name} {why}.", todo=todo
    )


def _refused(approval: Approval, why: str, todo: str) -> CallDenied:
    return CallDenied(
        f"Approval {approval.id} does not cover this call: {why}.",
        why="An approval is for one call, exactly as it was shown.",
        todo=todo,
    )
