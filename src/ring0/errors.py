"""Every error that a user can meet: what happened, why, and what to do about it.

`whose` says who can mend it: `yours` (the call or the file you gave), `ours` (a fault of ring0) or
`world` (this machine, a provider, the disk). No traceback is ever shown for one of these.
"""

from __future__ import annotations

from typing import ClassVar


class Ring0Error(Exception):
    """Base of all errors that speak to a person. Subclasses set `code`, `whose`, `exit_code`."""

    code: ClassVar[str] = "error"
    whose: ClassVar[str] = "ours"
    exit_code: ClassVar[int] = 1
    tells_of_data: bool = False
    """The message holds text of what a tool has read: it is labelled as the tool's results are."""
    confidentiality: str = "public"
    """Of what the message may hold, where that is known (`types.Confidentiality`)."""
    notice: str = ""
    """What the kernel says beside it (`Outcome.notice`)."""
    mark: str = ""
    """How a model is to be shown it (`Outcome.mark`)."""
    unspent: bool = False
    """Nothing of what was reserved for the call can have been spent: it comes back."""

    def __init__(self, what: str, *, why: str = "", todo: str = "") -> None:
        # Half a surrogate pair from outside must not keep an error from being told.
        self.what, self.why, self.todo = (
            text.encode("utf-8", "replace").decode() for text in (what, why, todo)
        )
        super().__init__(self.what)

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"Why: {self.why}")
        if self.todo:
            parts.append(f"Do: {self.todo}")
        return "\n".join(parts)

    def as_line(self) -> str:
        """All of it, for whoever shows nothing but a message."""
        return " ".join(part for part in (self.what, self.why, self.todo) if part)

    def as_dict(self) -> dict[str, str]:
        """The error as it goes through a door or into `--json`."""
        return {"code": self.code, "whose": self.whose, "what": self.what, "why": self.why,
                "todo": self.todo}  # fmt: skip


# --- your call ------------------------------------------------------------------------------


class InvalidInput(Ring0Error):
    """A command line, a file or a value that is not of the right form."""

    code, whose, exit_code = "invalid_input", "yours", 2


class ManifestInvalid(InvalidInput):
    """An agent's manifest, or ring0.toml, is missing, unreadable or names what does not exist."""

    code = "manifest_invalid"


class AgentInvalid(InvalidInput):
    """The agent's file does not import, or holds no agent."""

    code = "agent_invalid"


class PolicyInvalid(InvalidInput):
    """A policy does not parse or does not fit the schema."""

    code = "policy_invalid"


class PolicyCasesFailed(Ring0Error):
    """A case of `ring0 policy test` came out otherwise."""

    code, whose, exit_code = "policy_cases_failed", "yours", 1


class NotFound(InvalidInput):
    """No run, call, approval or file of that name."""

    code = "not_found"


class CallInvalid(InvalidInput):
    """Arguments that do not fit: unknown tool or field, wrong type, duplicate key, too large."""

    code = "call_invalid"


class CallDenied(Ring0Error):
    """Policy, a human or a limit said no. Nothing was done."""

    code, whose, exit_code = "denied", "yours", 3


class AnswerRefused(CallDenied):
    """This person can't give that answer; somebody else may. What is held waits on."""

    code = "answer_refused"


class LoginWanted(CallDenied):
    """Only a person who logs in can help. Nothing was done."""

    code = "login_wanted"

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        todo: str = "",
        login: str = "",
        scopes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(what, why=why, todo=todo)
        self.login = login
        """As ring0.toml calls it; empty: there is none."""
        self.scopes = scopes
        """What the server says is missing."""


class LimitReached(CallDenied):
    """A budget, a deadline or a bound of limits.py was met. Nothing was done."""

    code = "limit_reached"


class Busy(LimitReached):
    """Too much waits already. `after_s`: when to come back; 0 where only the words say it."""

    code = "busy"

    def __init__(self, what: str, *, why: str = "", todo: str = "", after_s: int = 0) -> None:
        super().__init__(what, why=why, todo=todo)
        self.after_s = after_s


