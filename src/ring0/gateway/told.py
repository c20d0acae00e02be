"""An outcome's error, told at a door as it stands in the journal, and the status it has in HTTP."""

from __future__ import annotations

from typing import Final

from ring0.errors import Ring0Error

STATUS: Final = {
    "denied": 403,
    "login_wanted": 403,
    "run_dead": 410,
    "limit_reached": 429,
    "busy": 429,
    "loop_stopped": 429,
    "deadlock": 409,
    "lock_lost": 409,
    "replay_diverged": 409,
    "not_found": 404,
    "tool_failed": 502,
    "model_failed": 502,
}
STATUS_ELSE: Final = 422


def fault(error: Exception) -> Ring0Error:
    """What is told of a fault of ours: of which kind it is, and never a traceback."""
    what = f"ring0 failed to answer: {type(error).__name__}."
    return Ring0Error(what, why="A fault of ring0.", todo="Report it.")


class Told(Ring0Error):
    """An outcome's error, handed on as it stands in the journal."""

    def __init__(self, error: dict[str, str], notice: str = "", mark: str = "") -> None:
        super().__init__(error["what"], why=error["why"], todo=error["todo"])
        self._error = error
        self.notice = notice
        self.mark = mark
        self.code = error["code"]  # type: ignore[misc]
        self.status = int(error.get("status", 0))
        """Of the provider that turned a question away; 0: none did."""

    def as_dict(self) -> dict[str, str]:
        return {key: text for key, text in self._error.items() if key != "status"}
