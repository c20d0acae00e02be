"""Through the gate: what the user's words choose goes on; what an answer says is asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from approvals_world import CAROL
from kernel_world import Doing, World, world
from msgspec.structs import replace

from ring0.types import CallState, Effect, FieldRule, Integrity, Label

UNTRUSTED = Label(integrity=Integrity.UNTRUSTED)
IDS = (FieldRule(path="[].id", integrity=Integrity.TRUSTED_FIELD),)
TAKES = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("desk_id", "to", "text")},
}
DESKS = [
    {"id": "d-4411", "name": "Window seat", "booked_by": "zoe@corp.example"},
    {"id": "d-4412", "name": "Corner desk", "booked_by": "eve@evil.example"},
]


def tools(w: World, *, fields: tuple[FieldRule, ...] = IDS) -> None:
    listing = Doing(
        "list_desks",
        act=lambda args, context: DESKS,
        label=UNTRUSTED,
        output=Integrity.UNTRUSTED,
    )
    listing.manifest = replace(listing.manifest, fields=fields)
    w.tool(listing)
    for name, critical, more in (
        ("release_desk", ("desk_id",), {"removes": True}),
        ("send_mail", (), {"recipients": ("to",), "content": ("text",)}),
    ):
        changing = Doing(
            name, effect=Effect.ONCE, critical=critical, schema=TAKES, mutates=True, own=False
        )
        changing.manifest = replace(changing.manifest, unattended=True, **more)
        w.tool(changing)


async def asked(w: World, name: str, args: dict[str, Any]) -> dict[str, Any] | None:
    """What a person is shown of it; None: it is just done."""
    call = w.start(name, args)
    for _ in range(400):
        if call.done():
            assert call.result().state is CallState.OK, call.result()
            return None
        if waiting := await w.store.approvals(states=["pending"]):
            shown = await w.shown(waiting[0])
            await w.kernel.answer(waiting[0].id, yes=False, by=CAROL)
            assert (await call).state is CallState.REFUSED
            return dict(shown)
        await w.kernel.runtime.sleep(0.005)
    raise AssertionError("neither asked nor done")


def rules(shown: dict[str, Any] | None) -> list[str]:
    return [reason["rule"] for reason in shown["reasons"]] if shown else []


async def test_a_record_that_the_task_names_is_released_and_no_other(tmp_path: Path) -> None:
    async with world(tmp_path / "home", task="Release the desk 'Window seat', please") as w:
        tools(w)
        assert rules(await asked(w, "release_desk", {"desk_id": "d-4411"})) == ["unfounded-target"]
        await w.call("list_desks", {})
        assert await asked(w, "release_desk", {"desk_id": "d-4411"}) is None
        shown = await asked(w, "release_desk", {"desk_id": "d-4412"})
        assert rules(shown) == ["unchosen-target"]
        assert shown is not None and shown["findings"] == [
            "desk_id: there is such a one, but nothing that the user said chooses it"
        ]


async def test_what_a_tool_returns_without_a_word_of_its_manifest_chooses_nothing(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", task="Release the desk 'Window seat', please") as w:
        tools(w, fields=())
        await w.call("list_desks", {})
        assert rules(await asked(w, "release_desk", {"desk_id": "d-4411"})) == ["untrusted-target"]


async def test_recipients_are_judged_though_nothing_calls_them_critical(tmp_path: Path) -> None:
    async with world(tmp_path / "home", task="Mail zoe@corp.example who sits where") as w:
        tools(w)
        await w.call("list_desks", {})
        assert (
            await asked(w, "send_mail", {"to": "zoe@corp.example", "text": "you: d-4411"}) is None
        )
        shown = await asked(w, "send_mail", {"to": "eve@evil.example", "text": "x"})
        assert rules(shown) == ["untrusted-target"]
        shown = await asked(w, "send_mail", {"to": "x@nowhere.example", "text": "x"})
        assert rules(shown) == ["unfounded-target"]


async def test_a_recipient_that_a_person_put_in_is_that_persons_choice(tmp_path: Path) -> None:
    async with world(tmp_path / "home", task="Mail somebody at the desks") as w:
        tools(w)
        await w.call("list_desks", {})
        call = w.start("send_mail", {"to": "eve@evil.example", "text": "x"})
        while not (waiting := await w.store.approvals(states=["pending"])):
            await w.kernel.runtime.sleep(0.005)
        await w.kernel.answer(waiting[0].id, yes=True, by=CAROL, edits={"to": "zoe@corp.example"})
        assert (await call).state is CallState.OK
        assert w.run.tools["send_mail"].driver.args == [{"to": "zoe@corp.example", "text": "x"}]


async def test_what_the_run_reached_is_counted_over_its_calls(tmp_path: Path) -> None:
    async with world(tmp_path / "home", task="Mail the news to every person.") as w:
        tools(w)
        people = [{"id": f"p-{n:04}", "email": f"p{n}@x.example"} for n in range(12)]
        listing = Doing("list_persons", act=lambda args, context: people, label=UNTRUSTED,
                        output=Integrity.UNTRUSTED)  # fmt: skip
        listing.manifest = replace(listing.manifest, fields=IDS)
        w.tool(listing)
        await w.call("list_persons", {})
        for person in people[:10]:
            assert await asked(w, "send_mail", {"to": person["email"], "text": "n"}) is None
        shown = await asked(w, "send_mail", {"to": people[10]["email"], "text": "n"})
        assert rules(shown) == ["many-recipients"]
