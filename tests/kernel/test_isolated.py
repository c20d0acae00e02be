"""Isolated runs: what a sandboxed agent finds (nothing), what its faults harm (one call), and that
a run goes on from where it was after its kernel has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from ring0.errors import Ring0Error, StoreDamaged
from ring0.gateway import door
from ring0.kernel.agent import agents
from ring0.kernel.boot import open_kernel
from ring0.kernel.folder import SNAPSHOTS
from ring0.kernel.kernel import Kernel
from ring0.kernel.replay import Replayed, replay, replay_gate
from ring0.runtime import Runtime
from ring0.store.sqlite import open_store
from ring0.types import AgentManifest, ApprovalState, CallState, Effect, Operator, Run, RunState

HERE = Path(__file__).parent
CANARY = "canary-of-the-host-5f2c9"
POLICY = """
@id("entries") @reason("New entries need no approval here.")
permit (principal, action in Action::"tool", resource == Tool::"bank.execute")
when { context.rows == 1 && context.tables == ["ledger"] };
"""


@contextlib.asynccontextmanager
async def kernel_at(folder: Path, policy: str = "") -> AsyncIterator[Kernel]:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    if policy:
        (home / "own.cedar").write_text(policy)
        (home / "ring0.toml").write_text('policy = ["own.cedar"]\n')
    kernel = await open_kernel(home, Runtime(), {"HOST_API_KEY": CANARY})
    kernel.runs.doors = door.doors(kernel.gate)
    try:
        yield kernel
    finally:
        await kernel.close()


def sdk(folder: Path, name: str) -> AgentManifest:
    """The agent of that name, its file copied beside the test's data."""
    (folder / "agent.py").write_text((HERE / "isolated_agent.py").read_text())
    return AgentManifest(name="", entry=f"agent.py:{name}", folder=str(folder))


def program(folder: Path, how: str = "") -> AgentManifest:
    (folder / "program.py").write_text((HERE / "plain_program.py").read_text())
    return AgentManifest(
        name="program",
        command=("/usr/bin/python3", "program.py", *([how] if how else [])),
        code=("program.py",),
        tools={"bank": {"use": "sql", "database": "ledger.db"}},
        folder=str(folder),
    )


def ledger(folder: Path) -> Path:
    path = folder / "ledger.db"
    made = apsw.Connection(str(path))
    made.execute(
        "CREATE TABLE ledger (id INTEGER PRIMARY KEY, entry TEXT);"
        " INSERT INTO ledger (entry) VALUES ('old'), ('old')"
    )
    made.close()
    return path


def entries(path: Path) -> list[str]:
    found = apsw.Connection(str(path))
    try:
        return [str(entry) for (entry,) in found.execute("SELECT entry FROM ledger ORDER BY id")]
    finally:
        found.close()


async def start(kernel: Kernel, manifest: AgentManifest, task: Any) -> Run:
    text = task if isinstance(task, str) else json.dumps(task)
    return await kernel.start(await kernel.describe(manifest), text, principal="alice")


async def result(kernel: Kernel, row: Run) -> Any:
    ended = await asyncio.wait_for(kernel.runs.wait(row.id), 40)
    body = msgspec.json.decode(await kernel.store.blob(ended.result))
    assert "value" in body, body
    return body["value"]


async def ask_of(kernel: Kernel, run: str) -> str:
    async with asyncio.timeout(30):
        while True:
            for approval in await kernel.store.approvals(states=[ApprovalState.PENDING], run=run):
                return approval.id
            row = await kernel.store.run(run)
            assert row is not None and not row.ended_us, "it ended before it asked"
            await asyncio.sleep(0.01)


async def until(kernel: Kernel, run: str, waiting_for: str) -> Run:
    async with asyncio.timeout(30):
        while True:
            await kernel.store.flush()
            row = await kernel.store.run(run)
            assert row is not None and not row.ended_us, "it ended before it waited"
            if row.waiting_for == waiting_for:
                return row
            await asyncio.sleep(0.01)


async def replayed(folder: Path, run: str) -> Replayed:
    store = open_store(folder / "home", Runtime(), write=False)
    try:
        gate = replay_gate(store, Runtime(), {"HOST_API_KEY": CANARY})
        return await replay(folder / "home", store, gate, door.doors(gate), run)
    finally:
        await store.close()


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state not in "ZX"


# --- what is there ---------------------------------------------------------------------------


