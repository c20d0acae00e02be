"""The fixture `ring0_replay`: a recorded run, replayed against the agent's code as it is now.

    def test_the_refund_goes_as_it_went(ring0_replay):
        ring0_replay("refund.r0", code="..")

pytest finds it by its entry point. Nothing of ring0 is loaded before a test asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ring0.kernel.replay import Replayed


class Ring0Replay:
    """Replays cassettes, strictly; a difference fails the test that asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(
        self,
        cassette: str | Path,
        *,
        code: str | Path | None = None,
        agent: Callable[..., Any] | None = None,
        read: Sequence[str | Path] = (),
    ) -> list[Replayed]:
        """Of a plain test. Paths begin at the test's own folder.

        cassette: a file of `ring0 export run`. code: the folder of the agent's code as it is now;
        None: that which was recorded. agent: the `@agent` function, of a run that was embedded.
        read: what of this machine its sandbox may be shown, where its `[sandbox] read` names it.
        Returns what became of each of its runs.
        """
        return asyncio.run(self.play(cassette, code=code, agent=agent, read=read))

    async def play(
        self,
        cassette: str | Path,
        *,
        code: str | Path | None = None,
        agent: Callable[..., Any] | None = None,
        read: Sequence[str | Path] = (),
    ) -> list[Replayed]:
        """The same, of an async test."""
        from ring0.errors import Ring0Error
        from ring0.gateway.playing import play
        from ring0.runtime import Runtime

        path = self._folder / cassette
        there = None if code is None else self._folder / code
        try:
            shown = [self._folder / one for one in read]
            runs = await play(path.read_bytes(), Runtime(), code=there, agent=agent, read=shown)
        except (Ring0Error, OSError) as error:
            pytest.fail(f"{path}: {error}", pytrace=False)
        bad = [one for one in runs if not one.ok]
        if bad:
            pytest.fail(
                f"{path}: {bad[0].run} diverged: {bad[0].divergence}\n"
                f"{bad[0].matched} of {bad[0].calls} calls were asked for as they are on record. If"
                " that is as it should be now, record the run anew.",
                pytrace=False,
            )
        return runs


@pytest.fixture
def ring0_replay(request: pytest.FixtureRequest) -> Ring0Replay:
    """`ring0_replay("run.r0", code="..")` replays a recorded run and fails where it differs."""
    return Ring0Replay(request.path.parent)
