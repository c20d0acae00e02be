"""Which names of files may leave a sandbox. What they hold is not looked at."""

from __future__ import annotations

import unicodedata
from typing import Final

_ACTED_ON: Final = frozenset(
    {
        "conftest.py",
        "pytest.ini",
        "tox.ini",
        "sitecustomize.py",
        "usercustomize.py",
        "__pycache__",
        "autorun.inf",
        "desktop.ini",
    }
)
"""Names of files and folders that a program reads and obeys because they are there."""
_ACTED_ON_ENDINGS: Final = (".pth", ".pyc", ".pyo", ".desktop")


def why_not(path: str) -> str:
    """Why a file of this name stays; empty where it may leave."""
    for part in path.split("/"):
        name = unicodedata.normalize("NFKC", part).casefold()
        if name.startswith("."):
            return "a dotfile"
        if name in _ACTED_ON or name.endswith(_ACTED_ON_ENDINGS):
            return "programs obey it because it is there"
    return ""
