"""Each verb takes a role, by one table; what is not in it is done for nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gateway_world import control
from kernel_world import World

from ring0.errors import Ring0Error
from ring0.gateway import roles
from ring0.gateway.control import Direct, Remote
from ring0.gateway.operations import STARTING, VERBS, Operations
from ring0.gateway.roles import ROLE_OF
from ring0.identity.roles import RoleMissing
from ring0.types import Operator, Role

NO_VERB = {"metrics", "printed", "recover"}
"""In the table, and asked for otherwise: by GET, and `ring0 recover` in a process of its own."""


def test_every_verb_is_in_the_table_and_nothing_else_is() -> None:
    assert set(VERBS) - set(ROLE_OF) == set(), "a verb that is done for nobody"
    assert set(ROLE_OF) - set(VERBS) - NO_VERB == set(), "a role for what is not there"


def test_what_takes_no_role_is_only_to_log_in_and_to_ask_who_one_is() -> None:
    free = {verb for verb, role in ROLE_OF.items() if role is None}
    assert free == {"login", "login-finish", "login-code", "logout", "whoami"}


def test_a_verb_that_is_not_in_the_table_is_done_for_nobody() -> None:
    for verb in ("frobnicate", "", "Kill", "kill "):
        with pytest.raises(RoleMissing):
            roles.check(Operator(name="root (uid 0)"), verb)


@pytest.mark.parametrize("verb", sorted(verb for verb, role in ROLE_OF.items() if role))
def test_all_roles_but_the_one_are_not_enough(verb: str) -> None:
    role = ROLE_OF[verb]
    assert role is not None
    roles.check(Operator(name="ada (uid 1)", roles=frozenset({role})), verb)
    with pytest.raises(RoleMissing) as caught:
        roles.check(Operator(name="ada (uid 1)", roles=frozenset(Role) - {role}), verb)
    assert f"role {role}" in caught.value.what


@pytest.mark.parametrize("verb", sorted(VERBS))
async def test_over_the_socket_a_verb_is_refused_before_its_request_is_even_read(
    tmp_path: Path, verb: str
) -> None:
    async with control(tmp_path) as w:
        no_roles(w)
        with pytest.raises(Ring0Error) as caught:
            await Remote(w.home).ask(verb, {"x": "not even well-formed"})
        wanted = "role_missing" if ROLE_OF[verb] else "call_invalid"
        # One that starts runs is served by daemons alone.
        assert caught.value.code == wanted or (verb in STARTING and caught.value.code != "error")


async def test_in_a_process_of_its_own_each_operation_looks_at_the_role_too(
    tmp_path: Path,
) -> None:
    async with control(tmp_path) as w:
        direct = Direct(w.kernel, Operator(name="ada (uid 1)", roles=frozenset()))
        given: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
            "answer": (("a-x",), {"yes": True}),
            "settle": (("c",), {"happened": True}),
            "kill": (("all", ""), {}),
            "undo": (("r-x",), {}),
            "pause": (("r-x",), {}),
            "resume": (("r-x",), {}),
            "send": (("r-x", "hi"), {}),
            "budget": (("r-x", {}), {}),
            "order": ((None,), {}),
            "load": ((), {}),
            "ask": (("reload", {}), {}),
        }
        public = {name for name in vars(Operations) if not name.startswith("_")}
        for name in sorted(public):
            method = getattr(direct, name)
            args, more = given.get(name, ((), {}))
            with pytest.raises((RoleMissing, TypeError)) as caught:
                await method(*args, **more)
            assert name not in given or caught.type is RoleMissing, name
        assert set(given) <= public


async def test_who_may_not_look_sees_nothing_that_runs_print(tmp_path: Path) -> None:
    import aiohttp

    from ring0.gateway.control import SOCKET, Control

    async with control(tmp_path) as w:
        await w.kernel.store.flush()
        served = Control(w.kernel)
        (w.home / SOCKET).unlink()
        await served.open(runs=True)
        no_roles(w)
        try:
            connector = aiohttp.UnixConnector(str(w.home / SOCKET))
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get("http://kernel/v1/printed", params={"run": "x"}) as found,
            ):
                assert found.status == 403
                assert "viewer" in await found.text()
        finally:
            await served.close()


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic cm9vdDpyb290", "bearer r0l_" + "0" * 64, "r0l_" + "0" * 64],
)
async def test_a_login_that_is_shown_in_another_way_is_not_taken_for_none(
    tmp_path: Path, header: str
) -> None:
    import aiohttp

    from ring0.gateway.control import SOCKET

    async with control(tmp_path) as w:
        connector = aiohttp.UnixConnector(str(w.home / SOCKET))
        headers = {"Authorization": header}
        async with (
            aiohttp.ClientSession(connector=connector, headers=headers) as session,
            session.post("http://kernel/v1/kill", data=b'{"scope":"all","target":""}') as response,
        ):
            told = await response.json()
        assert told["error"]["code"] in ("call_invalid", "login_over")
        assert (await w.row()).state == "running"


def no_roles(w: World) -> None:
    w.kernel.logins.take_up(None, {Role.ADMIN: ("nobody (uid 4711)",)})


def test_roles_are_four_and_none_holds_another() -> None:
    assert {str(role) for role in Role} == {"viewer", "operator", "approver", "admin"}
    assert all(role is None or isinstance(role, Role) for role in ROLE_OF.values())
