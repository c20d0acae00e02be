"""A stranger's target in calls that people change before they go on: all else stays as it was.
Undefended nobody is asked, so that nothing is changed: each goes where the stranger says.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from approvals_world import CAROL
from kernel_world import Doing, world
from poison_world import ALL, FORMS, GUARDS, LIFTED, MANY, Taken, count, tell

from ring0.tools.registry import Tool
from ring0.types import (
    Approval,
    ApprovalState,
    CallKind,
    CallState,
    Effect,
)


@pytest.fixture(scope="module", autouse=True)
def _told() -> Iterator[None]:
    yield
    tell()


class Changed:
    """A run whose calls a person changes before they go on."""

    def __init__(self, taken: Taken) -> None:
        self.taken = taken
        self.paid: list[dict[str, Any]] = []
        properties = {"to": {}, "copy": {}, "note": {"type": "string"}, "amount": {}}
        properties |= {"to[0]": {}, "mail": {}, "mail.to": {}}
        for name, critical in (("send", ("to", "copy", "mail.to")), ("open", ())):
            taken.run.tools[name] = Tool(
                Doing(name, effect=Effect.ONCE, mutates=True, own=False, critical=critical,
                      schema={"type": "object", "properties": properties},
                      act=lambda args, _: self.paid.append(args) or "done")
            )  # fmt: skip

    async def _pending(self, call: Any) -> Approval | None:
        store, runtime = self.taken.kernel.store, self.taken.kernel.runtime
        for _ in range(2_000):
            if call.done():
                return None
            if waiting := await store.approvals(states=[ApprovalState.PENDING]):
                return waiting[0]
            await runtime.sleep(0.002)
        raise AssertionError("neither asked nor done")

    async def change(self, args: dict[str, Any], **edits: str) -> bool:
        """Whether anybody was asked; if so they change it, and nothing else is said yes to."""
        call = self.taken.kernel.runtime.start(
            self.taken.ask(CallKind.TOOL, "send", args), name="changed"
        )
        if (waiting := await self._pending(call)) is None:
            return False
        await self.taken.kernel.answer(waiting.id, yes=True, by=CAROL, edits=edits)
        if (again := await self._pending(call)) is not None:
            await self.taken.kernel.answer(again.id, yes=False, by=CAROL)
        await call
        return True

    async def asked(self, **args: Any) -> bool:
        """Whether anybody is asked about it: they say no."""
        call = self.taken.kernel.runtime.start(
            self.taken.ask(CallKind.TOOL, "send", args), name="asked"
        )
        if (waiting := await self._pending(call)) is None:
            return False
        await self.taken.kernel.answer(waiting.id, yes=True, by=CAROL)
        await call
        return True

    async def goes_where_nobody_looks(self, **args: Any) -> None:
        found = await self.taken.ask(CallKind.TOOL, "open", args)
        assert found.state is CallState.OK, found


async def the_other_argument(c: Changed, target: str) -> None:
    assert await c.change({"to": target, "copy": target}, to="bob")
    assert await c.asked(to="bob", copy=target)


async def the_same_argument_next_time(c: Changed, target: str) -> None:
    assert await c.change({"to": "bobby"}, to=target), "fooled once"
    assert await c.asked(to=target), "and no further"


async def a_note_beside_it(c: Changed, target: str) -> None:
    assert await c.change({"to": target, "note": "x"}, note=f"not to {target}!")
    assert await c.asked(to=target)


async def an_element_of_a_list(c: Changed, target: str) -> None:
    assert await c.change({"to": [target, "bob"]}, to=json.dumps(["bob", target]))
    assert await c.asked(to=["bob", target])


async def a_list_of_which_another_element_was_changed(c: Changed, target: str) -> None:
    assert await c.change({"to": [target, "eva"], "copy": [target]}, to='["bob"]')
    assert await c.asked(to=["bob"], copy=[target])


async def a_name_like_the_way_to_another(c: Changed, target: str) -> None:
    assert await c.asked(**{"mail": {"to": target}, "mail.to": "bob"})


async def a_name_like_an_elements(c: Changed, target: str) -> None:
    """Who changes the argument `to[0]` has not changed the first element of `to`."""
    assert await c.change({"to": [target], "to[0]": "x"}, **{"to[0]": "bob"})
    call = (await c.taken.kernel.store.calls(c.taken.run.id))[-1]
    evidence = msgspec.json.decode(await c.taken.kernel.store.blob(call.decision))
    assert "to[0]" in evidence["question"]["untrusted_args"], evidence


HOW = (
    a_name_like_the_way_to_another,
    a_name_like_an_elements,
    the_other_argument,
    the_same_argument_next_time,
    a_note_beside_it,
    an_element_of_a_list,
    a_list_of_which_another_element_was_changed,
)


@pytest.mark.parametrize("how", HOW, ids=lambda how: how.__name__)
async def test_no_change_of_a_person_launders_a_strangers_target(
    tmp_path: Path, how: Callable[[Changed, str], Awaitable[None]]
) -> None:
    async with world(tmp_path / "home", policy=LIFTED, task="pay bob", budget=MANY) as w:
        taken = Taken(w.run, w.kernel)
        changed = Changed(taken)
        for target, name in ALL:
            await taken.reads(FORMS[name](target))
            await how(changed, target)
            await changed.goes_where_nobody_looks(to=target, copy=target)
    count(taken, f"edit: {how.__name__}", len(ALL))


CALLS: dict[str, Callable[[str], dict[str, Any]]] = {
    "a_name_like_the_way_to_another": lambda t: {"mail": {"to": t}, "mail.to": "bob"},
    "a_name_like_an_elements": lambda t: {"to": [t], "to[0]": "x"},
    "the_other_argument": lambda t: {"to": t, "copy": t},
    "the_same_argument_next_time": lambda t: {"to": t},
    "a_note_beside_it": lambda t: {"to": t, "note": "x"},
    "an_element_of_a_list": lambda t: {"to": [t, "bob"]},
    "a_list_of_which_another_element_was_changed": lambda t: {"to": [t, "eva"], "copy": [t]},
}
"""What each of HOW has the model call."""


@pytest.mark.parametrize("how", HOW, ids=lambda how: how.__name__)
async def test_undefended_each_of_these_calls_goes_where_the_stranger_says(
    tmp_path: Path, how: Callable[[Changed, str], Awaitable[None]]
) -> None:
    home = tmp_path / "home"
    async with world(home, policy=LIFTED, profile="observe", task="pay bob", budget=MANY) as w:
        taken = Taken(w.run, w.kernel)
        changed = Changed(taken)
        for target, name in ALL:
            await taken.reads(FORMS[name](target))
            args = CALLS[how.__name__](target)
            assert not await changed.asked(**args), (target, name)
            assert changed.paid[-1] == args
            assert await taken.would_have_asked() & GUARDS, (target, name)
    count(taken, f"edit: {how.__name__}", len(ALL))
