"""The tool `http`: each of its calls is judged with the URL that it would fetch."""

from __future__ import annotations

import pytest
from egress_world import CANARY, OK, World, answer

from ring0 import limits
from ring0.errors import (
    CallDenied,
    CallInvalid,
    EffectUnknown,
    ManifestInvalid,
    ToolFailed,
)
from ring0.tools.driver import CallContext
from ring0.tools.egress import Credential, bind, http
from ring0.tools.registry import Tool
from ring0.types import Budget, Integrity, Label, Mode, Run, RunState


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.close()


def context(run: str = "r-1") -> CallContext:
    row = Run(
        id=run,
        state=RunState.RUNNING,
        root=run,
        agent="a",
        agent_digest="",
        mode=Mode.ISOLATED,
        tenant="t",
        principal="p",
        task="",
        label=Label(integrity=Integrity.USER),
        budget=Budget(),
        started_us=0,
        deadline_us=0,
    )
    return CallContext(
        call=f"{run}/0/1", name="web.get", begun_us=0, run=row, workspace=None, sandboxes=None
    )


class Beyond:
    """What the kernel has beyond itself."""

    def __init__(self, world: World, bindings: dict) -> None:
        self.egress = world.egress()
        self._bindings = bindings

    def of(self, names: tuple[str, ...], place: str) -> list[Credential]:
        for name in names:
            if name not in self._bindings:
                raise ManifestInvalid(f"{place} names {name}, which is not there.")
        return [bind(name, CANARY, **self._bindings[name]) for name in names]


def web(world: World, bindings=None, **config):
    config = {"use": "http", **config}
    get, request = http.drivers("web", config, Beyond(world, bindings or {}), world.runtime)
    return Tool(get), Tool(request)


async def call(tool: Tool, run: str = "r-1", **args):
    tool.validate(args)
    prepared = await tool.driver.prepare(args, context(run))
    if prepared.forbidden:
        raise CallDenied(prepared.forbidden)
    return prepared, (await tool.driver.execute(args, prepared, context(run)))


async def test_a_page_is_fetched_as_untrusted_text(world):
    server = await world.server(answer(b"<p>hi</p>", b"Content-Type: text/html"), "shop.test")
    get, _ = web(world, egress=[f"https://shop.test:{server.port}"])
    prepared, result = await call(get, url=f"https://SHOP.test:{server.port}/a%2Db#part")
    assert (prepared.host, prepared.method, prepared.effect) == ("shop.test", "GET", "idempotent")
    assert not prepared.mutates and not prepared.own
    assert result.value == {
        "status": 200,
        "headers": {"content-type": "text/html"},
        "text": "<p>hi</p>",
    }
    assert result.label.integrity is Integrity.UNTRUSTED
    assert result.label.sources == (f"https://shop.test:{server.port}/a-b",)


async def test_the_url_that_is_judged_is_the_canonical_one(world):
    get, _ = web(world, egress=["shop.test"])
    prepared = await get.driver.prepare({"url": "https://SHOP.test:443/%7Ea"}, context())
    assert b'"https://shop.test/~a"' in prepared.driver_bytes
    assert prepared.lines == ("GET https://shop.test/~a: 0 bytes",)
    assert get.manifest.critical == ("url",) and get.manifest.egress == ("shop.test",)


async def test_what_no_rule_allows_is_forbidden_before_dns(world):
    get, request = web(world, egress=["shop.test"])
    for tool, args in (
        (get, {"url": "https://evil.test/"}),
        (get, {"url": "http://shop.test/"}),
        (request, {"method": "POST", "url": "https://shop.test/"}),
    ):
        prepared = await tool.driver.prepare(args, context())
        assert "no rule" in prepared.forbidden
    assert world.looked_up == []


@pytest.mark.parametrize(
    "args",
    [{"url": "https://shop.test/../a"}, {"url": "https://127.1/"}, {"url": "file:///etc/passwd"},
     {"url": "https://a@shop.test/"}, {"url": "https://shop.test/", "headers": {"A": "b\r\nC: d"}}],
)  # fmt: skip
async def test_a_url_with_two_readings_is_refused(world, args):
    get, _ = web(world, egress=["shop.test"])
    with pytest.raises(CallInvalid):
        await get.driver.prepare(args, context())


async def test_effects_are_what_the_method_is_and_the_hosts_promise(world):
    rules = ["GET,POST,PUT,DELETE https://shop.test"]
    _, plain = web(world, egress=rules)
    _, keyed = web(world, egress=rules, idempotency_header="Idempotency-Key")
    for method, without, promised in (
        ("GET", "idempotent", "idempotent"),
        ("POST", "once", "idempotent"),
        ("PUT", "once", "idempotent"),
        ("DELETE", "once", "idempotent"),
    ):
        args = {"method": method, "url": "https://shop.test/"}
        assert (await plain.driver.prepare(args, context())).effect == without
        prepared = await keyed.driver.prepare(args, context())
        assert prepared.effect == promised and prepared.mutates is (method != "GET")
    assert plain.manifest.effect == "once"


