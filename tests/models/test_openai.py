"""The provider `openai` against a real server on loopback: what it sends, bears and never shows."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from ring0 import errors, limits
from ring0.models import ModelRequest, parse_request, provider
from ring0.models.names import NameMap
from ring0.runtime import Runtime
from ring0.types import ModelConfig

KEY = "sk-test-9f8e7d6c5b4a39281706"
REQUEST = {
    "messages": [
        {"role": "system", "content": "be"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [{"id": "c1", "name": "crm.query", "args": {"q": 1}}]},
        {"role": "tool", "content": "[]", "tool_call_id": "c1"},
    ],
    "tools": [
        {"name": "crm.query", "description": "d", "schema": {"type": "object"}},
        {"name": "crm__query"},
    ],
    "max_tokens": 64,
}


class Clock(Runtime):
    """A runtime that notes how long it was asked to sleep."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def random_bytes(self, count: int) -> bytes:
        return b"\0" * count


class Stub:
    """A server that answers in turn, the last answer again and again."""

    def __init__(self, *answers: Callable[[], web.StreamResponse]) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[dict[str, str], Any]] = []

    async def __aenter__(self) -> Stub:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/chat/completions", self.on)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.port = self.runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.runner.cleanup()

    async def on(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((dict(request.headers), await request.json()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer()

    async def ask(self, clock: Clock | None = None, key: str = KEY, again: Any = None) -> Any:
        config = ModelConfig(
            provider="openai", model="m-1", base_url=f"http://127.0.0.1:{self.port}/v1/"
        )
        made = provider(config, "", key, clock or Clock())
        assert KEY not in repr(made) + str(made)
        try:
            return await made.answer(parse_request(REQUEST), "r-1/0/3", again)
        finally:
            await made.close()


def says(content: str | None = "hello", calls: Any = None, **more: Any) -> Any:
    message = {"role": "assistant", "content": content, "tool_calls": calls}
    usage = {"prompt_tokens": 11, "completion_tokens": 7}
    body = {"choices": [{"message": message, "finish_reason": "stop"}], "model": "m-1-2026",
            "usage": usage, **more}  # fmt: skip
    return lambda: web.json_response(body)


def call(name: str, arguments: Any, identity: str = "x1") -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def status(code: int, text: str = "", **headers: str) -> Any:
    body = {"error": {"message": text}}
    return lambda: web.json_response(body, status=code, headers=headers)


async def failure(stub: Stub, clock: Clock | None = None) -> errors.ModelFailed:
    async with stub:
        with pytest.raises(errors.ModelFailed) as caught:
            await stub.ask(clock)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)
    assert KEY not in shown and KEY[8:] not in shown
    assert len(str(caught.value)) < 1_000
    return caught.value


async def test_a_tool_round_trip_maps_names_both_ways() -> None:
    async with Stub(says(None, [call("crm__query", '{"q": 2}')])) as stub:
        answer = await stub.ask()
    ((headers, body),) = stub.seen
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Idempotency-Key"] == "r-1/0/3"
    first, second = (tool["function"]["name"] for tool in body["tools"])
    assert second == "crm__query" and first != second and first.startswith("crm__query_")
    assert body["messages"][2]["tool_calls"][0]["function"] == {
        "name": first,
        "arguments": '{"q":1}',
    }
    assert body["messages"][3]["tool_call_id"] == "c1"
    assert (body["stream"], body["max_tokens"], body["model"]) == (False, 64, "m-1")
    assert [(one.id, one.name, one.args) for one in answer.tool_calls] == [
        ("x1", "crm__query", {"q": 2})
    ]
    assert (answer.text, answer.tokens_in, answer.tokens_out) == ("", 11, 7)
    assert answer.model == "m-1-2026"
    async with Stub(says(None, [call(first, "")])) as stub:
        answer = await stub.ask()
    assert [(one.name, one.args) for one in answer.tool_calls] == [("crm.query", {})]


async def test_ids_that_a_server_repeats_or_leaves_out_become_different() -> None:
    calls = [call("crm__query", "{}", identity) for identity in ("c1", "", "", "x", "x")]
    async with Stub(says("", calls)) as stub:
        answer = await stub.ask()
    assert len({"c1", *(one.id for one in answer.tool_calls)}) == 6


async def test_without_a_count_tokens_are_estimated() -> None:
    async with Stub(says("x" * 40, usage=None)) as stub:
        answer = await stub.ask()
    assert answer.tokens_out == 10 and answer.tokens_in > 0


async def test_without_a_key_no_authorization_is_sent() -> None:
    async with Stub(says()) as stub:
        await stub.ask(key="")
    assert "Authorization" not in stub.seen[0][0]


async def test_too_many_requests_waits_as_long_as_asked() -> None:
    clock = Clock()
    async with Stub(status(429, "slow", **{"Retry-After": "7"}), says()) as stub:
        assert (await stub.ask(clock)).text == "hello"
    assert clock.slept == [7.0]
    assert stub.seen[0][1] == stub.seen[1][1]


async def test_retry_after_may_be_a_date() -> None:
    clock = Clock()
    long_ago = {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}
    async with Stub(status(503, **long_ago), says()) as stub:
        await stub.ask(clock)
    assert clock.slept == [0.0]


async def test_who_asks_for_too_long_is_not_waited_for() -> None:
    clock = Clock()
    stub = Stub(status(429, "tomorrow", **{"Retry-After": "86400"}))
    error = await failure(stub, clock)
    assert clock.slept == [] and "429" in error.why and "tomorrow" in error.why


async def test_retries_are_bounded_and_back_off() -> None:
    clock = Clock()
    stub = Stub(status(500, "down"))
    error = await failure(stub, clock)
    assert len(stub.seen) == limits.MODEL_RETRIES_MAX + 1
    assert clock.slept == [0.5, 1.0]
    assert "500" in error.why and "3 attempts" in error.what


class Reserved:
    """Counts the attempts that were reserved again; has room for so many."""

    def __init__(self, most: int = 9) -> None:
        self.count = 0
        self.most = most

    async def __call__(self) -> None:
        if self.count == self.most:
            raise errors.LimitReached("No room.")
        self.count += 1


async def test_an_attempt_after_one_that_may_have_been_paid_for_is_reserved_again() -> None:
    again = Reserved()
    async with Stub(status(500), status(503), says()) as stub:
        await stub.ask(again=again)
    assert again.count == 2


async def test_an_attempt_after_one_that_was_turned_away_is_not_reserved_again() -> None:
    again = Reserved()
    async with Stub(status(429), says()) as stub:
        await stub.ask(again=again)
    assert len(stub.seen) == 2 and again.count == 0


async def test_without_room_for_another_attempt_none_is_made() -> None:
    async with Stub(status(500), says()) as stub:
        with pytest.raises(errors.LimitReached):
            await stub.ask(again=Reserved(0))
    assert len(stub.seen) == 1


@pytest.mark.parametrize(
    ("answer", "unspent"),
    [
        (status(401), True),
        (status(429), True),
        (status(500), False),
        (status(302), False),
        (lambda: web.Response(text="<html>"), False),
    ],
    ids=["turned away", "too many", "down", "elsewhere", "unreadable"],
)
async def test_a_failure_says_whether_it_can_have_been_paid_for(answer: Any, unspent: bool) -> None:
    assert (await failure(Stub(answer))).unspent is unspent


async def test_who_counts_no_tokens_or_too_many_has_them_estimated() -> None:
    for usage in (None, {}, {"prompt_tokens": -1, "completion_tokens": 5},
                  {"prompt_tokens": 10**15, "completion_tokens": 5}):  # fmt: skip
        async with Stub(says(usage=usage)) as stub:
            answer = await stub.ask()
        assert answer.estimated and answer.tokens_in < 10_000
    async with Stub(says()) as stub:
        assert not (await stub.ask()).estimated


async def test_what_a_retry_cannot_mend_is_not_retried() -> None:
    for code in (400, 401, 403, 404, 302):
        stub = Stub(status(code, "no", Location="http://127.0.0.1:1/"))
        error = await failure(stub)
        assert len(stub.seen) == 1 and str(code) in error.why


async def test_a_server_that_is_not_there_is_tried_a_bounded_number_of_times() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config = ModelConfig(
            provider="openai", model="m", base_url=f"http://127.0.0.1:{free.getsockname()[1]}"
        )
        clock = Clock()
        made = provider(config, "", KEY, clock)
        with pytest.raises(errors.ModelFailed) as caught:
            await made.answer(parse_request(REQUEST), "k")
        await made.close()
    assert len(clock.slept) == limits.MODEL_RETRIES_MAX
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(text="<html>"),
        lambda: web.Response(body=b"\xff\xfe"),
        lambda: web.Response(body=b"[" * 100_000),
        lambda: web.json_response({}),
        lambda: web.json_response({"choices": []}),
        lambda: web.json_response({"choices": [{"message": {"content": [1]}}]}),
        says("", [call("f", "{")]),
        says("", [call("f", "[]")]),
        says("", [call("f", '{"a": 1, "a": 2}')]),
        says("", [call("f", '{"a": NaN}')]),
        says("", [call("f", '{"a": "\\ud800"}')]),
        says("", [call("f", "[" * 100_000)]),
        says("", [call("", "{}")]),
        says("", [call("f" * 1_000, "{}")]),
        says("", [call("f", {"a": 1})]),
        says("", [call("f", "{}")] * 100),
    ],
)
async def test_garbage_is_a_failure_of_the_model(answer: Any) -> None:
    stub = Stub(answer)
    error = await failure(stub)
    assert "can't be read" in error.what and len(stub.seen) == 1


