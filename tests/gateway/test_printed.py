"""What agents print, handed on to those who look on: bounded, by tree, and never waited for."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from pathlib import Path

import pytest
from gateway_world import control

from ring0 import limits
from ring0.errors import CallDenied, KernelBusy, Ring0Error
from ring0.gateway import holding
from ring0.gateway.control import Control, Remote
from ring0.gateway.operations import prioritised
from ring0.gateway.printed import Printed
from ring0.kernel.agent.agents import Family
from ring0.types import AgentManifest, Role
from simulated import Simulated


def printed() -> Printed:
    """`a…` is of the tree a."""
    return Printed(Simulated(), lambda run: run[0])


async def heard(p: Printed, root: str, count: int, *, since_start: bool = True) -> list[object]:
    found: list[object] = []
    async for told in p.of(root, since_start=since_start):
        if told is not None:
            found.append(told)
            if len(found) == count:
                break
    return found


async def test_who_comes_late_hears_what_was_printed_by_this_tree_and_no_other() -> None:
    p = printed()
    p.heard("a", "1")
    p.heard("b", "not ours")
    p.heard("a2", "2")
    assert await heard(p, "a", 2) == [("a", "1"), ("a2", "2")]


async def test_who_asks_for_news_hears_only_what_comes() -> None:
    p = printed()
    p.heard("a", "old")
    waiting = asyncio.ensure_future(heard(p, "a", 1, since_start=False))
    await asyncio.sleep(0)
    p.heard("a", "new")
    assert await waiting == [("a", "new")]


async def test_what_is_kept_is_bounded_and_the_newest_stays() -> None:
    p = printed()
    piece = "x" * 65_536
    for _ in range(2 * limits.PRINTED_KEPT_BYTES_MAX // len(piece)):
        p.heard("a", piece)
    p.heard("a", "last")
    kept = 1 + limits.PRINTED_KEPT_BYTES_MAX // (len(piece) + limits.PRINTED_PIECE_BYTES)
    assert (await heard(p, "a", kept))[-1] == ("a", "last")


@pytest.mark.parametrize("piece", ["", "x"], ids=["nothing that is shown", "a letter"])
async def test_an_agent_that_prints_in_crumbs_fills_no_memory(piece: str) -> None:
    p = printed()
    tracemalloc.start()
    try:
        for _ in range(200_000):
            p.heard("a", piece)
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < limits.PRINTED_KEPT_BYTES_MAX


async def test_a_slow_listener_misses_the_oldest_and_holds_up_nobody() -> None:
    p = printed()
    p.heard("a", "0")
    listening = p.of("a", since_start=True)
    assert await anext(listening) == ("a", "0")
    for number in range(80):
        p.heard("a", f"{number:02}" + "x" * 65_536)
    first = await anext(listening)
    assert first is not None and int(first[1][:2]) >= 15
    rest = [first] + [told async for told in _take(listening, 60)]
    numbers = [int(told[1][:2]) for told in rest if told]
    assert numbers == sorted(numbers) and numbers[-1] > 70


async def _take(listening, count):  # type: ignore[no-untyped-def]
    for _ in range(count):
        yield await anext(listening)


async def test_a_listener_who_hears_nothing_is_looked_after_now_and_then() -> None:
    p = printed()
    assert await anext(p.of("a", since_start=True)) is None


# --- the socket --------------------------------------------------------------------------------


async def test_runs_are_started_only_on_a_kernel_that_stays(tmp_path: Path) -> None:
    async with control(tmp_path) as w:  # As `ring0 run` opens it.
        with pytest.raises(Ring0Error):
            await Remote(w.home).start(AgentManifest(name="a", folder="/"), (), "task", None)


@pytest.mark.parametrize("priority", [-1, limits.PRIORITY_LAST + 1, 10**9])
async def test_a_priority_that_is_none_starts_nothing(tmp_path: Path, priority: int) -> None:
    async with control(tmp_path) as w:
        served = Control(w.kernel)
        await served.open(runs=True)
        try:
            with pytest.raises(Ring0Error, match="without what it needs"):
                manifest = AgentManifest(name="a", command=("true",), folder="/")
                await Remote(w.home).start(manifest, (), "t", priority)
        finally:
            await served.close()


async def test_no_run_is_started_when_the_daemon_is_about_to_end(tmp_path: Path) -> None:
    async with control(tmp_path) as w:
        served = Control(w.kernel)
        await served.open(runs=True)
        served.is_ending = True
        try:
            with pytest.raises(Ring0Error, match="stopping"):
                await Remote(w.home).start(AgentManifest(name="a", folder="/"), (), "t", None)
        finally:
            await served.close()


async def test_a_refusal_over_the_socket_has_its_exit_code(tmp_path: Path) -> None:
    async with control(tmp_path) as w:
        with pytest.raises(Ring0Error) as caught:
            await Remote(w.home).kill("run", "r-none")
        assert (caught.value.code, caught.value.exit_code) == ("not_found", 2)
        with pytest.raises(Ring0Error) as caught:
            await Remote(w.home).answer("a-none", yes=True)
        assert caught.value.exit_code == 2


async def test_those_who_look_on_leave_room_for_a_kill(tmp_path: Path) -> None:
    async with control(tmp_path) as w:
        served = Control(w.kernel)
        await served.open(runs=True)
        listeners = [
            asyncio.ensure_future(_first(Remote(w.home), w.run.id))
            for _ in range(limits.CONTROL_CONNECTIONS_MAX + 8)
        ]
        refused = len(listeners) - limits.PRINTED_FOLLOWERS_MAX
        async with asyncio.timeout(20):
            while sum(one.done() for one in listeners) < refused:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        assert sum(one.done() for one in listeners) == refused
        assert await Remote(w.home).kill("run", w.run.id) == [w.run.id]
        for one in listeners:
            one.cancel()
        await asyncio.gather(*listeners, return_exceptions=True)
        await served.close()


async def _first(remote: Remote, run: str) -> object:
    async for told in remote.printed(run, since_start=True):
        return told
    return None


async def test_whoever_is_no_operator_hears_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: object) -> str:
        raise CallDenied("no")

    async with control(tmp_path) as w:
        served = Control(w.kernel)
        await served.open(runs=True)
        w.kernel.runs.heard(w.run.id, "secret")
        assert await _first(Remote(w.home), w.run.id) == (w.run.id, "secret")
        monkeypatch.setattr("ring0.gateway.control._peer", refused)
        with pytest.raises(Ring0Error, match="no"):  # He is told why, too.
            await _first(Remote(w.home), w.run.id)
        await served.close()


async def test_whoever_loses_the_role_while_he_looks_on_hears_no_more(tmp_path: Path) -> None:
    async with control(tmp_path) as w:
        served = Control(w.kernel)
        await served.open(runs=True)
        w.kernel.runs.heard(w.run.id, "before")
        heard: list[str] = []

        async def look_on() -> None:
            async for _, said in Remote(w.home).printed(w.run.id, since_start=True):
                heard.append(said)

        looks_on = asyncio.ensure_future(look_on())
        while not heard:
            await asyncio.sleep(0.01)
        w.kernel.logins.take_up(None, {Role.VIEWER: ("somebody else",)})
        w.kernel.runs.heard(w.run.id, "after")
        await asyncio.wait_for(looks_on, 5)
        assert heard == ["before"]
        await served.close()


async def test_too_many_who_ask_for_runs_are_told_to_come_back_and_do_so_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with control(tmp_path) as w:
        served = Control(w.kernel)
        await served.open(runs=True)
        monkeypatch.setattr(limits, "RUNS_BEGUN_AT_ONCE_MAX", 0)
        runtime = Simulated()
        began_us = runtime.monotonic_us()
        asked = Remote(w.home, runtime).start(AgentManifest(name="a", folder="/"), (), "t", None)
        with pytest.raises(Ring0Error) as caught:
            await asked
        assert caught.value.code == "busy" and caught.value.exit_code == 3
        waited_s = (runtime.monotonic_us() - began_us) / 1_000_000
        assert waited_s >= limits.CONTROL_RECONNECT_S_MAX
        await served.close()


# --- who holds a folder --------------------------------------------------------------------------


def test_a_supervisor_is_known_by_its_lock_and_by_nothing_that_it_left(tmp_path: Path) -> None:
    assert holding.supervisor(tmp_path) is None
    lock = holding.hold_as_supervisor(tmp_path)
    assert holding.supervisor(tmp_path) == os.getpid()
    with pytest.raises(KernelBusy, match=str(os.getpid())):
        holding.hold_as_supervisor(tmp_path)
    os.close(lock)
    assert (tmp_path / "serve.lock").read_text() == f"{os.getpid()}\n"
    assert holding.supervisor(tmp_path) is None


async def test_a_command_waits_for_a_worker_only_where_a_daemon_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Simulated()
    began_us = runtime.monotonic_us()
    with pytest.raises(KernelBusy):
        await Remote(tmp_path, runtime).kill("all", "")
    assert runtime.monotonic_us() == began_us
    lock = holding.hold_as_supervisor(tmp_path)
    try:
        with pytest.raises(KernelBusy):
            await Remote(tmp_path, runtime).kill("all", "")
    finally:
        os.close(lock)
    waited_s = (runtime.monotonic_us() - began_us) / 1_000_000
    assert limits.CONTROL_RECONNECT_S_MAX <= waited_s <= limits.CONTROL_RECONNECT_S_MAX + 1


def test_the_operators_priority_is_of_the_run_and_else_the_manifests_stands() -> None:
    family = Family(manifest=AgentManifest(name="a", priority=4))
    assert prioritised(family, None).manifest.priority == 4
    assert prioritised(family, 0).manifest.priority == 0
