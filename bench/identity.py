"""`ring0 bench identity`: handles, tokens, certificates, and how soon a dead process is nobody.

The check of a handle among 10 to 100,000 live runs stands beside AGT's check of a token among as
many (at most 5,000: agentmesh-platform looks through all of them), both in this run. AGT lives in
an environment of its own, which `make rivals` makes; what is not there is absent. A token's
`verify` is reading it, looking at its three blocks and authorising one call. The socket is the
SPIFFE Workload API of a run's door, asked by grpclib's own client. A death is a SIGKILL of an
isolated agent's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from bench.rows import Row, percentile, row
from ring0.gateway import door
from ring0.gateway.door import Door
from ring0.identity.certificates import Certificates
from ring0.identity.handles import Handle, Handles
from ring0.identity.keys import Keys
from ring0.identity.tokens import Tokens, narrow
from ring0.kernel.agent.agents import Family
from ring0.kernel.boot import open_kernel
from ring0.kernel.kernel import Kernel
from ring0.kernel.live import LiveRun
from ring0.runtime import Runtime
from ring0.types import AgentManifest

LIVE = (10, 100, 1_000, 10_000, 100_000)
RIVAL_LIVE_MAX = 5_000
"""More of them take minutes there."""
CHECKS = 5_000
TIMES = 1_000
OVER_SOCKET = 200
DEATHS = 200
ROUNDS = 3
RIVAL_S_MAX = 300
ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-rivals" / "bin" / "python"


def run() -> list[Row]:
    """All figures. Takes about two minutes."""
    rows = [*_handles(), *_rivals()]
    with tempfile.TemporaryDirectory(prefix="ring0-bench-", dir=Path.cwd()) as folder:
        rows += [*_tokens(Path(folder)), *_certificates(Path(folder))]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            rows += runner.run(_socket(Path(folder) / "socket"))
            rows += runner.run(_deaths(Path(folder) / "deaths"))
    return rows


def _timed(what: Callable[[int], object], count: int) -> tuple[list[float], float]:
    """Of each, in seconds; and the CPU time of one."""
    for number in range(min(50, count)):
        what(number)
    times, cpu = [], time.process_time()
    for number in range(count):
        began = time.perf_counter()
        what(number)
        times.append(time.perf_counter() - began)
    return times, (time.process_time() - cpu) / count


def _figures(name: str, times: list[float], cpu: float, unit: str = "us") -> list[Row]:
    scale, count = {"us": 1e6, "ms": 1e3}[unit], len(times)
    return [
        row(f"{name}, p50", percentile(times, 0.50) * scale, unit, count),
        row(f"{name}, p99", percentile(times, 0.99) * scale, unit, count),
        row(f"{name}: CPU of one", cpu * scale, unit, count),
    ]


def _handles() -> list[Row]:
    rows, p50s = [], []
    for live in LIVE:
        handles = Handles(Runtime())
        minted = [handles.mint(f"r-{number}", 1) for number in range(live)]
        times, cpu = _timed(lambda n, m=minted, h=handles: h.check(m[n * 7_919 % len(m)]), CHECKS)  # type: ignore[misc]
        rows += _figures(f"handle check, {live:,} live runs", times, cpu)
        p50s.append(percentile(times, 0.50))
    rows.append(row(f"handle check: {LIVE[-1]:,} live, times {LIVE[0]}", p50s[-1] / p50s[0], "", 1))
    return rows


def _rivals() -> list[Row]:
    if not PYTHON.exists():
        return [row("AGT: absent; `make rivals` gets it", 0, "", 0)]
    rows = []
    script = Path(__file__).parent / "rivals" / "agt_tokens.py"
    for live in (*(one for one in LIVE if one < RIVAL_LIVE_MAX), RIVAL_LIVE_MAX):
        done = subprocess.run(
            [PYTHON, script, str(live), str(TIMES)],
            capture_output=True,
            check=True,
            timeout=RIVAL_S_MAX,
        )
        for one in json.loads(done.stdout):
            times = one["times_s"]
            name = f"{one['name']}: token check, {live:,} live"
            rows += _figures(name, times, one["cpu_s"] / len(times))
    return rows


def _tokens(folder: Path) -> list[Row]:
    handles = Handles(Runtime())
    handles.mint("r-1", 1)
    tokens = Tokens(Keys(folder), handles, Runtime().now_us)
    only = ("tool:crm.query", "tool:files.*")
    text, issued = tokens.mint("r-1", 1, only, 3_600)
    tokens.give_out(issued)
    three = narrow(narrow(text, ["tool:crm.*"]), ["tool:crm.query"])

    def verify(_: int) -> None:
        scope = tokens._read(three)  # Not what was kept of it.
        scope.check()
        assert scope.allows("tool:crm.query")

    known = tokens.scope(three)
    known.allows("tool:crm.query")

    def again(_: int) -> None:
        assert tokens.scope(three).allows("tool:crm.query")

    rows = []
    for name, what, count in (
        ("token: mint", lambda _: tokens.mint("r-1", 1, only, 3_600), TIMES),
        ("token: narrow", lambda _: narrow(text, ["tool:crm.*"]), TIMES),
        ("token: verify and authorise 3 blocks", verify, TIMES),
        ("token: on the next request", again, CHECKS),
    ):
        rows += _figures(name, *_timed(what, count))
    return rows


def _certificates(folder: Path) -> list[Row]:
    made = Certificates(Keys(folder), "ring0.local", Runtime().now_us)
    return _figures("X.509-SVID: issue", *_timed(lambda _: made.issue("r-1", "clerk"), TIMES))


async def _socket(home: Path) -> list[Row]:
    """With a certificate made anew for each, as after half of its time."""
    if importlib.util.find_spec("grpclib") is None:
        return [row("X.509-SVID over the socket: absent; needs ring0[spiffe]", 0, "", 0)]
    home.mkdir()
    (home / "ring0.toml").write_text("[identity]\nspiffe = true\n")
    ends: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def embed(run: LiveRun, function: Any) -> Any:
        return await ends

    async def agent() -> None:
        return None

    kernel = await open_kernel(home, Runtime(), {}, embed=embed)
    try:
        manifest = AgentManifest(name="clerk")
        row_ = await kernel.start_embedded(
            manifest, (), {"agent:clerk": agent}, "task", principal="bench"
        )
        live, path = kernel.gate.live[row_.id], home / "door.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        served = Door(kernel.gate, live, None, kernel.identities)
        await served.open(listener)
        try:
            return await _asked(kernel, path)
        finally:
            await served.close()
            ends.set_result(None)
            await kernel.runs.wait(row_.id)
    finally:
        await kernel.close()


async def _asked(kernel: Kernel, path: Path) -> list[Row]:
    from grpclib.client import Channel, UnaryStreamMethod

    from ring0 import limits
    from ring0.gateway.workload_messages import MESSAGES, SERVICE

    times, cpu = [], time.process_time()
    with contextlib.ExitStack() as stack:
        # What bounds how often one run may ask is not what is measured.
        most, limits.WORKLOAD_ANSWERS_PER_MIN_MAX = limits.WORKLOAD_ANSWERS_PER_MIN_MAX, 10**6  # type: ignore[misc]
        stack.callback(setattr, limits, "WORKLOAD_ANSWERS_PER_MIN_MAX", most)
        for _ in range(OVER_SOCKET):
            kernel.identities._of_runs.clear()
            began = time.perf_counter()
            channel = Channel(path=str(path))
            method: Any = UnaryStreamMethod(
                channel,
                f"/{SERVICE}/FetchX509SVID",
                MESSAGES["X509SVIDRequest"],
                MESSAGES["X509SVIDResponse"],
            )
            async with method.open(metadata={"workload.spiffe.io": "true"}) as stream:
                await stream.send_message(MESSAGES["X509SVIDRequest"](), end=True)
                assert (await stream.recv_message()).svids
                times.append(time.perf_counter() - began)
                await stream.cancel()
            channel.close()
    cpu = (time.process_time() - cpu) / OVER_SOCKET
    return _figures("X.509-SVID: new connection, issue, over the socket", times, cpu, "ms")


async def _deaths(home: Path) -> list[Row]:
    kernel = await open_kernel(home, Runtime(), {})
    kernel.runs.doors = door.doors(kernel.gate)
    try:
        times = [await _death(kernel, home.parent) for _ in range(DEATHS)]
    finally:
        await kernel.close()
    return _figures("process death to identity dead", times, 0.0, "ms")[:2]


async def _death(kernel: Kernel, folder: Path) -> float:
    command = ("/usr/bin/python3", "-c", "import time; time.sleep(600)")
    manifest = AgentManifest(name="sleeper", command=command, folder=str(folder))
    row_ = await kernel.start(Family(manifest=manifest), "sleep", principal="bench")
    while not (live := kernel.gate.live.get(row_.id)) or not live.watched:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.05)
    heard: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    died = kernel.gate.handles.process_died

    def hear(one: Handle) -> None:
        died(one)
        if one is live.handle and not heard.done():
            heard.set_result(time.perf_counter())

    handles: Any = kernel.gate.handles
    handles.process_died = hear
    children = Path(f"/proc/{live.watched}/task/{live.watched}/children").read_text().split()
    began = time.perf_counter()
    os.kill(int(children[0]), signal.SIGKILL)
    ended = await heard
    handles.process_died = died
    await kernel.runs.wait(row_.id)
    return ended - began
