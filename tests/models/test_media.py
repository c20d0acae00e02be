"""Images, sounds and files in a question: bounded, and on record as what nobody looked into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kernel_world import world
from model_servers import Server, chat

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.models import parse_request
from ring0.types import AgentManifest, CallKind, ModelConfig

IMAGE = {"kind": "image", "media_type": "image/png", "data": "aGk="}
FILE = {"kind": "file", "media_type": "application/pdf", "data": "aGk=", "name": "x.pdf"}


def asked(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "look", "parts": list(parts)}]}


async def test_what_nobody_looked_into_is_on_record_as_unscanned(tmp_path: Path) -> None:
    async with Server(chat()) as server:
        config = ModelConfig(provider="openai", model="m", base_url=server.address)
        manifest = AgentManifest(name="clerk", models={"default": config})
        async with world(tmp_path / "home", manifest=manifest) as w:
            text = {"kind": "text", "text": "look"}
            for parts in ((text, IMAGE, FILE, IMAGE), (text,)):
                await w.call("default", asked(*parts), kind=CallKind.MODEL)
            first, second = await w.calls()
            shown = [(await w.evidence(call))["shown"] for call in (first, second)]
            assert shown[0]["dry_run"] == ["unscanned: 3 parts (file, image)"]
            assert not shown[1].get("dry_run")
    kinds = [part["type"] for part in server.asked[0]["messages"][0]["content"]]
    assert kinds == ["text", "image_url", "file", "image_url"]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([IMAGE] * (limits.MODEL_MEDIA_PARTS_MAX + 1), "more than"),
        ([{**IMAGE, "data": "A" * limits.MIB}] * 3 + [IMAGE], "bytes together"),
        ([{**IMAGE, "data": "not base64!"}], "base64"),
        ([{**IMAGE, "data": "aGk=\n"}], "base64"),
        ([{**IMAGE, "media_type": "image/png; x=\r\ny"}], "media_type"),
        ([{**IMAGE, "media_type": ""}], "media_type"),
        ([{**IMAGE, "data": "", "text": "https://x.example/i.png"}], "nothing is fetched"),
    ],
)
def test_what_is_too_much_or_not_well_formed_is_refused(parts: Any, why: str) -> None:
    with pytest.raises(CallInvalid, match=why):
        parse_request(asked(*parts))


def test_a_door_is_held_to_the_same_bounds() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "a?", "format": "wav; x"}}
    body = {"messages": [{"role": "user", "content": [sound]}]}
    with pytest.raises(CallInvalid, match="media_type"):
        parse_request({"dialect": "chat", "body": body})
