"""What people were shown and what they said, and whether that is a yes to what is being done: the
judge beside `approvals_machine.py`, which knows nothing of the kernel's own decisions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from kernel_world import World

from ring0 import limits
from ring0.types import Approval, Label, Operator, Role, Shown, Terms

NEEDS = {"pay": (1, False), "payelse": (1, True), "pay2": (2, True)}
"""By tool: how many people, and whether the one that the run acts for counts not."""
SILENT = frozenset({"pay"})
"""Tools that have no dry run: what they would do is what their arguments say."""


@dataclass
class Said:
    """One person's word, as the machine heard it."""

    by: Operator
    approval: Approval
    shown: Shown
    yes: bool
    sure: bool
    """The kernel took it; else it crashed on the way, and may have taken it or not."""
    edits: dict[str, Any] = field(default_factory=dict)
    terms: Terms | None = None


@dataclass
class Moment:
    """A call, when it was admitted."""

    label: Label
    now_us: int


class Oracle:
    """Hears what is said, and is told what is done."""

    def __init__(self, w: World, now_us: Any) -> None:
        self.w = w
        self._now_us = now_us
        self.prepared: dict[str, str] = {}
        """By call: what the world was like when it was judged last."""
        self.moments: dict[str, Moment] = {}
        self.said: list[Said] = []
        self.revoked: set[str] = set()
        self.done: Counter[str] = Counter()
        self.violations: list[str] = []
        self.covered: Counter[str] = Counter()

    def admitted(self, call: str) -> None:
        self.moments[call] = Moment(self.w.run.row.label, self._now_us())

    def executed(self, tool: str, call: str, args: dict[str, Any]) -> None:
        """Whether anybody may have said yes to what is just being done."""
        self.done[call] += 1
        self.covered["executed"] += 1
        what = f"{call} {tool} {args}"
        if self.done[call] > 1:
            self.violations.append(f"{what}: done {self.done[call]} times")
        needs, apart = NEEDS[tool]
        moment, now_is = self.moments[call], self.prepared[call]
        yes: set[str] = set()
        for said in self.said:
            fits = said.yes and self._fits(said, tool, call, args, moment, now_is)
            if fits and self._may(said.by, needs, apart):
                yes.add(said.by.name)
        if len(yes) >= needs:
            self.covered[f"executed after {needs}"] += 1
            return
        if needs == 1 and self._in_advance(tool, args, moment, apart):
            self.covered["executed in advance"] += 1
            return
        self.violations.append(f"{what}: of {needs} people, {sorted(yes)} have said yes to it")

    def _fits(
        self, said: Said, tool: str, call: str, args: Any, moment: Moment, now_is: str
    ) -> bool:
        """They were asked about this very call, and it is as they saw it (or made it)."""
        approval, shown = said.approval, said.shown
        if approval.call != call or shown.tool != tool or shown.run_label != moment.label:
            return False
        if said.edits:
            # Who changes it answers for the call as it is then, whatever else the world does; but
            # where it tells more of itself than that, they have not seen it yet.
            return tool in SILENT and {**shown.arguments, **said.edits} == args
        if moment.now_us >= approval.expires_us:
            return False
        return shown.arguments == args and shown.title == f"the world is {now_is}"

    @staticmethod
    def _may(by: Operator, needs: int, apart: bool) -> bool:
        if Role.APPROVER not in by.roles or (apart and by.name == "alice"):
            return False
        return needs == 1 or by.login == "oidc"

    def _in_advance(self, tool: str, args: Any, moment: Moment, apart: bool) -> bool:
        return any(
            said.terms is not None
            and said.shown.tool == tool
            and said.shown.run_label == moment.label
            and {**said.shown.arguments, "amount": 0} == {**args, "amount": 0}
            and self._may(said.by, 1, apart)
            and not (said.terms.until_s and moment.now_us > self._ends_us(said))
            for said in self.said
        ) and not (self.revoked and self._all_revoked(tool, args))

    def _ends_us(self, said: Said) -> int:
        assert said.terms is not None
        return said.approval.asked_us + (said.terms.until_s + limits.APPROVAL_EXPIRY_S) * 1_000_000

    def _all_revoked(self, tool: str, args: Any) -> bool:
        """None was given since the last revocation."""
        known = self.w.kernel.waiting.standings._known.get(("local", tool), {})
        return not known
