"""What the journal says of a run's files: of the whole run, and of each call by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from kernel_world import World, world

from ring0.tools.workspace.history import Change, changes_of_call, changes_of_run
from ring0.types import AgentManifest


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "given.txt").write_text("given")
    manifest = AgentManifest(
        name="clerk",
        tools={"files": {"use": "files"}},
        imports=("given.txt",),
        folder=str(tmp_path),
    )
    async with world(tmp_path / "home", manifest=manifest) as here:
        yield here


async def write(here: World, path: str, text: str | None) -> str:
    """The call's id. None removes."""
    if text is None:
        await here.call("files.remove", {"path": path})
    else:
        await here.call("files.write", {"path": path, "text": text})
    return str((await here.calls())[-1].id)


async def shown(here: World, changes: list[Change]) -> dict[str, tuple[str | None, str | None]]:
    found = {}
    for change in changes:
        texts = [
            None if delta is None else (await here.store.blob(delta.blob)).decode()
            for delta in (change.before, change.after)
        ]
        found[change.path] = (texts[0], texts[1])
    return found


async def of_call(here: World, call: str) -> dict[str, tuple[str | None, str | None]]:
    return await shown(here, await changes_of_call(here.store, await here.recorded(call)))


async def test_a_run_is_told_from_what_it_was_given_to_what_is_there(w: World) -> None:
    assert await changes_of_run(w.store, w.run.id) == []
    await write(w, "given.txt", "changed")
    await write(w, "made.txt", "made")
    await write(w, "brief.txt", "brief")
    await write(w, "brief.txt", None)
    await w.store.flush()
    assert await shown(w, await changes_of_run(w.store, w.run.id)) == {
        "given.txt": ("given", "changed"),
        "made.txt": (None, "made"),
    }


async def test_a_call_is_told_from_what_it_found_and_by_what_it_did_alone(w: World) -> None:
    first = await write(w, "given.txt", "one")
    second = await write(w, "given.txt", "two")
    third = await write(w, "given.txt", None)
    assert await of_call(w, first) == {"given.txt": ("given", "one")}
    assert await of_call(w, second) == {"given.txt": ("one", "two")}
    assert await of_call(w, third) == {"given.txt": ("two", None)}


async def test_what_was_taken_back_in_between_is_no_part_of_a_later_call(w: World) -> None:
    await write(w, "a", "one")
    second = await write(w, "a", "two")
    await w.kernel.undo(w.run.id, by="alice", only=second)
    third = await write(w, "a", "three")
    assert await of_call(w, third) == {"a": ("one", "three")}
    assert await of_call(w, second) == {"a": ("one", "two")}


async def test_a_file_that_holds_again_what_it_held_has_not_changed(w: World) -> None:
    call = await write(w, "given.txt", "changed")
    await w.kernel.undo(w.run.id, by="alice", only=call)
    assert await changes_of_run(w.store, w.run.id) == []
    same = await write(w, "given.txt", "given")
    assert await of_call(w, same) == {}
