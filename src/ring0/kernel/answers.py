"""What is taken out of a model's answer, by ring0.toml and the profile: the same at every door, and
whether it comes whole or in pieces. And how a model is shown what nobody vouches for.

Not here: how something is found in a text (guardrails/scanners), known secrets (redact.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ring0.guardrails import Secrets
from ring0.guardrails.scanners import Severity
from ring0.guardrails.scanners.masking import Masking
from ring0.guardrails.scanners.spotlight import Style
from ring0.guardrails.scanners.streaming import masked
from ring0.kernel.agent.config_guardrails import GuardrailsTable, both_forms
from ring0.tools.driver import Result

_PROFANITY: Final = {
    "": None,
    "mild": Severity.LOW,
    "strong": Severity.MEDIUM,
    "severe": Severity.HIGH,
}


class Answers:
    """One for a kernel: what it takes out follows the profile that holds now."""

    def __init__(self, profile: Callable[[], str]) -> None:
        self.said = GuardrailsTable()
        """Set where ring0.toml has been read."""
        self._profile = profile

    @property
    def spotlight(self) -> str:
        """How models are shown what nobody vouches for (a `Style`); empty: as it is."""
        said = self.said.spotlight
        return said if isinstance(said, str) else str(Style.DELIMIT) if said else ""

    @property
    def masking(self) -> Masking | None:
        """None: nothing but known secrets."""
        said = self.said
        links = self._profile() == "strict" if said.links is None else said.links
        if not (links or said.secrets or said.profanity):
            return None
        return Masking(
            secrets=said.secrets,
            links=links,
            hosts=frozenset(form for host in said.hosts for form in both_forms(host)),
            profanity=_PROFANITY[said.profanity],
        )

    def mask(self, result: Result, secrets: Secrets) -> None:
        """Before it goes on record and to whoever asked: known secrets first, then the rest."""
        masking = self.masking
        if masking is None or not isinstance(result.value, dict):
            return
        clean, _ = secrets.redact(result.value)
        result.value = masked_answer(clean, masking)
        if result.remember:
            result.remember = result.value["text"]


def masked_answer(answer: dict[str, Any], masking: Masking) -> dict[str, Any]:
    """Of its parts each by itself, as they are told."""
    whole = str(answer.get("text", ""))
    parts = [dict(part) for part in answer.get("parts") or ()]
    texts = [part for part in parts if part.get("kind") == "text"]
    is_joined = bool(texts) and "".join(str(part.get("text", "")) for part in texts) == whole
    for part in texts:
        part["text"] = masked(str(part.get("text", "")), masking)
    text = "".join(part["text"] for part in texts) if is_joined else masked(whole, masking)
    return {**answer, "text": text, **({"parts": parts} if parts else {})}
