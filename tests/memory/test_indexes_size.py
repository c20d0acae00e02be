"""What is held in memory is counted as it changes: a query looks at no scope but its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.memory import kept, strangers

from ring0.memory.index import ScopeIndex


async def test_a_query_looks_at_no_other_scopes_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = kept.opened(tmp_path / "store")
    memory = kept.memory_over(store)
    owners = [strangers.owner_of(number) for number in range(6)]
    for number, owner in enumerate(owners):
        await kept.fill(store, owner, ["refund 40"], f"m-{number}")
        await memory.recall(kept.scope_of(owner), "refund", k=1)
    real, looked = ScopeIndex.size_bytes.fget, list[ScopeIndex]()  # type: ignore[attr-defined]

    def size_bytes(index: ScopeIndex) -> int:
        looked.append(index)
        return real(index)  # type: ignore[no-any-return]

    monkeypatch.setattr(ScopeIndex, "size_bytes", property(size_bytes))
    await memory.recall(kept.scope_of(owners[0]), "refund", k=1)
    assert len(looked) == 1
    indexes = memory.indexes
    assert indexes.size_bytes == sum(real(one.index) for one in indexes._held.values())
    for owner in owners:
        indexes.forget(owner)
    assert indexes.size_bytes == 0
    await store.close()
