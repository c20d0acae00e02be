"""One table says what becomes of each method of MCP; what is not in it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_origin

import mcp_types
import pytest
from mcp_doors import spoken
from mcp_types import methods as known

from ring0.gateway.mcp.answering import Answering
from ring0.gateway.mcp.table import BOTH, HANDSHAKE, METHODS, STATELESS, method_of
from ring0.types import CallKind

REQUESTS = {**known.CLIENT_REQUESTS, **known.SERVER_REQUESTS}
NOTIFICATIONS = {**known.CLIENT_NOTIFICATIONS, **known.SERVER_NOTIFICATIONS}


def methods_of_the_library() -> set[str]:
    """All that its maps hold, and all that any model of a message names."""
    found = {method for method, _ in (*REQUESTS, *NOTIFICATIONS)}
    for name in dir(mcp_types):
        fields = getattr(getattr(mcp_types, name), "model_fields", {})
        annotation = fields["method"].annotation if "method" in fields else None
        if "Literal" in str(get_origin(annotation)):
            found.update(get_args(annotation))
    return found


def test_every_method_of_the_librarys_types_is_in_the_table() -> None:
    methods = methods_of_the_library()
    assert len(methods) > 30 and {"tasks/get", "notifications/tasks/status"} <= methods
    assert methods <= METHODS.keys()


def test_each_era_takes_what_its_revisions_have_and_no_more() -> None:
    for era, versions in (("handshake", HANDSHAKE), ("stateless", STATELESS)):
        for name in METHODS:
            asked = {
                v for m, v in (*known.CLIENT_REQUESTS, *known.CLIENT_NOTIFICATIONS) if m == name
            }
            if method_of(name, era) is not None:
                assert asked & set(versions), f"{name} is of no revision of {era}"
        sent = {m for m, v in known.CLIENT_REQUESTS if v in versions}
        refused = {m for m in sent if method_of(m, era) is None}
        told_why = {m for m in refused if METHODS[m].why}
        assert refused == told_why


def test_what_a_server_may_send_is_taken_from_no_client() -> None:
    for method, _ in known.SERVER_REQUESTS:
        if method != "ping":
            assert all(method_of(method, era) is None for era in BOTH)


def test_what_does_something_is_a_call_and_what_is_a_call_has_a_kind() -> None:
    for method in METHODS.values():
        assert (method.how == "call") == (method.kind is CallKind.TOOL)
        assert method.how != "refused" or method.why
    does = ("tools/call", "resources/", "prompts/", "completion/")
    calls = {name for name, method in METHODS.items() if method.how == "call"}
    assert calls == {
        name
        for name, method in METHODS.items()
        if name.startswith(does) and method.how != "refused"
    }


def test_every_request_that_is_taken_has_somebody_who_answers() -> None:
    taken = {
        name
        for name, method in METHODS.items()
        if method.how != "refused"
        and not name.startswith("notifications/")
        and name != "initialize"
    }
    run: object = None
    answers = Answering.__new__(Answering)
    Answering.__init__(answers, run, run, run)  # type: ignore[arg-type]
    assert set(answers._handlers) == taken


async def test_a_method_that_is_refused_says_why(tmp_path: Path) -> None:
    async with spoken(tmp_path) as s:
        session = await s.session()
        for name in ("tasks/get", "sampling/createMessage"):
            error = (await session.ask(name))["error"]
            assert error["code"] == -32601 and error["message"].endswith(METHODS[name].why)


@pytest.mark.parametrize(
    "name", ["", "tools/List", "tools/call ", "rpc.discover", "../call", "x" * 500]
)
async def test_what_is_not_in_the_table_is_refused(tmp_path: Path, name: str) -> None:
    async with spoken(tmp_path) as s:
        session = await s.session()
        if name:
            answer = await session.ask(name)
            assert answer["error"]["code"] == -32601
            headers = {"Mcp-Method": name.strip() or name}
            status, answer = await s.modern(name, **headers)
            assert (status, answer["error"]["code"]) in ((404, -32601), (400, -32020))
        status, _, answer = await session.send({"jsonrpc": "2.0", "method": name})
        assert status == (202 if name else 400)
        assert not await s.w.calls()
