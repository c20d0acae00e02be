"""`ring0 bench gateway`: what a run's doors add to a call, beside the direct call and LiteLLM's.

A stub answers at once with 1 KB; it, the kernel and the rival are processes of their own. The calls
are made one after another on connections that are kept, direct, through ring0 and through the rival
in turn, so that a slow moment hits all three; what is added is the difference of the medians (and
of the 99th percentiles). Policy, budget, journal and loop stop are on; each request is a new one.
The same for `tools/call` at the MCP door (gateway_mcp.py). LiteLLM lives in an environment of its
own (`make rivals`); where that is not there its rows are absent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvloop

from bench import gateway_mcp
from bench.gateway_line import Line, added
from bench.rows import Row, row

ROOT = Path(__file__).resolve().parents[1]
RIVAL = ROOT / ".venv-litellm" / "bin" / "litellm"
CALLS = 1_500
CALLS_RIVAL = 300
WARM = 100
CONVERSATION_BYTES = 100 * 1_024
TURN_BYTES = 1_024
START_S_MAX = 120

Body = Callable[[int], dict[str, Any]]


def run() -> list[Row]:
    """All figures. Takes a minute, one more with the rival."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run())


async def _run() -> list[Row]:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="ring0-bench-", dir=Path.cwd()) as folder:
        async with _stub() as stub, _kernel(Path(folder), stub) as (kernel, process, start_s):
            idle = _rss_bytes(process.pid)
            async with _rival(Path(folder), stub) as rival:
                rows += await _doors(stub, kernel, rival)
            rows += await _first_event(stub, kernel)
            rows += await _growing(stub, kernel)
            rss = _rss_bytes(process.pid)
        async with _stub() as stub, _kernel(Path(folder), stub, "mcp") as (kernel, _, _):
            rows += await gateway_mcp.tools_call(stub, kernel)
        rows.append(row("kernel.memory.at-start", idle / 1e6, "MB", 1))
        rows.append(row("kernel.memory.after-all-calls", rss / 1e6, "MB", 1))
        rows.append(row("kernel.start", start_s * 1e3, "ms", 1))
    return rows


# --- what is asked ----------------------------------------------------------------------------


def _chat(number: int) -> dict[str, Any]:
    text = f"question {number} " + "x" * (TURN_BYTES - 20)
    return {"model": "default", "messages": [{"role": "user", "content": text}], "max_tokens": 256}


def _messages(number: int) -> dict[str, Any]:
    return _chat(number)


def _responses(number: int) -> dict[str, Any]:
    text = f"question {number} " + "x" * (TURN_BYTES - 20)
    return {"model": "default", "input": text, "max_output_tokens": 256}


DOORS: dict[str, tuple[str, Body]] = {
    "chat": ("/v1/chat/completions", _chat),
    "responses": ("/v1/responses", _responses),
    "messages": ("/v1/messages", _messages),
}
"""The stub speaks chat completions only: the other two are translated."""


async def _doors(stub: int, kernel: int, rival: int) -> list[Row]:
    rows: list[Row] = []
    direct, own = await Line.open(stub), await Line.open(kernel)
    other = await Line.open(rival) if rival else None
    for door, (path, body) in DOORS.items():
        if (await own.post(path, body(-1)))[0] == 404:
            continue
        times: dict[str, list[float]] = {"direct": [], "ring0": [], "litellm": []}
        for number in range(WARM + CALLS):
            unique = number + len(rows) * 1_000_000
            found = {"direct": await direct.timed(DOORS["chat"][0], _chat(unique))}
            found["ring0"] = await own.timed(path, body(unique))
            if other is not None and door == "chat" and number < WARM + CALLS_RIVAL:
                found["litellm"] = await other.timed(path, body(unique))
            if number >= WARM:
                for name, took in found.items():
                    times[name].append(took)
        rows += added(f"model.{door}", times)
    for line in (direct, own, other):
        if line is not None:
            line.close()
    return rows


