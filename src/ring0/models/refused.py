"""What a provider's refusal means to whoever runs the agent: whose key, which model, and the
command that mends it. Not for what another attempt may mend, nor for how a client is told of it.
"""

from __future__ import annotations

from typing import Final

from ring0 import limits
from ring0.errors import ModelFailed

TOLD_ON: Final = frozenset({400, 401, 402, 403, 404, 413, 422, 429})
"""What a provider says of a question in HTTP's words, and a client is told as the provider said it:
its own library knows what each means. All else is a failure between us and the provider."""
_BAD: Final = 400
_OF_KEYS: Final = (401, 403)
_UNKNOWN: Final = 404
_TOO_MANY: Final = 429


def _blames_key(status: int, why: str) -> bool:
    """Google's servers call a key that is wrong a bad request."""
    return status == _BAD and "api key" in why.casefold()


class Refused(ModelFailed):
    """A provider turned a question away. Its status is on record with the outcome, so that a replay
    answers with the same."""

    def __init__(self, what: str, *, why: str, todo: str, status: int) -> None:
        super().__init__(what, why=why, todo=todo)
        self.status = status

    def as_dict(self) -> dict[str, str]:
        return {**super().as_dict(), "status": str(self.status)}


class Words:
    """Of one provider: its name, and where its key is."""

    __slots__ = ("_has_key", "_key", "_provider")

    def __init__(self, provider: str, key: str, *, has_key: bool) -> None:
        """`key`: the secret's name; empty: the configuration names none, and the provider needs
        none as far as anybody here knows."""
        self._provider = provider
        self._key = key[: limits.CALL_NAME_CHARS_MAX]
        self._has_key = has_key

    def refusal(self, status: int, model: str, why: str, *, tried: int = 1) -> Refused | None:
        """The error of that status; `why`: the provider's words, safe to be shown. None: it is no
        refusal of the question."""
        if status not in TOLD_ON:
            return None
        what, todo = self._told(_OF_KEYS[0] if _blames_key(status, why) else status, model, tried)
        return Refused(what, why=why, todo=todo, status=status)

    def _told(self, status: int, model: str, tried: int) -> tuple[str, str]:
        provider = self._provider
        if status in _OF_KEYS and not self._has_key:
            return f"The provider {provider} was asked without a key, and refused.", self._give()
        if status in _OF_KEYS:
            what = f"The provider {provider} refused the key {self._key}, or what it is used for."
            return what, f"See that it is good, and allowed this model. {self._give('Another')}"
        if status == _UNKNOWN:
            return (
                f"The provider {provider} has no model {model!r} at this address.",
                "Correct the model's name, or its base_url: under [models] in agent.toml or"
                " ring0.toml, else OPENAI_MODEL, ANTHROPIC_MODEL and …_BASE_URL in the environment"
                " of ring0.",
            )
        if status == _TOO_MANY:
            times = "" if tried == 1 else f" ({tried} attempts)"
            return (
                f"The provider {provider} takes no more questions now{times}.",
                "Wait, or see its limits and your account there; `fallback` names other models.",
            )
        return (
            f"The provider {provider} refused the question (status {status}).",
            "Its words say what it does not take: change what the agent asks, or the account.",
        )

    def _give(self, which: str = "Give it one") -> str:
        if not self._key:
            return (
                f'{which}: `key = "NAME"` beside the model in agent.toml or ring0.toml, and'
                " `ring0 secret set NAME`."
            )
        return (
            f"{which}: `ring0 secret set {self._key}`, or {self._key} in the environment of ring0."
        )