async def test_a_huge_answer_is_cut_off() -> None:
    huge = "x" * (limits.MODEL_ANSWER_SIZE_BYTES_MAX + 1)
    assert "larger than" in (await failure(Stub(says(huge)))).why
    assert "larger than" in (await failure(Stub(status(500, huge)))).why


async def test_a_compressed_answer_is_refused() -> None:
    def packed() -> web.Response:
        return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})

    assert "compressed" in (await failure(Stub(packed))).why


@pytest.mark.parametrize(
    "echo",
    [
        f"Incorrect API key provided: {KEY}",
        f"Bearer {KEY} is wrong",
        f"{KEY[:12]}****{KEY[-8:]}",
        "x" * 285 + KEY,
        f"é{KEY}\x1b[31m\u202e",
    ],
)
async def test_a_key_that_the_provider_echoes_is_not_shown(echo: str) -> None:
    for stub in (Stub(status(401, echo)), Stub(lambda: web.Response(text=echo, status=400))):
        error = await failure(stub)
        shown = str(error)
        assert not any(KEY[i : i + 6] in shown for i in range(len(KEY) - 5))
        assert "\x1b" not in shown and "\u202e" not in shown


async def test_a_key_in_the_answers_own_fields_is_not_shown_in_errors() -> None:
    await failure(Stub(says("", [call(KEY, "{")])))


