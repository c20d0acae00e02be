"""Checkpoints leave the machine: to a webhook, and to a witness, who signs what goes on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from anchored_world import clerk, keys_of, ring_at, verified
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ring0.errors import ManifestInvalid
from ring0.kernel.agent.config_checkpoints import CheckpointTable, anchorages_of
from ring0.observability.proof import proofs
from ring0.observability.proof.anchors import newest_note
from ring0.observability.proof.checkpoints import open_checkpoint, read_text
from ring0.observability.proof.notes import COSIGNATURE, Key, open_note, read_key

PRIVATE = '[network]\nallow_private = ["127.0.0.0/8"]\n'


class Place:
    """A webhook and a witness on a real port."""

    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        public = self.private.public_key().public_bytes_raw()
        self.key = Key(name="witness.example/w", kind=COSIGNATURE, public=public)
        self.log_key: Key | None = None
        """Whose checkpoints it takes; None: the first it sees (a test's convenience)."""
        self.size, self.root = 0, b""
        self.proved = 0
        self.asked: list[int] = []
        """What it answered."""
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        self.lies = False
        self.url = ""

    async def post(self, request: web.Request) -> web.Response:
        named = {name.lower(): value for name, value in request.headers.items()}
        self.heard.append((named, await request.read()))
        return web.Response(status=self.status)

    async def add_checkpoint(self, request: web.Request) -> web.Response:
        """As tlog-witness says, word for word."""
        answer = self.judged((await request.read()).decode())
        self.asked.append(answer.status)
        return answer

    def judged(self, body: str) -> web.Response:
        head, _, note = body.partition("\n\n")
        first, *steps = head.split("\n")
        said = read_text(note.rpartition("\n\n")[0] + "\n")
        old = int(first.removeprefix("old "))
        if old > said.size:
            return web.Response(status=400)
        if old != self.size:
            return web.Response(status=409, text=f"{self.size}\n", content_type="text/x.tlog.size")
        if old and old != said.size:
            try:
                hashes = [base64.b64decode(step) for step in steps]
                proofs.check_consistency(old, said.size, hashes, self.root, said.root)
                self.proved += 1
            except proofs.ProofWrong:
                return web.Response(status=422)
        self.size, self.root = said.size, said.root
        text, seconds = note.rpartition("\n\n")[0] + "\n", 1_800_000_000
        signed = (
            f"cosignature/v1\ntime {seconds}\n{text}x"
            if self.lies
            else (f"cosignature/v1\ntime {seconds}\n{text}")
        )
        raw = self.key.id + seconds.to_bytes(8, "big") + self.private.sign(signed.encode())
        return web.Response(text=f"— {self.key.name} {base64.b64encode(raw).decode()}\n")


@contextlib.asynccontextmanager
async def place() -> AsyncIterator[Place]:
    made = Place()
    app = web.Application()
    app.router.add_post("/hook", made.post)
    app.router.add_post("/w/add-checkpoint", made.add_checkpoint)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    made.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    try:
        yield made
    finally:
        await runner.cleanup()


def witness(at: Place) -> str:
    return f'{PRIVATE}[[checkpoints]]\nwitness = "{at.url}/w"\nkey = "{at.key}"\n'


async def until(done) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(10):
        while not done():
            await asyncio.sleep(0.01)


async def test_a_webhook_gets_checkpoints_and_can_tell_who_sent_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    async with place() as at:
        config = f'{PRIVATE}[[checkpoints]]\nurl = "{at.url}/hook"\nsecret = "PUSH"\n'
        async with ring_at(home, config, {"PUSH": "a signing secret"}) as ring:
            await ring.run(clerk, "one")
            await ring.kernel.anchoring.anchor()
            await until(lambda: at.heard)
        headers, body = at.heard[-1]
    said, _ = open_checkpoint(body.decode(), await keys_of(home))
    report = await verified(home)
    assert said.size == report.events, "the last one came at the end"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = hmac.digest(b"a signing secret", signed, hashlib.sha256)
    assert headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()


async def test_a_witness_signs_each_checkpoint_by_a_proof_that_it_checks_itself(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    async with place() as at:
        for number in range(3):
            async with ring_at(home, witness(at)) as ring:
                for task in range(4):
                    await ring.run(clerk, f"{number}/{task}")
                    await ring.kernel.anchoring.anchor()
        assert at.proved >= 3 and 409 in at.asked, "a kernel asks it where it stands"
        keys = [*await keys_of(home), at.key]
        signed = open_note(newest_note(home), keys)
        assert {key.name for key in signed.by} == {keys[0].name, at.key.name}
        assert at.size == (await verified(home)).events


async def test_what_a_witness_signed_wrongly_is_not_taken_for_its_signature(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    async with place() as at:
        at.lies = True
        async with ring_at(home, witness(at)) as ring:
            await ring.kernel.anchoring.anchor()
            await until(lambda: ring.kernel.anchoring.pushing.failing)
            assert "not signed" in next(iter(ring.kernel.anchoring.pushing.failing.values()))
        assert "witness" not in newest_note(home)


async def test_a_witness_that_has_seen_more_of_this_journal_than_there_is_says_so_aloud(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    async with place() as at:
        at.size, at.root = 10_000, bytes(32)
        async with ring_at(tmp_path / "home", witness(at)) as ring:
            ring.kernel.anchoring.say = said.append
            await ring.kernel.anchoring.anchor()
            await until(lambda: said)
        assert any("it has seen '10000' events" in line for line in said)


async def test_a_place_that_was_away_gets_the_newest_when_it_is_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with place() as at:
        config = f'{PRIVATE}[[checkpoints]]\nurl = "{at.url}/hook"\nsecret = "PUSH"\n'
        at.status = 503
        async with ring_at(home, config, {"PUSH": "a signing secret"}) as ring:
            await ring.kernel.anchoring.anchor()
            await until(lambda: ring.kernel.anchoring.pushing.failing)
            at.status = 200
            await until(lambda: not ring.kernel.anchoring.pushing.failing)
        size = open_checkpoint(at.heard[-1][1].decode(), await keys_of(home))[0].size
        assert size == (await verified(home)).events


@pytest.mark.parametrize(
    "table",
    [
        CheckpointTable(),
        CheckpointTable(file="a", url="https://example.com", secret="S"),
        CheckpointTable(url="https://example.com"),
        CheckpointTable(url="http://example.com/x", secret="S"),
        CheckpointTable(url="https://example.com", secret="NOT_THERE"),
        CheckpointTable(url="https://user@example.com/", secret="S"),
        CheckpointTable(witness="https://w.example"),
        CheckpointTable(witness="https://w.example", key="nonsense"),
        CheckpointTable(
            witness="https://w.example",
            key="PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        ),
    ],
)
def test_a_place_that_can_not_be_used_is_refused_when_the_file_is_read(
    table: CheckpointTable, tmp_path: Path
) -> None:
    def secret(name: str) -> str:
        return "value" if name == "S" else ""

    with pytest.raises(ManifestInvalid, match="checkpoints"):
        anchorages_of([table], tmp_path, secret)


def test_places_are_used_as_they_are_written_and_never_show_a_secret(tmp_path: Path) -> None:
    key = read_key(str(Place().key))
    tables = [
        CheckpointTable(file="kept"),
        CheckpointTable(url="secret://URL", secret="S"),
        CheckpointTable(witness="https://w.example/p/", key=str(key)),
    ]
    found = anchorages_of(tables, tmp_path, lambda name: "https://h.example/token")
    assert found[0].file == str(tmp_path / "kept")
    assert found[2].target == "/p/add-checkpoint" and found[2].witness == key
    assert "token" not in repr(found)
    with pytest.raises(ManifestInvalid, match="one place"):
        anchorages_of([tables[0], tables[0]], tmp_path, lambda name: "x")
