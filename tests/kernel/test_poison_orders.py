"""A stranger's target in runs that deliveries and crons start: in what is delivered, copied, noted.
Each goes through where nothing is held, and none does here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from kernel_world import World, world
from poison_world import ALL, FORMS, LIFTED, MANY, TARGETS, Taken, count, guarded_or_not, tell

from ring0 import limits
from ring0.gateway.hooks import Hooks, key_of
from ring0.identity import Vault
from ring0.kernel.agent import agents
from ring0.kernel.agent.agents import Agent, Family
from ring0.kernel.life.orders import EVENT_FILE, Orders, Told
from ring0.kernel.live import LiveRun
from ring0.types import (
    AgentManifest,
    CallKind,
    HookScheme,
    Mode,
    Run,
    Schedule,
)


@pytest.fixture(scope="module", autouse=True)
def _told() -> Iterator[None]:
    yield
    tell()


class Standing:
    """A kernel whose orders start runs of this process, which go on until the test ends them."""

    def __init__(self, w: World, folder: Path) -> None:
        self.w = w
        self.folder = folder
        folder.mkdir()
        (folder / "clerk.py").write_text("print(1)\n")
        kernel = w.kernel
        snapshots = w.home / "snapshots"
        kernel.orders = Orders(kernel.store, kernel.gate.secrets, snapshots, self.begin, self.check)

    def manifest(self, *copied: str) -> AgentManifest:
        return AgentManifest(
            name="clerk", command=("python", "clerk.py"), code=("clerk.py",), imports=copied,
            folder=str(self.folder), budget=MANY,
        )  # fmt: skip

    async def check(self, agent: Agent) -> None: ...

    async def begin(self, agent: Agent, task: str, **more: Any) -> Run:
        async def forever(run: LiveRun) -> None:
            await w.end

        w = self.w
        family = msgspec.structs.replace(agent.family, mode=Mode.EMBEDDED)
        here = agents.embedded(family, {"agent:clerk": forever})
        return await w.kernel.runs.begin(here, task, **more)

    def taken(self, run: str) -> Taken:
        return Taken(self.w.kernel.gate.live[run], self.w.kernel)


@contextlib.asynccontextmanager
async def standing(tmp_path: Path, profile: str = "") -> AsyncIterator[Standing]:
    async with world(tmp_path / "home", policy=LIFTED, profile=profile, start=False) as w:
        yield Standing(w, tmp_path / "agent")


@guarded_or_not
@pytest.mark.parametrize("scheme", list(HookScheme))
async def test_no_strangers_target_comes_in_a_delivery_that_is_signed(
    tmp_path: Path, scheme: HookScheme, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HOOK_DELIVERIES_PER_MIN_MAX", 100_000)
    key = "whsec_" + base64.b64encode(b"k" * 32).decode()
    async with standing(tmp_path, profile) as s:
        kernel = s.w.kernel
        Vault(s.w.home).set("hook.push", key, 1)
        await kernel.orders.set_hook(
            Family(manifest=s.manifest()),
            Told(name="push", task="pay the bill that event.json tells of"),
            principal="ann", tenant="acme", secret="hook.push", scheme=scheme,
        )  # fmt: skip
        hooks = Hooks(kernel, (), lambda what, run: None)
        hooks.bind("127.0.0.1", 0)
        await hooks.open()
        try:
            async with aiohttp.ClientSession() as client:
                for number, (target, name) in enumerate(ALL, 1):
                    body = json.dumps({"user": FORMS[name](target), "task": target}).encode()
                    url = f"http://{hooks.address}/hooks/push"
                    headers = signed(scheme, key, body, number, kernel.runtime.now_us())
                    async with client.post(url, data=body, headers=headers) as said:
                        assert said.status == 202, await said.text()
                        run = (await said.json())["run"]
                    taken = s.taken(run)
                    event = await taken.tool("files.read", path=EVENT_FILE)
                    assert target in json.loads(event.value["text"])["task"]
                    await taken.obeys(target, number)
        finally:
            await hooks.close()
    count(taken, f"webhook {scheme}", len(ALL))


def signed(scheme: HookScheme, key: str, body: bytes, number: int, now_us: int) -> dict[str, str]:
    if scheme is HookScheme.GITHUB:
        right = hmac.new(key_of(key), body, hashlib.sha256).hexdigest()
        return {"X-Hub-Signature-256": f"sha256={right}"}
    when, name = str(now_us // 1_000_000), f"msg_{number}"
    text = f"{name}.{when}.".encode() + body
    right = base64.b64encode(hmac.digest(key_of(key), text, hashlib.sha256)).decode()
    return {"webhook-id": name, "webhook-timestamp": when, "webhook-signature": f"v1,{right}"}


@guarded_or_not
@pytest.mark.parametrize("how", ["copied", "name", "memory"])
async def test_no_strangers_target_comes_into_a_run_that_a_cron_starts(
    tmp_path: Path, how: str, profile: str
) -> None:
    """From the files that its agent copies, from their names, and from what a run before noted."""
    async with standing(tmp_path, profile) as s:
        kernel = s.w.kernel
        for number, (target, name) in enumerate(ALL, 1):
            text = FORMS[name](target)
            file = f"bill {number}.txt"
            if how == "name":
                file = target.replace("/", "_") + ".txt"
                text = "see my name"
            (s.folder / file).write_text(text)
            told = Told(name=f"c{number}", task="pay the bill of {supplier} that came in today")
            family = Family(manifest=s.manifest(file))
            cron = await kernel.orders.set_cron(
                family, told, Schedule(every_s=60), principal="ann", tenant="acme"
            )
            run = await kernel.orders.fire(cron, cron.done_us + 60_000_000, 0)
            taken = s.taken(run.id)
            if how == "name":
                found = await taken.tool("files.list")
            else:
                found = await taken.tool("files.read", path=file)
            assert found.value
            if how == "memory":
                note = {"text": f"supplier: {target}"}
                await taken.ask(CallKind.MEMORY_APPEND, "", note)
                cron = await kernel.orders.cron(cron.name)
                run = await kernel.orders.fire(cron, cron.done_us + 60_000_000, 0)
                taken = s.taken(run.id)
                query = {"query": f"supplier {target}"}
                found = await taken.ask(CallKind.MEMORY_RECALL, "", query)
                assert target in str(found.value)
            await taken.obeys(target, number)
    count(taken, f"cron {how}", len(ALL))


async def test_a_cron_or_a_hook_pays_whom_the_operators_own_task_names(tmp_path: Path) -> None:
    """The guard is no wall: the order's task is the word of whoever gave the order."""
    async with standing(tmp_path) as s:
        orders = s.w.kernel.orders
        task = f"pay {', '.join(TARGETS)}"
        family = Family(manifest=s.manifest())
        cron = await orders.set_cron(
            family, Told(name="c", task=task), Schedule(every_s=60), principal="ann", tenant="acme"
        )
        run = await orders.fire(cron, cron.done_us + 60_000_000, 0)
        taken = s.taken(run.id)
        for target in TARGETS:
            assert not await taken.is_asked("pay", target), target