async def test_an_isolated_agent_finds_no_network_no_host_and_no_door_but_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_API_KEY", CANARY)
    monkeypatch.setenv("HARMLESS", CANARY)
    secret = tmp_path / "secret.txt"
    secret.write_text(CANARY)
    secret.chmod(0o644)
    database = ledger(tmp_path)
    server = socket.create_server(("127.0.0.1", 0))
    async with kernel_at(tmp_path) as kernel:
        manifest = msgspec.structs.replace(
            sdk(tmp_path, "curious"), tools={"bank": {"use": "sql", "database": "ledger.db"}}
        )
        home = tmp_path / "home"
        task = {
            "files": [
                str(secret), str(database), str(home / "journal.db"), str(home / "journal.db-wal"),
                str(home / "kernel.lock"), str(HERE / "test_isolated.py"), "/root/.bashrc",
                "/etc/shadow", "/proc/1/environ", "/proc/self/root/root/.bashrc", "/agent/../root",
                f"/proc/{os.getpid()}/environ",
            ],
            "port": server.getsockname()[1],
            "sockets": [str(home / "kernel.sock"), str(home / "door.sock"), "/run/ring0/x.sock"],
            "wait": 0.3,
        }  # fmt: skip
        both = [await start(kernel, manifest, task) for _ in range(2)]
        found = await asyncio.gather(*(result(kernel, row) for row in both))
        await kernel.store.flush()
        for row, saw in zip(both, found, strict=True):
            assert saw["run"] == row.id
            readable = {path: text for path, text in saw["files"].items() if "nothing" not in text}
            readable.pop("/proc/1/environ", None)  # Its own init's, searched below.
            assert readable == {}
            assert CANARY not in json.dumps(saw)
            assert set(saw["env"]) <= {
                "PATH", "LANG", "HOME", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED",
                "PYTHONHASHSEED", "RING0_DOOR", "RING0_URL", "PWD", "LC_CTYPE",
                "OPENAI_BASE_URL", "OPENAI_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY",
                "RING0_MCP_URL", "RING0_MCP_CONFIG",
            }  # fmt: skip
            assert {saw["env"][key] for key in saw["env"] if key.endswith("KEY")} == {
                "ring0-needs-no-key"
            }
            assert "pytest" not in saw["processes"] and str(home) not in saw["processes"]
            assert all(one.startswith("nothing") for one in saw["net"]), saw["net"]
            assert saw["interfaces"] == ["lo"]
            assert saw["sockets"] == ["/run/ring0/door.sock"]
            assert saw["here"] == row.id, "the same path in both, and each finds its own"
            assert all(one.startswith("nothing") for one in saw["elsewhere"])
            assert saw["abstract"] == 0
        assert CANARY.encode() not in (home / "journal.db").read_bytes()
    server.close()


