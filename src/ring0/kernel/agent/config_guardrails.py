"""[guardrails] of ring0.toml: what is taken out of models' answers, and what is marked for them.

How: kernel/answers.py, kernel/steps/marking.py.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class GuardrailsTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is taken out of an answer before anybody hears it. What ring0 holds always is.
    And `spotlight`."""

    secrets: bool = False
    """What has the form of a secret, too."""
    links: bool | None = None
    """Links that carry data with them; unset: where the profile is `strict`."""
    hosts: tuple[str, ...] = ()
    """Hosts that links may carry data to, with all names beneath them."""
    profanity: Literal["", "mild", "strong", "severe"] = ""
    """Words that are no less; empty: all may stand."""
    spotlight: bool | Literal["delimit", "datamark"] = False
    """Whether `Context.loop` marks for a model what nobody vouches for; true: `delimit`."""
