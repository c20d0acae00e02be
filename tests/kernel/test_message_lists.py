"""A conversation takes room for what is new of it, and each question is on record to the byte."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
from kernel_world import world
from spoken import Spoken, priced, said

from ring0 import limits
from ring0.kernel import messagelists, values
from ring0.kernel.messagelists import MessageLists, split
from ring0.observability import verify
from ring0.store.lists import Listed
from ring0.types import Budget, CallKind

BUDGET = Budget(calls=10_000, tokens=500_000_000, cost_microusd=1_000_000_000)
TURNS = 500
MESSAGE = "what the customer wrote about order %06d, " * 12
"""Half a kilobyte."""


def message(role: str, number: int) -> dict[str, str]:
    return {"role": role, "content": MESSAGE % ((number,) * 12)}


def stored_bytes(w: Any) -> int:
    with w.store.snapshot() as moment:
        return sum(len(where) + len(value) for where, _, value in moment.blobs())


async def talk(w: Any, turns: int) -> tuple[list[int], int]:
    """What lies in the store after each turn; and all that was asked, one request after another."""
    told: list[dict[str, str]] = []
    sizes, whole = [], 0
    for turn in range(turns):
        told.append(message("user", 2 * turn))
        asked = {"messages": list(told), "max_tokens": 100}
        whole += len(values.canonical(asked))
        outcome = await w.call("default", asked, kind=CallKind.MODEL)
        assert outcome.error is None, outcome.error
        told.append(message("assistant", 2 * turn + 1))
        if turn % 50 == 49:
            await w.store.flush()
            sizes.append(stored_bytes(w))
    return sizes, whole


async def test_five_hundred_turns_grow_by_what_each_adds(tmp_path: Path) -> None:
    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        Spoken(w, *[said(1, 1)] * TURNS)
        sizes, whole = await talk(w, TURNS)
        steps = [after - before for before, after in itertools.pairwise(sizes)]
        assert max(steps) < 1.25 * min(steps), f"it grows with its length: {steps}"
        assert whole > 100_000_000, "as whole requests"
        assert sizes[-1] < whole / 30, (sizes[-1], whole)
        print(f"{TURNS} turns: {whole:,} bytes asked, {sizes[-1]:,} stored")
        assert (await w.row()).stored_bytes < 2 * sizes[-1], "nor is it charged for its length"
        report = await verify(w.store)
        assert report.ok and report.unnamed == 0, report.problems
        calls = await w.calls()
        for number in (0, 1, 7, 16, 100, TURNS - 1):
            asked = msgspec.json.decode(await w.store.blob(calls[number].args))
            assert [each["content"] for each in asked["messages"]] == [
                message("", n)["content"] for n in range(2 * number + 1)
            ]


async def test_a_message_that_was_asked_before_is_not_hashed_again(tmp_path: Path) -> None:
    hashed = 0
    real, real_list = messagelists.address, messagelists.list_address

    def counting(key: bytes, value: bytes) -> str:
        nonlocal hashed
        hashed += len(value)
        return (real_list if isinstance(value, Listed) else real)(key, value)

    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        Spoken(w, *[said(1, 1)] * 60)
        with (
            mock.patch.object(messagelists, "address", counting),
            mock.patch.object(messagelists, "list_address", counting),
        ):
            sizes, whole = await talk(w, 60)
        assert sizes
        assert hashed < 3 * 120 * len(MESSAGE), (hashed, whole)


async def test_a_conversation_that_is_told_otherwise_is_kept_as_it_is_told(tmp_path: Path) -> None:
    """Clients shorten what was said, or go back: nothing of that may change what is on record."""
    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        all_of_it = [message("user", number) for number in range(40)]
        ways = [
            all_of_it,
            all_of_it[:20],
            all_of_it[10:],
            list(reversed(all_of_it)),
            [all_of_it[0]] * 30,
            [{"role": "user", "content": "], ["}, *all_of_it],
            [*all_of_it, {"role": "user", "content": "é🦊" * 40}],
        ]
        Spoken(w, *[said(1, 1)] * len(ways))
        for messages in ways:
            asked = {"messages": messages, "max_tokens": 7, "tools": []}
            assert (await w.call("default", asked, kind=CallKind.MODEL)).error is None
        await w.store.flush()
        for call, messages in zip(await w.calls(), ways, strict=True):
            wanted = values.canonical({"messages": messages, "max_tokens": 7, "tools": []})
            assert await w.store.blob(call.args) == wanted
        assert (await verify(w.store)).ok


async def test_parts_of_a_question_that_was_not_written_are_written_with_the_next(
    tmp_path: Path,
) -> None:
    async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
        lists: MessageLists = w.run.lists

        class Asked:
            kind = CallKind.MODEL
            args = {"messages": [message("user", n) for n in range(30)]}  # noqa: RUF012

        _, first = lists.stored(b"k", Asked())  # type: ignore[arg-type]
        _, again = lists.stored(b"k", Asked())  # type: ignore[arg-type]
        assert first == again and len(first) > 30
        lists.kept(first)
        assert lists.stored(b"k", Asked())[1] == {}  # type: ignore[arg-type]


async def test_what_is_forgotten_of_a_long_conversation_is_written_once_more(
    tmp_path: Path,
) -> None:
    with mock.patch.object(messagelists.limits, "LIST_PARTS_CACHED_SIZE_BYTES_MAX", 9_000):
        async with world(tmp_path / "home", manifest=priced(BUDGET)) as w:
            Spoken(w, *[said(1, 1)] * 50)
            await talk(w, 50)
            assert w.run.lists._size_bytes <= 9_000 and len(w.run.lists._kept) < 60
            last = (await w.calls())[-1]
            assert len(msgspec.json.decode(await w.store.blob(last.args))["messages"]) == 99
            assert (await verify(w.store)).ok


def test_the_parts_are_the_canonical_bytes() -> None:
    messages = [message("user", n) for n in range(20)]
    for args in (
        {"messages": messages, "a": 1, "z": [1, 2]},
        {"dialect": "openai", "body": {"input": messages, "model": "m"}, "model": "m"},
        {"dialect": "x", "body": {"contents": messages}, "profile": "p"},
    ):
        value = values.canonical(args)
        parts = split(value, args)
        assert b"".join(parts) == value and len(parts) == 22


def test_more_messages_than_a_model_may_be_asked_with_are_one_value() -> None:
    for count, parts in (
        (limits.MODEL_MESSAGES_MAX, limits.MODEL_MESSAGES_MAX + 2),
        (1_000_000, 0),
    ):
        args = {"messages": [1] * count}
        assert len(split(values.canonical(args), args)) == parts