@pytest.mark.parametrize(
    ("task", "told"),
    [("say 'grüezi' $HOME\n", True), ("x" * 65_536, True), ("x" * 65_537, False), ("a\0b", False)],
    ids=["odd", "largest", "too large", "nul"],
)
async def test_a_program_finds_its_task_where_a_variable_can_hold_it(
    task: str, told: bool, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(
        "import hashlib, os; task = os.environb.get(b'RING0_TASK')\n"
        "print('none' if task is None else hashlib.sha256(task).hexdigest())"
    )
    manifest = AgentManifest(
        name="program",
        command=("/usr/bin/python3", "program.py"),
        code=("program.py",),
        folder=str(tmp_path),
    )
    async with kernel_at(tmp_path) as kernel:
        row = await start(kernel, manifest, task)
        found = (await result(kernel, row)).strip()
        assert found == (hashlib.sha256(task.encode()).hexdigest() if told else "none")


async def test_what_a_run_leaves_behind_is_gone_with_it(tmp_path: Path) -> None:
    async with kernel_at(tmp_path) as kernel:
        row = await start(kernel, sdk(tmp_path, "leaver"), "")
        assert await result(kernel, row) == "left one behind"
        await kernel.store.flush()
        pids = [
            entry.body.pid
            async for entry in kernel.store.entries(row.id)
            if type(entry.body).__name__ == "SandboxStarted"
        ]
        assert pids and not any(alive(pid) for pid in pids)
        inside = [
            name
            for name in os.listdir("/proc")
            if name.isdigit() and f"{row.id}" in _cmdline(name) + _cmdline(name, "environ")
        ]
        assert inside == []
        assert not await kernel.store.sandboxes_alive()
        assert row.id not in kernel.gate.live


def _cmdline(pid: str, name: str = "cmdline") -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes().decode("latin-1")
    except OSError:
        return ""


async def test_a_kill_leaves_nothing_of_a_run_alive(tmp_path: Path) -> None:
    async with kernel_at(tmp_path) as kernel:
        manifest = sdk(tmp_path, "faulty")
        row = await start(kernel, manifest, [["hangs", {}]])
        async with asyncio.timeout(20):
            while len(await kernel.store.sandboxes_alive()) < 2:  # The agent's and the tool's.
                await asyncio.sleep(0.01)
        pids = [one.pid for one in await kernel.store.sandboxes_alive()]
        assert all(alive(pid) for pid in pids)
        await kernel.kill("run", row.id, by="alice")
        await kernel.store.flush()
        assert not any(alive(pid) for pid in pids)
        assert not await kernel.store.sandboxes_alive()
        ended = await kernel.store.run(row.id)
        assert ended is not None and ended.state is RunState.CANCELLED


# --- faulty tools ----------------------------------------------------------------------------


async def test_a_faulty_tool_harms_its_own_call_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "host.txt").write_text(CANARY)
    forms = ["size", "bytes", "both", "deep", "list", "short"]
    calls: list[list[Any]] = [["raises", {}], ["hangs", {}], ["dies", {}], ["floods", {}]]
    calls += [["garbage", {"form": form}] for form in forms]
    calls += [["looks", {"path": str(tmp_path / "host.txt")}]]
    async with kernel_at(tmp_path) as kernel:
        row = await start(kernel, sdk(tmp_path, "faulty"), calls)
        said = await result(kernel, row)
        assert [one[0] for one in said[1::2]] == ["then"] * len(calls)
        answers = {json.dumps(call): one for call, one in zip(calls, said[::2], strict=True)}
        raised, hung, died, flooded, *garbage, looked = answers.values()
        assert raised[0] == "ToolFailed" and "the tool's own fault" in raised[1]
        assert hung[0] == "ToolFailed" and "longer than 1 s" in hung[1]
        assert died[0] == "ToolFailed" and "without an answer" in died[1]
        assert flooded == ["ok", 5]
        assert {one[0] for one in garbage} == {"ToolFailed"}, garbage
        assert looked[1]["path"].startswith("nothing") and looked[1]["door"] is False
        assert looked[1]["net"].startswith("nothing")
        assert "RING0_DOOR" not in looked[1]["env"]
        assert not await kernel.store.sandboxes_alive()


async def test_a_once_tool_that_dies_leaves_its_call_unknown_until_it_is_settled(
    tmp_path: Path,
) -> None:
    async with kernel_at(tmp_path) as kernel:
        row = await start(kernel, sdk(tmp_path, "faulty"), [["charges", {}]])
        await kernel.answer(await ask_of(kernel, row.id), yes=True, by=Operator(name="alice"))
        await until(kernel, row.id, "unknown")
        (call,) = [one for one in await kernel.store.calls(row.id) if one.name == "charges"]
        assert call.state is CallState.UNKNOWN and call.effect is Effect.ONCE
        await kernel.settle(call.id, happened=False, by="alice")
        said = await result(kernel, row)
        assert said[0][0] == "EffectUnknown" and said[1] == ["then", 2]


