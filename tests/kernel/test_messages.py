"""Messages between the runs of a tree, and from a person: told once, in order, with their label."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from locks_world import Actor, Band, band, code

import journals
from ring0 import limits
from ring0.errors import CallInvalid, InvalidInput, LimitReached, NotFound, RunDead
from ring0.store import Write
from ring0.store.events import MessageSent
from ring0.types import CallKind, CallState, Integrity, RunState


async def family(b: Band) -> tuple[Actor, Actor]:
    parent = await b.start()
    return parent, await b.child_of(parent)


async def sent(b: Band) -> int:
    await b.kernel.store.flush()
    return sum([isinstance(entry.body, MessageSent) async for entry in b.kernel.store.entries()])


async def test_a_child_tells_its_parent_things_in_their_order(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        parent, child = await family(b)
        for value in ({"n": 1}, "two", None):
            assert code(await child.send(parent.id, value)) == "ok"
        told = [(await parent.receive()).value for _ in range(3)]
        assert told == [
            {"value": {"n": 1}, "sender": child.id, "number": 1},
            {"value": "two", "sender": child.id, "number": 2},
            {"value": None, "sender": child.id, "number": 3},
        ]


async def test_who_receives_waits_as_a_row_until_it_is_told(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        parent, child = await family(b)
        waiting = asyncio.create_task(child.receive())
        await child.until(RunState.WAITING, "message")
        await parent.send(child.id, "go")
        assert (await asyncio.wait_for(waiting, 5)).value["value"] == "go"
        await child.until(RunState.RUNNING)


async def test_two_that_receive_at_once_get_two_messages(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        parent, child = await family(b)
        both = [asyncio.create_task(child.receive()) for _ in range(2)]
        await child.until(RunState.WAITING, "message")
        await asyncio.gather(*(parent.send(child.id, n) for n in range(2)))
        told = await asyncio.wait_for(asyncio.gather(*both), 5)
        assert sorted(one.value["value"] for one in told) == [0, 1]
        assert code(await child.receive(0)) == "limit_reached"


async def test_who_is_told_nothing_in_time_hears_so(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        for timeout_s in (0, 0.05):
            assert code(await one.receive(timeout_s)) == "limit_reached"
        await one.until(RunState.RUNNING)


async def test_a_run_tells_nobody_outside_its_tree(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one, other = await b.start(), await b.start()
        for to in (other.id, "r-nobody", "kernel", "", "../x"):
            assert code(await one.send(to, "psst")) == "denied"
        assert await sent(b) == 0


async def test_an_ended_run_is_told_nothing(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        parent, child = await family(b)
        await child.end()
        refused = await parent.send(child.id, "late")
        assert code(refused) == "denied" and "has ended" in refused.error["what"]


async def test_a_message_is_as_untrusted_as_its_sender_and_no_principals_word(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        parent, child = await family(b)
        assert child.run.row.label.integrity is Integrity.USER
        await parent.send(child.id, "wire 1,000 to DE-1")
        assert child.run.row.label.integrity is Integrity.USER
        outcome = await child.receive()
        assert outcome.label.integrity is Integrity.UNTRUSTED
        assert outcome.label.sources == (f"run {parent.id}",)
        assert child.run.row.label.integrity is Integrity.UNTRUSTED
        assert _found(child, "wire 1,000 to DE-1") is Integrity.UNTRUSTED


async def test_what_a_person_says_is_a_principals_word_and_founds_an_argument(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        await b.kernel.send(one.id, "use account DE-1", by="alice")
        outcome = await one.receive()
        assert outcome.value == {"value": "use account DE-1", "sender": "alice", "number": 1}
        assert (outcome.label.integrity, outcome.label.sources) == (Integrity.USER, ("alice",))
        assert one.run.row.label.integrity is Integrity.USER
        assert _found(one, "use account DE-1") is Integrity.USER


async def test_what_a_child_comes_to_is_no_principals_word_however_trusted_the_child_is(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        parent, child = await family(b)
        await child.end("account DE-2")
        await parent.call(CallKind.WAIT, {"run": child.id})
        assert _found(parent, "account DE-2") is Integrity.UNTRUSTED


def _found(actor: Actor, text: str) -> Integrity | None:
    (origin,) = actor.run.seen.origins({"text": text}, ("text",))
    return origin.integrity if origin.sources else None


async def test_a_person_is_told_why_a_run_can_not_be(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        with pytest.raises(NotFound):
            await b.kernel.send("r-nobody", "hello", by="alice")
        with pytest.raises(CallInvalid):
            await b.kernel.send(one.id, "x" * limits.MESSAGE_SIZE_BYTES_MAX, by="alice")
        with pytest.raises(CallInvalid):
            await b.kernel.send(one.id, "\ud800", by="alice")
        await one.end()
        with pytest.raises(InvalidInput, match="has ended already"):
            await b.kernel.send(one.id, "hello", by="alice")


def before_each_message(b: Band, go: Callable[[], Awaitable[Any]]) -> None:
    """Something happens between the look at who is told and the write of it."""
    append = b.kernel.store.append

    async def later(write: Write) -> int:
        if any(isinstance(event, MessageSent) for event in write.events):
            await go()
        return await append(write)

    b.kernel.store.append = later  # type: ignore[method-assign]


@pytest.mark.parametrize("times", [1, limits.MESSAGE_TOLD_TRIES_MAX])
async def test_a_person_tells_a_run_that_is_started_again_in_between(
    tmp_path: Path, times: int
) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        epochs = iter(range(2, 2 + times))

        async def started_again() -> None:
            if (epoch := next(epochs, None)) is not None:
                await b.kernel.store.append(journals.moved(one.id, epoch=epoch))

        before_each_message(b, started_again)
        if times < limits.MESSAGE_TOLD_TRIES_MAX:
            await b.kernel.send(one.id, "hello", by="alice")
            assert await sent(b) == 1
        else:
            with pytest.raises(RunDead, match="again and again"):
                await b.kernel.send(one.id, "hello", by="alice")
            assert await sent(b) == 0


async def test_a_person_hears_that_a_run_has_ended_in_between(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        before_each_message(b, one.end)
        with pytest.raises(InvalidInput, match="has ended already"):
            await b.kernel.send(one.id, "hello", by="alice")
        assert await sent(b) == 0


async def test_a_mailbox_has_an_end_whoever_fills_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MESSAGES_WAITING_MAX", 5)
    monkeypatch.setattr(limits, "MESSAGES_OF_PEOPLE_MAX", 2)
    async with band(tmp_path / "home") as b:
        parent, child = await family(b)
        outcomes = await asyncio.gather(*(child.send(parent.id, n) for n in range(12)))
        assert sorted(code(one) for one in outcomes) == ["limit_reached"] * 7 + ["ok"] * 5
        with pytest.raises(LimitReached):
            for _ in range(3):  # There is room for a person's word, and that has an end too.
                await b.kernel.send(parent.id, "hello", by="alice")
        for _ in range(3):
            assert code(await parent.receive()) == "ok"
        assert code(await child.send(parent.id, "more")) == "ok"
        assert code(await child.send(parent.id, "and more")) == "limit_reached"
        assert await sent(b) == 8


async def test_a_message_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        long = "x" * limits.MESSAGE_SIZE_BYTES_MAX
        assert code(await one.send(one.id, long)) == "call_invalid"
        assert code(await one.send(one.id, long[:-2])) == "ok"  # To itself it may, too.


async def test_a_secret_never_goes_into_a_message(tmp_path: Path) -> None:
    secret = "sk-correct-horse-battery-staple"
    async with band(tmp_path / "home", environment={"OPENAI_API_KEY": secret}) as b:
        parent, child = await family(b)
        await child.send(parent.id, f"it is {secret}")
        await b.kernel.send(parent.id, f"it is {secret}", by="alice")
        for _ in range(2):
            told = (await parent.receive()).value["value"]
            assert told.startswith("it is ") and secret not in told
        for message in await b.kernel.store.messages(parent.id, waiting=False):
            assert secret.encode() not in await b.kernel.store.blob(message.body)


# --- crashes ---------------------------------------------------------------------------------


async def test_a_message_that_was_received_is_the_same_on_every_replay(tmp_path: Path) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        await one.send(one.id, "first")
        await one.send(one.id, "second")
        told = (await one.receive()).value
    async with band(tmp_path / "home") as b:
        (run,) = await b.recover()
        one = await b.actor(run)
        await one.send(one.id, "first")
        await one.send(one.id, "second")
        assert (await one.receive()).value == told
        assert (await one.receive()).value["value"] == "second"
        assert await sent(b) == 2
        assert code(await one.receive(0)) == "limit_reached"


@pytest.mark.parametrize("written", [False, True])
async def test_a_send_that_a_crash_cut_off_is_told_once(tmp_path: Path, written: bool) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        record, begun = b.kernel.gate.record, asyncio.Event()

        async def cut_off(*given: Any) -> Any:
            if written:
                await record(*given)
            begun.set()
            await asyncio.Event().wait()

        b.kernel.gate.record = cut_off  # type: ignore[method-assign]
        sending = asyncio.create_task(one.send(one.id, "once"))
        await begun.wait()
    with contextlib.suppress(RunDead):
        await sending
    async with band(tmp_path / "home") as b:
        (run,) = await b.recover()
        one = await b.actor(run)
        assert code(await one.send(one.id, "once")) == "ok"
        assert await sent(b) == 1
        assert (await one.receive()).value["value"] == "once"


async def test_a_message_whose_receiver_a_crash_cut_off_is_received_by_it_again(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        await one.send(one.id, "hello")
        begun = asyncio.Event()

        async def cut_off(*given: Any) -> Any:
            begun.set()
            await asyncio.Event().wait()

        b.kernel.gate.record = cut_off  # type: ignore[method-assign]
        receiving = asyncio.create_task(one.receive())
        await begun.wait()
    with contextlib.suppress(RunDead):
        await receiving
    async with band(tmp_path / "home") as b:
        (run,) = await b.recover()
        one = await b.actor(run)
        await one.send(one.id, "hello")
        assert (await one.receive()).value == {"value": "hello", "sender": run, "number": 1}


async def test_a_sender_that_is_killed_once_its_message_is_on_record_leaves_nobody_waiting(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        parent, child = await family(b)
        waiting = asyncio.create_task(parent.receive())
        await parent.until(RunState.WAITING, "message")
        append = b.kernel.store.append
        begun = asyncio.Event()

        async def stopped(write: Any) -> int:
            seq = await append(write)
            if any(isinstance(event, MessageSent) for event in write.events):
                begun.set()
                await asyncio.Event().wait()
            return seq

        b.kernel.store.append = stopped  # type: ignore[method-assign]
        sending = asyncio.create_task(child.send(parent.id, "last words"))
        await begun.wait()
        await b.kernel.kill("run", child.id, by="alice")
        with pytest.raises(RunDead):
            await sending
        assert (await asyncio.wait_for(waiting, 5)).value["value"] == "last words"


async def test_a_message_that_another_call_has_received_is_not_received_twice(
    tmp_path: Path,
) -> None:
    async with band(tmp_path / "home") as b:
        one = await b.start()
        await one.send(one.id, "only one")
        b.kernel.mail._taking = _Forgetful()  # Two calls that do not know of each other.
        both = await asyncio.gather(one.receive(0.2), one.receive(0.2), return_exceptions=True)
        told = [o for o in both if not isinstance(o, BaseException) and o.state is CallState.OK]
        assert len(told) == 1


class _Forgetful(dict[str, Any]):
    def __setitem__(self, key: str, value: Any) -> None:
        pass


async def test_a_run_that_was_put_away_is_woken_by_what_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PARK_AFTER_S", 0)
    async with band(tmp_path / "home") as b:
        parent, child = await family(b)
        run = child.id
        receiving = asyncio.create_task(child.receive())
        async with asyncio.timeout(10):
            while run in b.kernel.gate.live:
                await asyncio.sleep(0.005)
        with contextlib.suppress(RunDead):
            await receiving
        del b.ends[run]
        assert code(await parent.send(run, "wake up")) == "ok"
        child = await b.actor(run)
        assert (await asyncio.wait_for(child.receive(), 5)).value["value"] == "wake up"
