"""The demo's checks can fail, its screen obeys nobody, and its world is always the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ring0.demo import checks, world
from ring0.demo.checks import Listener
from ring0.demo.screen import Screen
from ring0.runtime import Runtime


class _Store:
    """Only what a search of the journal reads."""

    def __init__(self, *values: bytes) -> None:
        self._values = values

    def stored_blobs(self) -> Iterator[tuple[str, bytes]]:
        yield from (("", value) for value in self._values)

    def stored(self) -> Iterator[tuple[int, str, int, bytes, bytes]]:
        yield from ()

    async def calls(self, run: str) -> list[object]:
        return []


async def test_a_service_that_was_reached_is_told() -> None:
    listener = Listener(Runtime())
    await listener.open()
    try:
        assert (await listener.check()).is_good
        _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        await Runtime().sleep(0.05)
        assert not (await listener.check()).is_good
        writer.close()
    finally:
        await listener.close()


@pytest.mark.parametrize(
    ("values", "is_good"),
    [((b"a ticket",), True), ((b"a ticket", b"has s3cr3t in it"), False), ((b"nothing",), False)],
)
def test_a_planted_value_is_found_and_an_empty_search_is_no_proof(
    values: tuple[bytes, ...], is_good: bool
) -> None:
    found = checks.canaries(_Store(*values), {"it": "s3cr3t"}, "a ticket")  # type: ignore[arg-type]
    assert [one.is_good for one in found] == [is_good]


async def test_a_row_that_is_gone_without_a_yes_fails_the_check(tmp_path: Path) -> None:
    world.build_database(tmp_path / "a.db")
    rows = world.rows_of(tmp_path / "a.db")
    fewer = {**rows, "orders": frozenset(list(rows["orders"])[1:])}
    without = {table: rows[table] for table in world.TABLES[1:]}
    for after, good in ((rows, [True, True]), (fewer, [True, False]), (without, [False, False])):
        found = await checks.database(_Store(), "r-1", rows, after)  # type: ignore[arg-type]
        assert [one.is_good for one in found] == good


def test_the_world_is_the_same_on_every_machine(tmp_path: Path) -> None:
    for name in ("a.db", "b.db"):
        assert world.build_database(tmp_path / name) == 10_393
    assert world.rows_of(tmp_path / "a.db") == world.rows_of(tmp_path / "b.db")


def test_text_of_a_run_moves_no_cursor_and_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.call("allowed", "green", "[red]x", "\x1b[2J[bold]SELECT[/bold]\rgone", ":boom: \x07")
    screen.output("\x1b]0;title\x07[blink]printed")
    screen.check(False, "[green]ok[/green]", "\x9b1m")
    printed = capsys.readouterr().out
    assert not set(printed) & {"\x1b", "\r", "\x07", "\x9b"}
    for words in ("[red]x", "[bold]SELECT[/bold]", ":boom:", "[blink]printed", "[green]ok[/green]"):
        assert words in printed
