"""Spans on their way: a receiver that fails, is slow or hostile; the rules of the way out; a daemon
that goes on where it was left.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from kernel_world import Doing, World, world
from telemetry_world import BOTH, configured, over, over_http, quick, said, sent

from ring0 import limits
from ring0.errors import LimitReached, ManifestInvalid, ToolFailed
from ring0.kernel.agent import config_telemetry
from ring0.kernel.agent.config_telemetry import OtlpTable
from ring0.kernel.telemetry import making
from ring0.kernel.telemetry.cursor import FILE

__all__ = ["quick"]

# --- a receiver that fails ------------------------------------------------------------------------


@BOTH
async def test_what_is_not_taken_is_sent_again(tmp_path: Path, way: Any) -> None:
    async with way() as at, world(configured(tmp_path / "home", at.url, *said(way))) as w:
        await over(w)
        at.status = [503, 503]
        done = await sent(w)
        assert done.spans == 1 and len(at.headers) == 3


@BOTH
async def test_an_export_that_nobody_takes_ends_and_says_why(tmp_path: Path, way: Any) -> None:
    async with way() as at, world(configured(tmp_path / "home", at.url, *said(way))) as w:
        await over(w)
        at.status = [503] * 99
        with pytest.raises(ToolFailed, match="does not take spans"):
            await sent(w)
        assert len(at.headers) == limits.OTLP_TRIES_MAX


@BOTH
async def test_one_span_that_is_never_taken_keeps_back_no_other(tmp_path: Path, way: Any) -> None:
    async with way() as at, world(configured(tmp_path / "home", at.url, *said(way))) as w:
        for name in ("a.one", "b.bad", "c.two"):
            w.tool(Doing(name))
            await w.call(name)
        await over(w)
        at.poison = "execute_tool b.bad"
        done = await sent(w)
        assert (done.spans, done.refused) == (3, 1)
        assert sorted(at.names()) == [
            "execute_tool a.one", "execute_tool c.two", "invoke_agent clerk",
        ]  # fmt: skip


async def test_spans_that_a_receiver_says_it_did_not_take_are_counted(tmp_path: Path) -> None:
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        await over(w)
        at.rejects = 1
        done = await sent(w)
        assert (done.spans, done.refused) == (0, 1)


# --- by the rules of the way out ------------------------------------------------------------------


@BOTH
async def test_an_address_that_egress_does_not_let_out_is_not_dialled(
    tmp_path: Path, way: Any
) -> None:
    async with way() as at:
        home = configured(tmp_path / "home", at.url, *said(way), private="")
        async with world(home) as w:
            await over(w)
            with pytest.raises(ToolFailed) as caught:
                await sent(w)
            assert "127.0.0.1" in caught.value.why
            assert at.headers == [] and at.told == 0


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({"endpoint": "http://otel.example.com/v1/traces"}, "no https"),
        ({"endpoint": "ftp://127.0.0.1/"}, "endpoint"),
        ({"endpoint": "http://127.0.0.1:1/x", "protocol": "grpc"}, "gRPC has none"),
        ({"endpoint": "http://127.0.0.1:1/", "headers": {"x": "secret://GONE"}}, "GONE"),
        ({"endpoint": "http://127.0.0.1:1/", "headers": {"x": "a\r\nb: c"}}, "no header"),
        ({"endpoint": "http://127.0.0.1:1/", "headers": {"X Y": "a"}}, "no header"),
    ],
)
def test_a_table_that_can_not_hold_is_refused_at_the_start(
    table: dict[str, Any], what: str
) -> None:
    with pytest.raises(ManifestInvalid, match=what) as caught:
        config_telemetry.target(OtlpTable(**table), lambda name: "")
    assert caught.value.todo


@BOTH
async def test_headers_go_along_and_their_secrets_are_shown_nowhere(
    tmp_path: Path, way: Any
) -> None:
    key = "k3y-0123456789abcdef"
    async with way() as at:
        more = (*said(way), 'headers = {"authorization" = "Bearer secret://OTLP_KEY"}')
        home = configured(tmp_path / "home", at.url, *more)
        async with world(home, environment={"OTLP_KEY": key}) as w:
            await over(w)
            await sent(w)
            assert at.headers[0]["authorization"] == f"Bearer {key}"
            table = w.kernel.config.otlp
            assert table is not None
            assert key not in repr(config_telemetry.target(table, w.kernel.secret))
            await w.forget()
            assert key.encode() not in w.on_disk()


# --- all of it, as it grows -----------------------------------------------------------------------


async def exporter(w: World, lines: list[str]) -> Any:
    made = making.exporter(w.kernel, lines.append)
    assert made is not None
    made.begin()
    return made


async def caught_up(w: World, made: Any) -> None:
    async with asyncio.timeout(10):
        while await made.late():
            await asyncio.sleep(0.01)


async def test_a_daemon_tells_each_span_once_and_goes_on_where_it_was_left(tmp_path: Path) -> None:
    async with over_http() as at:
        home = configured(tmp_path / "home", at.url)
        lines: list[str] = []
        async with world(home) as w:
            w.tool(Doing("crm.query"))
            await w.call("crm.query")
            await over(w)
            made = await exporter(w, lines)
            await at.until(2)
            await caught_up(w, made)
            await made.close()
        async with world(home) as w:
            await over(w)
            made = await exporter(w, lines)
            await at.until(3)
            await caught_up(w, made)
            await made.close()
        assert at.told == 3, "what was told before is not told again"
        assert lines == []


async def test_a_receiver_that_is_down_loses_nothing_and_is_said_once(tmp_path: Path) -> None:
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        lines: list[str] = []
        at.status = [500] * 5
        made = await exporter(w, lines)
        w.tool(Doing("crm.query"))
        for _ in range(3):
            await w.call("crm.query")
        await over(w)
        await at.until(4)
        await caught_up(w, made)
        await made.close()
        assert len(lines) == 1 and "is tried again: it answers 500" in lines[0]
        assert made.delivery.sent == 4


async def test_a_journal_that_was_put_back_is_told_from_its_beginning(tmp_path: Path) -> None:
    async with over_http() as at:
        home = configured(tmp_path / "home", at.url)
        async with world(home) as w:
            await over(w)
            made = await exporter(w, [])
            await caught_up(w, made)
            await made.close()
            told = at.told
            stored = (home / FILE).read_text()
            (home / FILE).write_text(stored.replace('"leaf":"', '"leaf":"00'))
            made = await exporter(w, [])
            await caught_up(w, made)
            await made.close()
            assert at.told == 2 * told and len(at.spans) == told


@pytest.mark.parametrize("text", ["", "{", '{"target":1}', '{"target":"x","index":-5,"leaf":""}'])
async def test_a_cursor_that_can_not_be_read_begins_anew(tmp_path: Path, text: str) -> None:
    async with over_http() as at:
        home = configured(tmp_path / "home", at.url)
        async with world(home) as w:
            await over(w)
            (home / FILE).write_text(text)
            made = await exporter(w, [])
            await at.until(1)
            await caught_up(w, made)
            await made.close()


async def test_no_more_than_a_page_is_held_while_a_receiver_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "OTLP_PAGE_ENTRIES_MAX", 4)
    pages: list[int] = []
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        w.tool(Doing("crm.query"))
        for _ in range(10):
            await w.call("crm.query")
        await over(w)
        await w.store.flush()
        made = making.exporter(w.kernel, lambda what: None)
        assert made is not None
        read = type(w.store).stored_after

        def counted(store: Any, index: int, most: int) -> Any:
            pages.append(most)
            return read(store, index, most)

        monkeypatch.setattr(type(w.store), "stored_after", counted)
        at.status = [503]
        assert await made.step()
        assert pages == [4], "the next page is read when this one was taken"
        while await made.step():
            pass
        assert len(at.spans) == 11


async def test_an_export_has_a_bound_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "OTLP_RUNS_MAX", 0)
    async with over_http() as at, world(configured(tmp_path / "home", at.url)) as w:
        await over(w)
        with pytest.raises(LimitReached):
            await sent(w)
        assert at.told == 0
