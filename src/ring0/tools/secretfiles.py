"""Names of files that hold secrets, wherever they lie. Not here: who looks for them."""

from __future__ import annotations

from typing import Final

OF_OTHERS: Final = frozenset(
    {".env", ".git", ".netrc", ".ssh", ".aws", ".gnupg", ".npmrc", ".pypirc"}
)
OF_RING0: Final = frozenset(
    {"vault.json", "vault.key", "identity.key", "operator.code", "journal.db"}
)
"""Of a data folder, which may lie beside an agent's code."""
SECRET_FILES: Final = OF_OTHERS | OF_RING0