# --- going on, and again ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sdk", "program"])
async def test_a_run_goes_on_from_where_it_was_and_replays_to_the_same(
    tmp_path: Path, kind: str
) -> None:
    """Stopped in the middle, recovered by a second kernel, replayed, then tampered with."""
    database = ledger(tmp_path)
    manifest = sdk(tmp_path, "worker") if kind == "sdk" else program(tmp_path)
    async with kernel_at(tmp_path, POLICY) as kernel:
        row = await start(kernel, manifest, "one two one two")
        approval = await ask_of(kernel, row.id)
        await kernel.runs.stop()
        before = await kernel.store.calls(row.id)
        files = await kernel.store.files(row.id)
        stopped = await kernel.store.run(row.id)
        assert stopped is not None and stopped.waiting_for == "approval"
    assert entries(database) == ["old", "old", "one", "two", "one", "two"]
    async with kernel_at(tmp_path, POLICY) as kernel:
        assert await kernel.recover() == [row.id]
        await asyncio.sleep(0.2)
        assert await kernel.store.files(row.id) == files
        await kernel.answer(approval, yes=True, by=Operator(name="alice"))
        value = await result(kernel, row)
        calls = await kernel.store.calls(row.id)
        assert calls[: len(before)] == before, "what stood is recalled, not made again"
        assert len(await kernel.store.approvals(run=row.id)) == 1, "and nobody is asked twice"
        assert all(call.state is CallState.OK for call in calls)
    assert entries(database) == ["one", "two", "one", "two"], "each effect happened once"
    if kind == "sdk":
        moments, notes = value["moments"], value["notes"]
        assert notes == [f"{name} at {moments[0]}" for name in ("one", "two")]

    again = await replayed(tmp_path, row.id)
    assert again.ok and again.calls == again.matched == len(calls), again.divergence
    assert entries(database) == ["one", "two", "one", "two"], "a replay touches nothing"

    # An outcome that is not what it was changes the result; a call that is gone is missed.
    now = next(call for call in calls if call.kind == "now")
    journal = apsw.Connection(str(tmp_path / "home" / "journal.db"))
    stored = bytes(
        journal.execute("SELECT value FROM blob WHERE address = ?", (now.outcome,)).fetchone()[0]
    )
    outcome = msgspec.json.decode(stored)
    outcome["value"] += 1_000_000
    journal.execute(
        "UPDATE blob SET value = ? WHERE address = ?", (msgspec.json.encode(outcome), now.outcome)
    )
    changed = await replayed(tmp_path, row.id)
    assert not changed.ok and changed.divergence
    journal.execute("UPDATE blob SET value = ? WHERE address = ?", (stored, now.outcome))
    journal.close()
    assert (await replayed(tmp_path, row.id)).ok


async def test_other_code_than_the_runs_own_is_refused_and_would_diverge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger(tmp_path)
    async with kernel_at(tmp_path, POLICY) as kernel:
        row = await start(kernel, program(tmp_path), "one")
        approval = await ask_of(kernel, row.id)
        await kernel.runs.stop()
        stopped = await kernel.store.run(row.id)
        assert stopped is not None
    code = tmp_path / "home" / SNAPSHOTS / stopped.agent_digest / "program.py"
    own = code.read_text()
    code.write_text(own.replace("VALUES (?)", "VALUES (? || '!')"))
    async with kernel_at(tmp_path, POLICY) as kernel:
        with pytest.raises(StoreDamaged):
            await kernel.recover()
        assert entries(tmp_path / "ledger.db") == ["old", "old", "one"]
        code.write_text(own)
        assert await kernel.recover() == [row.id], "with its own code it goes on"
        await kernel.answer(approval, yes=True, by=Operator(name="alice"))
        await result(kernel, row)
    assert (await replayed(tmp_path, row.id)).ok
    code.write_text(own.replace("VALUES (?)", "VALUES (? || '!')"))
    with pytest.raises(StoreDamaged):
        await replayed(tmp_path, row.id)
    monkeypatch.setattr(agents, "digest", lambda *_: stopped.agent_digest)
    changed = await replayed(tmp_path, row.id)
    assert not changed.ok and "bank.execute" in changed.divergence
    code.write_text(own.replace('seen.append(call("tool", "bank.execute", statement=delete', "#"))
    missing = await replayed(tmp_path, row.id)
    assert not missing.ok


async def test_a_program_that_asks_for_something_else_after_a_crash_waits_for_a_human(
    tmp_path: Path,
) -> None:
    database = ledger(tmp_path)
    async with kernel_at(tmp_path, POLICY) as kernel:
        row = await start(kernel, program(tmp_path, "diverges"), "one")
        await ask_of(kernel, row.id)
        await kernel.runs.stop()
        calls = await kernel.store.calls(row.id)
    async with kernel_at(tmp_path, POLICY) as kernel:
        assert await kernel.recover() == [row.id]
        with pytest.raises(Ring0Error) as caught:
            await asyncio.wait_for(kernel.runs.wait(row.id), 30)
        assert caught.value.code == "replay_diverged"
        parked = await until(kernel, row.id, "diverged")
        assert parked.state is RunState.WAITING
        assert await kernel.store.calls(row.id) == calls, "nothing went live"
        assert not await kernel.store.sandboxes_alive()
        assert entries(database) == ["old", "old", "one"]
        await kernel.kill("run", row.id, by="alice")
        ended = await kernel.store.run(row.id)
        assert ended is not None and ended.state is RunState.CANCELLED
        assert not await kernel.store.approvals(states=[ApprovalState.PENDING])
