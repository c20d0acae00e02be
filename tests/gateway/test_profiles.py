"""Normalisation profiles: a client that was started again is known by what it asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from model_doors import asked, said

from ring0.gateway.models import profiles

PATH = "/v1/messages?beta=true"
SESSION = "b8fc8960-2e34-4783-83da-bac410b38ec1"
ANOTHER = "0c735f3d-1b8e-4768-97d5-73977a859e07"


def start(
    session: str = SESSION, day: str = "2026-11-23", build: str = "2.1.330.2af", **more: Any
) -> dict[str, Any]:
    """What Claude Code asks first, in its shape: system blocks, its surroundings, the task."""
    around = f"# Environment\n - Folder: /work\nToday's date is {day}.\nScratch: "
    around += f"/tmp/claude-0/-work/{session}/scratchpad\nThis is session {session}."
    return {
        "model": "claude-x",
        "max_tokens": 100,
        "stream": False,
        "system": [
            {"type": "text", "text": f"x-anthropic-billing-header: cc_version={build}; cch=0a1b2;"},
            {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "What is due?"}]},
            {"role": "system", "content": around, "output_config": {"effort": "medium"}},
        ],
        "metadata": {"user_id": f'{{"device_id":"{session[:8]}","session_id":"{session}"}}'},
        **more,
    }


def who(session: str = SESSION, agent: str = "claude-cli/2.1.330 (external, sdk-py)") -> Any:
    return {"User-Agent": agent, "X-Claude-Code-Session-Id": session}


async def texts(a: Any, *questions: tuple[dict[str, Any], dict[str, str]]) -> list[str]:
    """What is answered to each, where each is asked as a client asks once more."""
    found = []
    for number, (body, headers) in enumerate(questions):
        again = {"x-stainless-retry-count": str(number)}
        status, answer = await a.post(PATH, body, **headers, **again)
        assert status == 200, answer
        found.append(answer["content"][0]["text"])
    return found


@pytest.mark.parametrize(
    "other",
    [
        start(ANOTHER),
        start(day="2026-12-01"),
        start(build="2.1.331.0ff"),
        start(ANOTHER, day="2027/01/01", build="3"),
    ],
)
async def test_a_client_that_was_started_again_finds_its_answers(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    session = ANOTHER if ANOTHER in str(other) else SESSION
    async with asked(tmp_path, said("one"), said("two")) as a:
        told = await texts(a, (start(), who()), (other, who(session)))
        assert told == ["one", "one"] and len(a.model.asked) == 1


@pytest.mark.parametrize(
    ("other", "headers"),
    [
        (start(max_tokens=101), who()),
        (start(messages=[{"role": "user", "content": "Something else"}]), who()),
        (start(ANOTHER), who(agent="python-requests/2")),
    ],
)
async def test_what_is_asked_otherwise_is_another_question(
    tmp_path: Path, other: dict[str, Any], headers: dict[str, str]
) -> None:
    async with asked(tmp_path, said("one"), said("two")) as a:
        assert await texts(a, (start(), who()), (other, headers)) == ["one", "two"]


async def test_a_date_that_the_client_does_not_tell_as_todays_counts(tmp_path: Path) -> None:
    def ask(day: str) -> dict[str, Any]:
        return start(messages=[{"role": "user", "content": f"The invoice is due {day}"}])

    async with asked(tmp_path, said("one"), said("two")) as a:
        both = await texts(a, (ask("2026-11-23"), who()), (ask("2026-11-24"), who()))
        assert both == ["one", "two"]


async def test_the_session_of_a_start_before_that_stands_in_the_history_is_no_difference(
    tmp_path: Path,
) -> None:
    """What the model answered the first time names the folder of that session; it is on record and
    comes back in the history of the second."""

    def later(session: str) -> dict[str, Any]:
        call = {"type": "tool_use", "id": "c1", "name": "Read", "input": {"path": OLD_FILE}}
        result = {"type": "tool_result", "tool_use_id": "c1", "content": "empty"}
        body = start(session)
        turns = [
            *body["messages"],
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ]
        return {**body, "messages": turns}

    async with asked(tmp_path, said("one"), said("two")) as a:
        both = await texts(a, (later(SESSION), who()), (later(ANOTHER), who(ANOTHER)))
        assert both == ["one", "one"]


OLD_FILE = f"/tmp/claude-0/-work/{SESSION}/scratchpad/x"


async def test_the_profile_is_journalled_by_name_and_what_was_asked_as_it_was(
    tmp_path: Path,
) -> None:
    async with asked(tmp_path, said("one"), said("two")) as a:
        await a.post(PATH, start(), **who())
        (call,) = await a.w.calls()
        args = msgspec.json.decode(await a.w.kernel.store.blob(call.args))
        assert args["profile"] == "claude-code/1" and args["dialect"] == "messages"
        assert "2026-11-23" in str(args["body"]) and SESSION in str(args["body"])
        assert "2026-11-23" in str(a.model.asked[0].messages)
        await a.post(PATH, start(), **who(agent="curl/8"))
        args = msgspec.json.decode(await a.w.kernel.store.blob((await a.w.calls())[1].args))
        assert "profile" not in args


def test_a_session_that_is_no_uuid_takes_nothing_out() -> None:
    body = start()
    headers = {"user-agent": "claude-cli/1", "x-claude-code-session-id": "e"}
    found = profiles.find("messages", headers, body)
    assert found is not None and "# Environment" in str(found.normal(body))
