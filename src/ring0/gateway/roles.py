"""Which role each verb takes. One table; a verb that is not in it is done for nobody.

Not here: who has which role (identity/roles.py), what a verb does (operations.py and beside it).
"""

from __future__ import annotations

from typing import Final

from ring0.identity import roles
from ring0.types import Operator, Role

ROLE_OF: Final[dict[str, Role | None]] = {
    # None: whoever has the socket. One has to be able to log in, and to ask who one is.
    "login": None,
    "login-finish": None,
    "login-code": None,
    "logout": None,
    "whoami": None,
    "load": Role.VIEWER,
    "printed": Role.VIEWER,
    "metrics": Role.VIEWER,
    "tokens": Role.VIEWER,
    "memory-search": Role.VIEWER,
    "memory-stats": Role.VIEWER,
    "memory-why": Role.VIEWER,
    "memory-documents": Role.VIEWER,
    "token": Role.OPERATOR,
    "token-revoke": Role.OPERATOR,
    "run": Role.OPERATOR,
    "fork": Role.OPERATOR,
    "recover": Role.OPERATOR,
    "order": Role.OPERATOR,
    "send": Role.OPERATOR,
    "pause": Role.OPERATOR,
    "resume": Role.OPERATOR,
    "budget": Role.OPERATOR,
    "settle": Role.OPERATOR,
    "undo": Role.OPERATOR,
    "undo-plan": Role.OPERATOR,  # It rehearses on the databases themselves.
    "kill": Role.OPERATOR,
    "export-otlp": Role.OPERATOR,
    "checkpoint": Role.OPERATOR,
    "memory-ingest": Role.OPERATOR,
    "memory-import": Role.OPERATOR,
    "memory-consolidate": Role.OPERATOR,
    "memory-directive": Role.OPERATOR,
    "memory-settle": Role.APPROVER,
    "memory-forget": Role.ADMIN,
    "memory-receipt": Role.ADMIN,
    "quarantine": Role.OPERATOR,
    "quarantine-lift": Role.OPERATOR,
    "answer": Role.APPROVER,
    "answers": Role.APPROVER,
    "revoke": Role.APPROVER,
    "archive": Role.ADMIN,
    "unarchive": Role.ADMIN,
    "vacuum": Role.ADMIN,
    "quota": Role.ADMIN,
    "backup": Role.ADMIN,
    "reload": Role.ADMIN,
    "secrets": Role.ADMIN,
    "identity-rotate": Role.ADMIN,
    "signer-rotate": Role.ADMIN,
    "erase": Role.ADMIN,
    "code": Role.ADMIN,
}


_COMMANDS: Final = {
    "answer": "approve / deny",
    "answers": "approve / deny",
    "checkpoint": "audit checkpoint --sign",
    "code": "login --make-code",
    "erase": "audit erase",
    "export-otlp": "export otlp",
    "identity-rotate": "identity rotate",
    "load": "top",
    "memory-consolidate": "memory consolidate",
    "memory-directive": "memory directive add",
    "memory-documents": "memory documents",
    "memory-forget": "memory forget",
    "memory-import": "memory import",
    "memory-receipt": "memory forget --receipt",
    "memory-search": "memory search",
    "memory-stats": "memory stats",
    "memory-settle": "memory approve / retire",
    "memory-why": "memory why",
    "memory-ingest": "memory ingest",
    "order": "cron / hook",
    "printed": "follow",
    "quarantine-lift": "quarantine --lift",
    "secrets": "secret",
    "signer-rotate": "audit key --rotate",
    "token": "token give",
    "token-revoke": "token revoke",
    "tokens": "token list",
    "undo-plan": "undo --dry-run",
}
"""What a person has typed, where it is not the verb."""


def check(operator: Operator, verb: str) -> None:
    """Raises RoleMissing."""
    role = ROLE_OF.get(verb, Role.ADMIN)
    if verb not in ROLE_OF:
        operator = Operator(name=operator.name, roles=frozenset(), login=operator.login)
    if role is not None:
        roles.check(operator, role, _COMMANDS.get(verb, verb))
