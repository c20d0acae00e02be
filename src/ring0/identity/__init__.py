"""Who a call comes from, and what it may use there: handles and tokens, operators, the vault."""

from ring0.identity.handles import Handle, Handles
from ring0.identity.operators import operator_name
from ring0.identity.vault import Vault

__all__ = ["Handle", "Handles", "Vault", "operator_name"]
