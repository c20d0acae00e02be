"""Events of approvals: asked and answered, given in advance and revoked."""

from __future__ import annotations

from ring0.store.events.event import Event
from ring0.types import Approval, ApprovalState, Standing


class ApprovalAsked(Event, frozen=True, kw_only=True, tag="approval-asked"):
    approval: Approval


class ApprovalAnswered(Event, frozen=True, kw_only=True, tag="approval-answered"):
    """`approved` is one person's yes: it is approved when as many have said so as it needs."""

    approval: str
    state: ApprovalState
    by: str
    note: str = ""


class ApprovalEdited(Event, frozen=True, kw_only=True, tag="approval-edited"):
    """A person changed arguments and says yes to the call as it is then. It is judged anew."""

    approval: str
    by: str
    edits: str
    """Address of all that was changed so far (`types.Edit`s)."""
    note: str = ""


class ApprovalTold(Event, frozen=True, kw_only=True, tag="approval-told"):
    """A place of `[[notify]]` has taken the message that this ask waits."""

    approval: str
    to: str


class StandingGiven(Event, frozen=True, kw_only=True, tag="standing-given"):
    standing: Standing


class StandingRevoked(Event, frozen=True, kw_only=True, tag="standing-revoked"):
    standing: str
    by: str


ApprovalEvent = (
    ApprovalAsked
    | ApprovalAnswered
    | ApprovalEdited
    | ApprovalTold
    | StandingGiven
    | StandingRevoked
)
