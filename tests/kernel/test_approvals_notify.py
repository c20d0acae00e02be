"""Who is told that a person is waited for: signed, once more where it failed, never in the way."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from approvals_world import CAROL, PAY, payer
from kernel_world import PRIVATE, Doing, World, world

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.runtime import Runtime
from ring0.types import ApprovalState, CallState

KEY = "a signing secret"
ENVIRONMENT = {"NOTIFY_KEY": KEY, "NOTIFY_URL": "see below"}


class Receiver:
    """A real server that takes messages, or does not."""

    def __init__(self) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.status: list[int] = []
        """What it answers; 200 when there is none left."""
        self.stuck: asyncio.Event | None = None
        self.moved_to = ""
        self.url = ""
        self.visited: list[str] = []

    async def post(self, request: web.Request) -> web.Response:
        self.visited.append(f"{request.method} {request.path_qs}")
        body = await request.read()
        self.heard.append(({k.lower(): v for k, v in request.headers.items()}, body))
        if self.stuck is not None:
            await self.stuck.wait()
        status = self.status.pop(0) if self.status else 200
        headers = {"Location": self.moved_to} if self.moved_to else {}
        return web.Response(status=status, headers=headers)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.heard) < count:
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", made.post)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks/T1?x=1"
    try:
        yield made
    finally:
        if made.stuck is not None:
            made.stuck.set()
        await runner.cleanup()


def configured(home: Path, *urls: str, private: str = '"127.0.0.0/8"') -> Path:
    home.mkdir(exist_ok=True)
    text = f"[network]\nallow_private = [{private}]\n"
    for url in urls:
        text += f'[[notify]]\nurl = "{url}"\nsecret = "NOTIFY_KEY"\n'
    (home / "ring0.toml").write_text(text)
    return home


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NOTIFY_BACK_S_MAX", 0.05)


async def told(w: World, key: str) -> tuple[str, ...]:
    async with asyncio.timeout(10):
        while True:
            await w.store.flush()
            row = await w.store.approval(key)
            if row.told:
                return row.told  # type: ignore[no-any-return]
            await asyncio.sleep(0.005)


async def test_each_ask_is_told_once_signed_as_standard_webhooks_say(tmp_path: Path) -> None:
    async with receiver() as at:
        home = configured(tmp_path / "home", at.url)
        async with world(home, environment=ENVIRONMENT, task="pay mallory") as w:
            payer(w)
            call = w.start("pay", {**PAY, "note": "<!channel> `x` \x1b[31m & more"})
            approval = await w.pending()
            assert len(await told(w, approval.id)) == 1
            ((headers, body),) = at.heard
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            right = "v1," + b64encode(hmac.digest(KEY.encode(), signed, "sha256")).decode()
            assert headers["webhook-signature"] == right
            assert headers["webhook-id"] == f"msg_{approval.id}"
            said = json.loads(body)
            assert set(said) == {"text", "blocks", "unfurl_links", "unfurl_media"}
            assert approval.id in said["text"] and "<" not in said["text"]
            shown = said["blocks"][1]["text"]
            assert shown["type"] == "plain_text" and "to = mallory" in shown["text"]
            assert "amount = 5" in shown["text"] and "\x1b" not in shown["text"]
            assert f"ring0 approve {approval.id}" in shown["text"]
            assert "http" not in body.decode(), "no link approves anything"
            assert at.visited == ["POST /hooks/T1?x=1"]
            await w.kernel.answer(approval.id, yes=True, by=CAROL)
            assert (await call).state is CallState.OK
            await asyncio.sleep(0.05)
            assert len(at.heard) == 1


async def test_what_was_not_taken_is_told_again_under_the_same_id(tmp_path: Path) -> None:
    async with receiver() as at:
        at.status = [500, 503, 429]
        home = configured(tmp_path / "home", at.url)
        async with world(home, environment=ENVIRONMENT) as w:
            failed: list[tuple[str, str]] = []
            w.kernel.notifying.failed = lambda *said: failed.append(said)
            payer(w)
            call = w.start("pay", PAY)
            approval = await w.pending()
            await told(w, approval.id)
            assert len(at.heard) == 4
            assert len({headers["webhook-id"] for headers, _ in at.heard}) == 1
            ((place, why),) = failed
            assert "500" in why and place.startswith("127.0.0.1#") and "T1" not in place
            assert w.kernel.notifying.failing == {}
            call.cancel()


class Unhurried(Runtime):
    """Notes each pause, and makes none; its dice show the same each time."""

    def __init__(self, dice: int) -> None:
        self.dice = dice
        self.pauses_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)

    def random_bytes(self, count: int) -> bytes:
        return bytes([self.dice]) * count


@pytest.mark.parametrize(("dice", "part"), [(0, 1 / 2), (51, 3 / 5), (255, 1)])
async def test_it_is_told_again_later_and_later_and_not_at_the_moment_of_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dice: int, part: float
) -> None:
    monkeypatch.setattr(limits, "NOTIFY_BACK_S_MAX", 6)
    async with receiver() as at:
        at.status = [500] * 5
        home = configured(tmp_path / "home", at.url)
        async with world(home, environment=ENVIRONMENT) as w:
            runtime = Unhurried(dice)
            w.kernel.notifying._runtime = runtime
            payer(w)
            call = w.start("pay", PAY)
            await told(w, (await w.pending()).id)
            assert runtime.pauses_s == pytest.approx([part * most for most in (1, 2, 4, 6, 6)])
            call.cancel()


async def test_a_place_that_is_gone_or_stuck_never_keeps_the_gate_waiting(tmp_path: Path) -> None:
    async with receiver() as at:
        at.stuck = asyncio.Event()
        home = configured(tmp_path / "home", at.url, "http://127.0.0.1:9/gone")
        async with world(home, environment=ENVIRONMENT) as w:
            tool = payer(w)
            for n in range(12):
                async with asyncio.timeout(5):
                    call = w.start("pay", {**PAY, "amount": n + 1})
                    await w.kernel.answer((await w.pending()).id, yes=True, by=CAROL)
                    assert (await call).state is CallState.OK
            assert tool.done == 12
            assert len(at.heard) <= limits.NOTIFY_AT_ONCE_MAX


async def test_what_was_not_told_before_a_crash_is_told_by_the_next_kernel(tmp_path: Path) -> None:
    async with receiver() as at:
        home = configured(tmp_path / "home", at.url)
        at.status = [500] * 100
        async with world(home, environment=ENVIRONMENT) as w:
            payer(w)
            call = w.start("pay", PAY)
            approval = await w.pending()
            await at.until(2)
        del call
        first = {headers["webhook-id"] for headers, _ in at.heard}
        at.status, before = [], len(at.heard)
        async with world(home, environment=ENVIRONMENT, start=False) as w:
            row = await w.store.approval(approval.id)
            assert row.state is ApprovalState.PENDING
            await told(w, approval.id)
            assert len(at.heard) == before + 1
            assert {headers["webhook-id"] for headers, _ in at.heard} == first
        async with world(home, environment=ENVIRONMENT, start=False):
            await asyncio.sleep(0.1)
            assert len(at.heard) == before + 1, "what was told is told once"


async def test_what_is_answered_meanwhile_is_told_no_more(tmp_path: Path) -> None:
    async with receiver() as at:
        at.status = [500] * 1_000
        home = configured(tmp_path / "home", at.url)
        async with world(home, environment=ENVIRONMENT) as w:
            payer(w)
            call = w.start("pay", PAY)
            approval = await w.pending()
            await at.until(1)
            await w.kernel.answer(approval.id, yes=False, by=CAROL)
            await call
            async with asyncio.timeout(5):
                while w.kernel.notifying._tasks:
                    await asyncio.sleep(0.005)
            assert (await w.store.approval(approval.id)).told == ()


async def test_no_redirect_is_followed(tmp_path: Path) -> None:
    async with receiver() as at, receiver() as other:
        at.status, at.moved_to = [302], other.url
        home = configured(tmp_path / "home", at.url)
        async with world(home, environment=ENVIRONMENT) as w:
            payer(w)
            call = w.start("pay", PAY)
            await told(w, (await w.pending()).id)
            assert len(at.heard) == 2 and other.heard == []
            call.cancel()


async def test_a_private_address_is_told_only_where_the_operator_lets_it(tmp_path: Path) -> None:
    async with receiver() as at:
        home = configured(tmp_path / "home", at.url, private="")
        async with world(home, environment=ENVIRONMENT) as w:
            payer(w)
            call = w.start("pay", PAY)
            await w.pending()
            async with asyncio.timeout(5):
                while not w.kernel.notifying.failing:
                    await asyncio.sleep(0.005)
            assert at.heard == []
            call.cancel()


async def test_what_a_run_has_read_that_is_private_is_not_told(tmp_path: Path) -> None:
    async with receiver() as at:
        home = configured(tmp_path / "home", at.url)
        async with world(home, environment=ENVIRONMENT) as w:
            payer(w)
            w.tool(Doing("files", label=PRIVATE))
            await w.call("files", {})
            call = w.start("pay", {**PAY, "note": "salary 5000"})
            approval = await w.pending()
            await told(w, approval.id)
            body = at.heard[0][1].decode()
            assert approval.id in body and "pay" in body
            assert "salary" not in body and "mallory" not in body
            call.cancel()


async def test_an_address_that_is_a_secret_is_shown_nowhere(tmp_path: Path) -> None:
    async with receiver() as at:
        url = at.url.replace("T1", "T1-canary-55")
        environment = {**ENVIRONMENT, "NOTIFY_URL": url}
        home = configured(tmp_path / "home", "secret://NOTIFY_URL")
        at.status = [500, 200]
        async with world(home, environment=environment) as w:
            said: list[str] = []
            w.kernel.notifying.failed = lambda place, why: said.append(place + why)
            payer(w)
            call = w.start("pay", PAY)
            names = await told(w, (await w.pending()).id)
            assert "canary" not in str((names, said, repr(w.kernel.notifying._places)))
            call.cancel()
        assert b"canary" not in w.on_disk() and "canary" in at.visited[0]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://hooks.example.com/x", "no https"),
        ("ftp://hooks.example.com/x", "url that is none"),
        ("https://user:pass@hooks.example.com/", "url that is none"),
        ("nonsense", "url that is none"),
        ("secret://NOT_THERE", "the secret NOT_THERE, which is not"),
        ("secret://", "which is not there"),
    ],
)
async def test_a_place_that_cannot_be_told_keeps_the_kernel_from_starting(
    tmp_path: Path, url: str, said: str
) -> None:
    home = configured(tmp_path / "home", url)
    with pytest.raises(ManifestInvalid, match=said):
        async with world(home, environment=ENVIRONMENT, start=False):
            pass


async def test_messages_are_signed_or_the_kernel_does_not_start(tmp_path: Path) -> None:
    home = configured(tmp_path / "home", "https://hooks.example.com/x")
    with pytest.raises(ManifestInvalid, match="NOTIFY_KEY"):
        async with world(home, start=False):
            pass
    (home / "ring0.toml").write_text('[[notify]]\nurl = "https://a.b/c"\nsecret = "x"\nget = 1\n')
    with pytest.raises(ManifestInvalid):
        async with world(home, environment={"x": "y" * 20}, start=False):
            pass
