"""Handles: 256 bits for one run and one epoch, of which only a hash is kept."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator

import pytest

from ring0.errors import RunDead
from ring0.identity.handles import Handle, Handles
from ring0.runtime import Runtime


class Giving(Runtime):
    """Keeps what it gave out."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def random_bytes(self, count: int) -> bytes:
        self.given.append(secrets.token_bytes(count))
        return self.given[-1]


def test_a_handle_is_256_bits_of_which_only_a_hash_is_kept() -> None:
    runtime = Giving()
    handles = Handles(runtime)
    made = [handles.mint("r-1", 1), handles.mint("r-1", 2), handles.mint("r-2", 1)]
    assert [len(value) for value in runtime.given] == [32, 32, 32]
    for handle, value in zip(made, runtime.given, strict=True):
        assert handle.digest == hashlib.sha256(value).digest()
        kept = [getattr(handle, name) for name in Handle.__slots__]
        assert value not in kept and not hasattr(handle, "__dict__")
        assert handle.digest.hex() not in repr(handle)


def test_a_handle_is_bound_to_its_run_and_its_epoch() -> None:
    handles = Handles(Runtime())
    old, other = handles.mint("r-1", 1), handles.mint("r-2", 1)
    new = handles.mint("r-1", 2)
    handles.check(new)
    handles.check(other)
    with pytest.raises(RunDead):
        handles.check(old)
    assert [handles.is_live("r-1", epoch) for epoch in (1, 2, 3)] == [False, True, False]
    handles.kill("r-1")
    with pytest.raises(RunDead):
        handles.check(new)
    handles.check(other)


def test_nobody_makes_a_handle_that_is_live_by_saying_the_same() -> None:
    handles = Handles(Runtime())
    real = handles.mint("r-1", 1)
    with pytest.raises(RunDead):
        handles.check(Handle(real.run, real.epoch, real.digest))
    handles.process_died(Handle(real.run, real.epoch, real.digest))
    handles.check(real)


class _LookedUpOnly(dict[str, Handle]):
    """Nobody walks through it."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("a search through all live handles")

    keys = values = items = __iter__  # type: ignore[assignment]


def test_a_handle_is_looked_up_and_never_searched_for_however_many_are_live() -> None:
    """Elsewhere it was a linear scan: 400 times slower with 5,000 credentials than with 10."""
    handles = Handles(Runtime())
    handles._live = _LookedUpOnly()
    made = [handles.mint(f"r-{number}", 1) for number in range(1_000)]
    for handle in made:
        handles.check(handle)
        assert handles.is_live(handle.run, 1)
    handles.process_died(made[0])
    handles.kill(made[1].run)
    for dead in made[:2]:
        with pytest.raises(RunDead):
            handles.check(dead)
