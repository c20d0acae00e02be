"""How this folder says no: one line each, so that every refusal says what, why and what to do."""

from __future__ import annotations

from ring0.errors import CallDenied, CallInvalid, EffectUnknown, ToolFailed


def malformed(why: str) -> CallInvalid:
    """The request can't be read in one way only. Nothing was sent."""
    return CallInvalid(
        "The request can't be taken as it is.",
        why=why,
        todo="Send plain HTTP/1.1, as curl does.",
    )


def forbidden(what: str, *, why: str = "", todo: str = "") -> CallDenied:
    """The request is clear, and not allowed. Nothing was sent."""
    return CallDenied(what, why=why, todo=todo or "Ask only for what the tool's `egress` names.")


def failed(what: str, *, why: str = "", todo: str = "") -> ToolFailed:
    """The world did not do its part."""
    return ToolFailed(what, why=why, todo=todo or "Try again later, or look at that host.")


def cut_off(method: str, host: str, why: str) -> EffectUnknown:
    """The request went out, at least in part, and what it did can't be told."""
    return EffectUnknown(
        f"{method} to {host} was cut off: {why}.",
        why="It may or may not have been carried out there.",
        todo="Look at that host, then `ring0 settle CALL happened` or `did-not-happen`.",
    )