@pytest.mark.parametrize("key", ["a key", "key\n", "kéy", "a\r\nX-Evil: 1"])
def test_a_key_that_would_break_the_header_is_refused_unseen(key: str) -> None:
    with pytest.raises(errors.ManifestInvalid) as caught:
        provider(ModelConfig(provider="openai", model="m"), "", key, Clock())
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["ftp://x/v1", "api.openai.com", "https://", "https://u:pa55word@x/v1", "https://x/v1?k=pa55word",
     "http://example.com/v1", "http://10.0.0.1/v1", "https://x:port/", "https://[::1/"],
)  # fmt: skip
def test_an_address_that_would_leak_or_mislead_is_refused(url: str) -> None:
    with pytest.raises(errors.ManifestInvalid) as caught:
        provider(ModelConfig(provider="openai", model="m", base_url=url), "", KEY, Clock())
    assert "pa55word" not in str(caught.value)


@pytest.mark.parametrize("config", [ModelConfig(provider="magic"), ModelConfig(provider="openai")])
def test_an_unknown_provider_or_a_missing_model_is_refused(config: ModelConfig) -> None:
    with pytest.raises(errors.ManifestInvalid):
        provider(config, "", "", Clock())


def test_names_are_mapped_one_to_one() -> None:
    names = ["a.b", "a__b", "a b", "a_b", "a/b", "x" * 100, "x" * 99 + ".", "é.b", "a.b" * 30, ""]
    mapped = NameMap(names)
    there = [mapped.there(name) for name in names if name]
    assert len(set(there)) == len(there)
    assert [mapped.back(name) for name in there] == [name for name in names if name]
    assert all(
        len(name) <= 64 and name.replace("_", "a").replace("-", "a").isalnum() for name in there
    )
    assert NameMap(reversed(names)).there("a.b") == mapped.there("a.b")
    assert mapped.back("never offered") == "never offered"


@pytest.mark.parametrize(
    "change",
    [
        {"messages": []},
        {"messages": [{"role": "boss", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x", "name": "y"}]},
        {"messages": [{"role": "user", "content": 1}]},
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "c9"}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "tool_calls": [{"id": "1", "name": "x", "args": {}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "", "name": "x", "args": {}}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "name": "x", "args": []}]}]},
        {"tools": [{"name": "x"}, {"name": "x"}]},
        {"tools": [{"name": ""}]},
        {"max_tokens": 0},
        {"max_tokens": True},
        {"heat": 1},
        {"temperature": "hot"},
    ],
)
def test_a_request_that_is_not_of_the_form_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(errors.CallInvalid) as caught:
        parse_request({**REQUEST, **change})
    assert caught.value.why


def test_a_request_survives_its_own_writing() -> None:
    import msgspec

    request = parse_request(REQUEST)
    assert isinstance(request, ModelRequest)
    assert parse_request(json.loads(msgspec.json.encode(request))) == request


def test_nothing_that_the_collector_sees_holds_the_key_in_its_repr() -> None:
    made = provider(ModelConfig(provider="openai", model="m"), "", KEY, Clock())
    shown = [repr(one) for one in gc.get_referents(made) if not isinstance(one, type)]
    assert KEY not in "".join(shown)
    asyncio.run(made.close())