async def test_the_key_of_a_call_is_the_kernels_and_the_same_on_each_retry(world):
    server = await world.server(OK, "shop.test")
    place = f"https://shop.test:{server.port}"
    _, request = web(world, egress=[f"POST {place}"], idempotency_header="Idempotency-Key")
    args = {"method": "POST", "url": place, "headers": {"Idempotency-KEY": "attacker"}}
    for run in ("r-1", "r-1", "r-2"):
        await call(request, run, **args)
    keys = [
        line for heard in server.heard for line in heard.split(b"\r\n") if b"idempotency" in line
    ]
    assert len(keys) == 3 and keys[0] == keys[1] != keys[2]
    assert b"attacker" not in b"".join(server.heard)


async def test_a_call_with_a_key_that_is_cut_off_has_failed_and_is_not_unknown(world):
    server = await world.server(b"", "shop.test")
    place = f"https://shop.test:{server.port}"
    args = {"method": "POST", "url": place}
    for config, error in (
        ({"idempotency_header": "Idempotency-Key"}, ToolFailed),
        ({}, EffectUnknown),
    ):
        _, request = web(world, egress=[f"POST {place}"], **config)
        with pytest.raises(error):
            await call(request, **args)


async def test_a_credential_goes_where_its_binding_says(world):
    server = await world.server(lambda r: answer(r), "shop.test")
    place = f"https://shop.test:{server.port}"
    bound = {"rule": f"GET {place}/v1/*", "place": "x", "header": "X-Key", "form": "{value}"}
    get, request = web(world, {"SHOP": bound}, egress=[f"GET,POST {place}"], secrets=["SHOP"])
    prepared, result = await call(get, url=f"{place}/v1/a")
    assert "SHOP" in " ".join(prepared.lines) and CANARY not in repr(prepared)
    assert f"x-key: {CANARY}".encode() in server.heard[0] and CANARY not in repr(result.value)
    await call(get, url=f"{place}/v2/a")
    await call(request, method="POST", url=f"{place}/v1/a", body="x")
    assert CANARY.encode() not in b"".join(server.heard[1:])
    assert get.manifest.secrets == ("SHOP",)


async def test_a_credential_that_the_tool_does_not_name_is_not_used(world):
    server = await world.server(OK, "shop.test")
    place = f"https://shop.test:{server.port}"
    get, _ = web(world, {"SHOP": {"rule": place, "place": "x"}}, egress=[place])
    await call(get, url=place)
    assert CANARY.encode() not in server.heard[0]


async def test_a_session_of_one_run_is_not_another_runs(world):
    server = await world.server(answer(b"ok", b"Set-Cookie: sid=real-session-1"), "shop.test")
    place = f"https://shop.test:{server.port}"
    get, _ = web(world, egress=[place])
    _, result = await call(get, url=place)
    cookie = result.value["headers"]["set-cookie"]
    await call(get, url=place, headers={"Cookie": cookie})
    await call(get, "r-2", url=place, headers={"Cookie": cookie})
    assert b"real-session-1" in server.heard[1] and b"real-session-1" not in server.heard[2]


async def test_an_answer_that_is_long_is_cut_and_says_so(world):
    long = "é".encode() * limits.EGRESS_TEXT_SIZE_BYTES_MAX
    server = await world.server(answer(b"x" + long), "shop.test")
    get, _ = web(world, egress=[f"https://shop.test:{server.port}"])
    _, result = await call(get, url=f"https://shop.test:{server.port}/")
    assert result.value["cut_from_size_bytes"] == len(long) + 1
    assert result.value["text"].startswith("xéé")
    assert len(result.value["text"].encode()) <= limits.EGRESS_TEXT_SIZE_BYTES_MAX


async def test_an_answer_that_is_no_text_comes_as_base64(world):
    server = await world.server(answer(b"\xff\xfe\x00"), "shop.test")
    get, _ = web(world, egress=[f"https://shop.test:{server.port}"])
    _, result = await call(get, url=f"https://shop.test:{server.port}/")
    assert result.value["base64"] == "//4A" and "text" not in result.value


@pytest.mark.parametrize(
    "config",
    [{}, {"egress": "shop.test"}, {"egress": ["*"]}, {"egress": ["api.openai.com"]},
     {"egress": ["shop.test"], "more": 1}, {"egress": ["shop.test"], "idempotency_header": "a b"},
     {"egress": ["shop.test"], "idempotency_header": "X-Api-Key"},
     {"egress": ["shop.test"], "secrets": ["A"]},
     {"egress": ["shop.test"], "secrets": {"A": {"to": "shop.test"}}}],
)  # fmt: skip
def test_a_wrong_setting_is_told_when_it_is_read(world, config):
    with pytest.raises(ManifestInvalid):
        web(world, **config)


def test_a_kernel_without_network_says_so(world):
    with pytest.raises(ManifestInvalid, match="needs the network"):
        http.drivers("web", {"use": "http", "egress": ["shop.test"]}, None, world.runtime)
