"""The journal and its projections. What the rest of ring0 needs of a store is `base.Store`."""

from ring0.store.addresses import address, child_of
from ring0.store.base import GuardFailed, Store, Write, WriteImpossible

__all__ = ["GuardFailed", "Store", "Write", "WriteImpossible", "address", "child_of"]