class LoopStopped(LimitReached):
    """The same call came too often."""

    code = "loop_stopped"


class LockLost(CallDenied):
    """The run had taken a lock on what the call touches, and holds it no more. Nothing was done."""

    code = "lock_lost"


class Deadlock(CallDenied):
    """Runs waited for each other in a circle; this one's wait was ended. Nothing was done."""

    code = "deadlock"


class RunDead(CallDenied):
    """The run has ended: its handle, its door and its approvals are dead."""

    code = "run_dead"


class TokenInvalid(CallDenied):
    """A token that nobody here gave out, or that was changed since."""

    code = "token_invalid"


class TokenDead(CallDenied):
    """A token whose run, epoch or time is over, or that was taken back."""

    code = "token_dead"


class ToolFailed(Ring0Error):
    """The tool ran and failed; its message is the tool's own (untrusted) text."""

    code, whose, exit_code = "tool_failed", "world", 1


class EffectUnknown(Ring0Error):
    """A `once` effect was cut off between its intent and its outcome: it may have happened."""

    code, whose, exit_code = "effect_unknown", "world", 4


class UndoRefused(CallDenied):
    """What is to be taken back has changed since, or cannot be taken back."""

    code = "undo_refused"


class ReplayDiverged(Ring0Error):
    """A replayed run asked for something that its journal does not hold."""

    code, whose, exit_code = "replay_diverged", "yours", 5


class CassetteInvalid(Ring0Error):
    """A cassette is not one, or not as it was written."""

    code, whose, exit_code = "cassette_invalid", "yours", 2


class VerifyFailed(Ring0Error):
    """The journal is not what it was."""

    code, whose, exit_code = "verify_failed", "world", 5


class RunFailed(Ring0Error):
    """The agent's own program failed."""

    code, whose, exit_code = "run_failed", "yours", 1


# --- the world -------------------------------------------------------------------------------


class SandboxUnavailable(Ring0Error):
    """This machine cannot give the sandbox that is asked for. Never the agent's failure."""

    code, whose, exit_code = "sandbox_unavailable", "world", 6


class SandboxFailed(Ring0Error):
    """A sandbox could not be started or ended as it must."""

    code, whose, exit_code = "sandbox_failed", "ours", 6


class KernelBusy(Ring0Error):
    """Another kernel has this data folder."""

    code, whose, exit_code = "kernel_busy", "yours", 6


class StoreDamaged(Ring0Error):
    """The journal is cut short, unreadable or of a newer version."""

    code, whose, exit_code = "store_damaged", "world", 6


class ValueArchived(StoreDamaged):
    """The value lies in a file beside the journal."""

    code, whose, exit_code = "value_archived", "yours", 2


class StoreFull(Ring0Error):
    """The disk is full. What was acknowledged is safe; nothing more is accepted."""

    code, whose, exit_code = "store_full", "world", 6


class StoreFailed(Ring0Error):
    """The journal could not be written. Nothing more is accepted."""

    code, whose, exit_code = "store_failed", "world", 6


class ModelFailed(Ring0Error):
    """The model's provider could not be reached or answered with an error."""

    code, whose, exit_code = "model_failed", "world", 1


class LoginFailed(Ring0Error):
    """A server that logs people or programs in (OAuth) said no, or what it said is not good.
    `error`: its word for it (`access_denied`), or ours (`unreachable`)."""

    code, whose, exit_code = "login_failed", "world", 1

    def __init__(self, what: str, *, why: str = "", todo: str = "", error: str = "") -> None:
        super().__init__(what, why=why, todo=todo)
        self.error = error


class Interrupted(Ring0Error):
    """Ctrl-C or a signal; what was begun is kept and can be continued."""

    code, whose, exit_code = "interrupted", "yours", 130
