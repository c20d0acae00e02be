"""[guardrails] of ring0.toml: what is taken out of models' answers, and what is marked for them.

How: kernel/answers.py, kernel/steps/marking.py.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ring0.errors import CallInvalid, ManifestInvalid
from ring0.tools.egress.hosts import canonical_host


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


def check(said: GuardrailsTable) -> None:
    """A host that is none would never be that of a link. Raises ManifestInvalid."""
    for host in said.hosts:
        try:
            canonical_host(host)
        except CallInvalid as error:
            raise ManifestInvalid(
                f"ring0.toml: [guardrails] hosts names {host[:80]!r}.",
                why=f"{error.what} No link would ever go there.",
                todo='Write the bare name, without `https://`, a path, a port or `*`: "ok.example"'
                " takes in all names beneath it.",
            ) from None


def both_forms(host: str) -> tuple[str, str]:
    """As it is written and as it is asked for: `bücher.example` is `xn--bcher-kva.example`."""
    return host.lower(), canonical_host(host)
