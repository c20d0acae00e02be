"""Lines of a daemon's log that say when a person is needed: a held call, a run that asks for more
budget, an effect that nobody knows of. Each is said once by a worker.

What an agent has written is in them: it comes last, on the same line, plain and bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.kernel.agent.printed import plain
from ring0.runtime import Runtime
from ring0.store import Store
from ring0.types import Approval, Call, Shown

Say = Callable[[str, str], None]
"""(what, run)."""


class Needs:
    """Says what `Waiting.needed` tells it."""

    def __init__(self, store: Store, runtime: Runtime, say: Say) -> None:
        self._store = store
        self._runtime = runtime
        self._say = say
        self._told: OrderedDict[str, None] = OrderedDict()
        """What was said. A run that is started again comes to the same ask anew."""

    def heard(self, what: Approval | Call, reason: str) -> None:
        """A person is waited for. Nothing waits for the line."""
        if what.id in self._told:
            return
        self._told[what.id] = None
        while len(self._told) > limits.WORKER_TOLD_MAX:
            self._told.popitem(last=False)
        if isinstance(what, Approval):
            self._runtime.start(self._asked(what, reason), name=f"line about {what.id}")
        else:
            self._say(_unknown(what), what.run)

    def told_no(self, root: str, runs: list[str]) -> None:
        """People have denied too many asks of a tree in a row, and all of it is paused."""
        many = f"{len(runs)} runs of the tree are" if len(runs) != 1 else "1 run of the tree is"
        self._say(
            f"{limits.DENIALS_IN_A_ROW_MAX} asks in a row were denied, and {many} paused; look at"
            f" what was asked for, then `ring0 resume {root} --tree` or `ring0 kill {root}`",
            root,
        )

    async def _asked(self, asked: Approval, reason: str) -> None:
        try:
            shown = msgspec.json.decode(await self._store.blob(asked.shown), type=Shown)
            title = line(shown.title)
        except (Ring0Error, msgspec.MsgspecError) as error:
            title = f"what it is can't be read: {line(str(error))}"
        what = "more budget is asked for" if reason == "budget" else "a call is held"
        answers = f"`ring0 approve {asked.id}` or `ring0 deny {asked.id}`"
        self._say(f"{what}; {answers}: {title}", asked.run)


def _unknown(call: Call) -> str:
    settle = f"ring0 settle {line(call.id)}"
    return (
        "nobody knows whether an effect happened; find out, then"
        f" `{settle} happened` or `{settle} did-not-happen`: {line(call.name)}"
    )


def line(text: str) -> str:
    """A text from outside on one line, bounded."""
    flat = " ".join(plain(text[: 4 * limits.WORKER_TITLE_CHARS_MAX]).split())
    most = limits.WORKER_TITLE_CHARS_MAX
    return flat if len(flat) <= most else flat[: most - 1] + "…"
