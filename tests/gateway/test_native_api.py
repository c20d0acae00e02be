"""The native API and its description: as it says of itself it behaves, whatever is sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from gateway_world import NOW, Answer, Doors, doors
from kernel_world import Doing

from ring0.gateway import native, openapi
from ring0.types import ApprovalState, Budget, CallKind, Effect, Operator

OPERATIONS = ("POST /v1/call", "GET /v1/run", "POST /v1/result", "GET /v1/openapi.json")
SENT = [(operation, True) for operation in OPERATIONS] + [
    # The others take nothing that could be wrong.
    ("POST /v1/call", False),
    ("POST /v1/result", False),
]
PLENTY = Budget(calls=1_000_000, tokens=10**9)
EXAMPLES = 150


async def described(d: Doors) -> dict[str, Any]:
    answer = await d.ask("/v1/openapi.json", b"", method="GET")
    assert answer.status == 200
    return answer.json


def fits(document: dict[str, Any], answer: Answer, path: str, method: str = "post") -> None:
    """Whether an answer is one that the description names."""
    response = document["paths"][path][method]["responses"][str(answer.status)]
    schema = response["content"]["application/json"]["schema"]
    whole = {**schema, "components": document["components"]}
    jsonschema_rs.Draft202012Validator(whole).validate(answer.json)


async def test_the_door_describes_itself_by_openapi_3_1(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        document = await described(d)
        assert document["openapi"].startswith("3.1")
        said = {
            f"{method.upper()} {path}"
            for path, item in document["paths"].items()
            for method in item
        }
        assert said == set(OPERATIONS)
        assert json.dumps(document) == json.dumps(json.loads(openapi.document()))


def test_every_kind_of_call_that_may_be_asked_for_is_described_and_no_other() -> None:
    document = json.loads(openapi.document())
    body = document["paths"]["/v1/call"]["post"]["requestBody"]["content"]["application/json"]
    kinds = body["schema"]["discriminator"]["mapping"]
    assert set(kinds) == {str(kind) for kind in native.ASKED}
    assert not {"egress", "proposal", "observed"} & set(kinds)
    for kind, reference in kinds.items():
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
        assert schema["properties"]["kind"] == {"const": kind}
        assert schema["additionalProperties"] is False


async def test_the_arguments_described_are_those_that_the_gate_checks(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        schemas = (await described(d))["components"]["schemas"]
        for kind in set(native.ASKED) - {CallKind.TOOL}:
            checked = d.w.kernel.gate.kinds[kind].manifest.schema
            assert schemas[f"Call.{kind}"]["properties"]["args"] == json.loads(json.dumps(checked))
            needed = "args" in schemas[f"Call.{kind}"]["required"]
            assert needed == bool(checked.get("required"))


async def test_an_answer_and_a_refusal_are_as_they_are_described(tmp_path: Path) -> None:
    async with doors(tmp_path, budget=Budget(calls=2)) as d:
        document = await described(d)
        d.w.tool(Doing("act"))
        fits(document, await d.ask("/v1/run", b"", method="GET"), "/v1/run", "get")
        for body in (
            NOW,
            {"kind": "tool", "name": "act", "args": {}},
            {**NOW, "counter": 9},
            {"kind": "tool", "name": "nothing"},
            {"kind": "egress"},
            [],
            b"{",
        ):
            fits(document, await d.ask("/v1/call", body), "/v1/call")
        for body in ({}, {"error": {"what": "no"}}, {"value": 1}):
            fits(document, await d.ask("/v1/result", body), "/v1/result")


async def test_a_refusal_names_the_field_that_does_not_fit(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        for body, word in (
            ({**NOW, "approved": True}, "approved"), ({**NOW, "counter": "1"}, "counter"),
            ({**NOW, "path": "../0"}, "path"), ({**NOW, "name": "n" * 129}, "name"),
            ({}, "kind"), ([], "object"),
        ):  # fmt: skip
            answer = await d.ask("/v1/call", body)
            assert answer.status == 422 and word in answer.json["error"]["why"], answer.body
            assert "/v1/openapi.json" in answer.json["error"]["todo"]
        assert await d.w.calls() == []


@contextlib.asynccontextmanager
async def somebody_who_says_yes(d: Doors) -> AsyncIterator[None]:
    """Answers every ask: a held call would hold the test. (Three times no would pause the run.)"""

    async def answer() -> None:
        while True:
            for ask in await d.w.store.approvals(states=[ApprovalState.PENDING]):
                await d.w.kernel.answer(ask.id, yes=True, by=Operator(name="ada"))
            await asyncio.sleep(0.01)

    task = asyncio.create_task(answer())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def soon(body: Any) -> Any:
    """The same call, but none that waits for what never comes."""
    args = body.get("args") if isinstance(body, dict) else None
    if isinstance(args, dict):
        if body["kind"] == "sleep":
            args["seconds"] = 0
        if body["kind"] == "wait" and "message" in args:
            args["timeout_s"] = 0
    return body


@pytest.mark.parametrize(("operation", "valid"), SENT)
async def test_whatever_is_sent_every_answer_is_as_described_and_none_is_a_fault(
    tmp_path: Path, operation: str, valid: bool
) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    method, path = operation.split()
    async with doors(tmp_path, budget=PLENTY) as d, somebody_who_says_yes(d):
        d.w.tool(Doing("act", effect=Effect.ONCE, mutates=True, own=False))
        d.w.tool(Doing("echo", act=lambda args, _: args.get("x")))
        described_as = schemathesis.openapi.from_dict(await described(d))
        mode = (
            schemathesis.GenerationMode.POSITIVE if valid else schemathesis.GenerationMode.NEGATIVE
        )
        seen: Counter[int] = Counter()

        @given(case=described_as[path][method].as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def ask(case: Any) -> None:
            if valid and method == "POST":
                case.body = soon(case.body)
            response = case.call(base_url=f"http://127.0.0.1:{d.port}", timeout=20)
            seen[response.status_code] += 1
            case.validate_response(
                response,
                checks=[
                    not_a_server_error,
                    checks.status_code_conformance,
                    checks.content_type_conformance,
                    checks.response_schema_conformance,
                    checks.negative_data_rejection,
                ],
            )

        await asyncio.to_thread(ask)
        assert seen[200] if valid else not seen[200]