async def _first_event(stub: int, kernel: int) -> list[Row]:
    """Until the first event of a stream that carries text."""
    times: dict[str, list[float]] = {"direct": [], "ring0": []}
    direct, own = await Line.open(stub), await Line.open(kernel)
    path = DOORS["chat"][0]
    for number in range(WARM + CALLS // 2):
        body = {**_chat(number + 50_000_000), "stream": True}
        found = {"direct": await direct.first_event(path, body)}
        found["ring0"] = await own.first_event(path, body)
        if number >= WARM:
            for name, took in found.items():
                times[name].append(took)
    direct.close()
    own.close()
    return added("model.first-event", times)


async def _growing(stub: int, kernel: int) -> list[Row]:
    """A conversation that grows by a kilobyte a turn, to 100 KB."""
    times: dict[str, list[float]] = {"direct": [], "ring0": []}
    direct, own = await Line.open(stub), await Line.open(kernel)
    path = DOORS["chat"][0]
    for number in range(4):
        messages: list[dict[str, str]] = []
        while len(messages) * TURN_BYTES < CONVERSATION_BYTES:
            messages.append(_chat(number * 10_000 + len(messages) + 90_000_000)["messages"][0])
            body = {"model": "default", "messages": messages, "max_tokens": 256}
            times["direct"].append(await direct.timed(path, body))
            times["ring0"].append(await own.timed(path, body))
            messages.append({"role": "assistant", "content": "y" * TURN_BYTES})
        times = {name: found[-50 * (number + 1) :] for name, found in times.items()}
    direct.close()
    own.close()
    return added("model.growing-100KB", times)


# --- the others -------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _process(*argv: str, ready: bytes, **more: Any) -> AsyncIterator[tuple[Any, bytes]]:
    """A process, and the line with which it said that it is ready."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S_MAX):
            while ready not in (line := await process.stdout.readline()):
                if not line:
                    raise RuntimeError(f"{argv[:3]} ended before it was ready")
        yield process, line
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def _stub() -> AsyncIterator[int]:
    argv = (sys.executable, "-m", "bench.gateway_sides", "stub")
    async with _process(*argv, ready=b"port ", cwd=ROOT) as (_, line):
        yield int(line.split()[1])


@contextlib.asynccontextmanager
async def _kernel(folder: Path, stub: int, *more: str) -> AsyncIterator[tuple[int, Any, float]]:
    own = folder / ("kernel" + "-".join(("", *more)))
    own.mkdir()
    argv = (sys.executable, "-m", "bench.gateway_sides", "kernel", str(own), str(stub), *more)
    began = time.perf_counter()
    async with _process(*argv, ready=b"port ", cwd=ROOT) as (process, line):
        yield int(line.split()[1]), process, time.perf_counter() - began


@contextlib.asynccontextmanager
async def _rival(folder: Path, stub: int) -> AsyncIterator[int]:
    """LiteLLM's proxy as it comes, one worker; 0: it is not there."""
    if not RIVAL.is_file():
        yield 0
        return
    model = {
        "model_name": "default",
        "litellm_params": {
            "model": "openai/m",
            "api_base": f"http://127.0.0.1:{stub}/v1",
            "api_key": "sk-bench",
        },
    }
    config = folder / "litellm.yaml"
    config.write_text(json.dumps({"model_list": [model]}))  # JSON is YAML.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        # Nobody but this benchmark can reach it.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    log = (folder / "litellm.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        str(RIVAL), "--config", str(config), "--port", str(port), "--host", "127.0.0.1",
        stdout=log, stderr=log, env=environment,
    )  # fmt: skip
    try:
        async with asyncio.timeout(START_S_MAX):
            while True:
                with contextlib.suppress(OSError):
                    (await Line.open(port)).close()
                    break
                if process.returncode is not None:
                    raise RuntimeError(
                        f"LiteLLM ended: {(folder / 'litellm.log').read_text()[-500:]}"
                    )
                await asyncio.sleep(0.2)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        log.close()


def _rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1_024
    return 0
