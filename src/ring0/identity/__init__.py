"""Who a call comes from: handles now; tokens, certificates, the vault and operators later."""

from ring0.identity.handles import Handle, Handles

__all__ = ["Handle", "Handles"]
