"""The real runtime: what asyncio's own pieces don't promise."""

from __future__ import annotations

import asyncio

import pytest

from ring0.runtime import Runtime


async def test_a_cancel_that_meets_the_result_is_not_lost() -> None:
    result = asyncio.get_running_loop().create_future()
    reached = False

    async def wait() -> None:
        nonlocal reached
        await Runtime().wait_for(result, 60)
        await asyncio.sleep(0)
        reached = True

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    result.set_result(None)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not reached


async def test_what_takes_too_long_is_cancelled_and_told() -> None:
    ended = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        await Runtime().wait_for(slow(), 0.01)
    assert ended.is_set()
