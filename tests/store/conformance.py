"""What every store must do. A test module of a store gives the fixture `place`, and inherits.

A store is opened by `place.open()`; opened again after a close, it holds what was written.
"""

from __future__ import annotations

from conformance_approvals import ApprovalConformance
from conformance_guards import GuardConformance
from conformance_histories import HistoryConformance
from conformance_memory import MemoryConformance
from conformance_people import PeopleConformance
from conformance_rows import RowConformance
from conformance_scheduling import SchedulingConformance
from conformance_undo import UndoConformance
from conformance_writing import WritingConformance
from conforming import Place


class StoreConformance(
    WritingConformance,
    GuardConformance,
    ApprovalConformance,
    HistoryConformance,
    SchedulingConformance,
    PeopleConformance,
    RowConformance,
    MemoryConformance,
    UndoConformance,
):
    """The suite."""


__all__ = ["Place", "StoreConformance"]
