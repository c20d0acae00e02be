"""`ring0 bench journal`: what an event costs, how many are durable in a second, how late they are.

In one run: the disk's fdatasync, the same rows in raw SQLite (WAL, FULL, groups of 256, nothing
worked out or told), the store itself, and a span through the OpenTelemetry SDK (`make proof`, else
absent). An event is a tool call's intent or outcome with its verdict, its labels, a value of 100
bytes, its Merkle leaf, and the rows that follow from it. What the SDK does to export a span is not
counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
from msgspec.structs import replace

from bench.rows import Row, percentile, row
from ring0 import limits
from ring0.observability.proof.anchors import Anchors
from ring0.observability.proof.logs import check_log
from ring0.runtime import Runtime
from ring0.store import Write, address, merkle
from ring0.store import events as ev
from ring0.store.sqlite import SqliteStore, open_store, sql
from ring0.store.sqlite.sql import VALUE
from ring0.store.sqlite.tables import encode
from ring0.types import (
    Budget,
    Call,
    CallKind,
    CallState,
    Effect,
    Integrity,
    Label,
    Mode,
    Reason,
    Run,
    RunState,
    Verdict,
    VerdictKind,
)

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-proof" / "bin" / "python"
EVENTS = 20_000
ROUNDS = 5
AT_ONCE = 256
BATCH = 100
SYNCS = 400
RATE_PER_S = 2_000
RATE_S = 5
SPANS = 10_000
VERIFIED = 1_000_000
SPAN = "an OpenTelemetry span"
SQLITE = "raw SQLite"
DISK = "fdatasync"
KEY = b"k" * 32


def run() -> list[Row]:
    """All figures. Takes a minute or two."""
    # On a disk: /tmp may be memory.
    with tempfile.TemporaryDirectory(dir=os.environ.get("RING0_BENCH_DIR")) as folder:
        place = Path(folder)
        sync_s = _fdatasync(place)
        rows = [row("fdatasync of 4 KB, p50", percentile(sync_s, 0.5) * 1_000, "ms", SYNCS)]
        rows += asyncio.run(_costs(place / "cost"))
        rows += _spans()
        rows += _rates(place)
        rows += asyncio.run(_lag(place / "lag", percentile(sync_s, 0.5)))
        rows.append(_verified())
    return rows


def _fdatasync(folder: Path) -> list[float]:
    file = os.open(folder / "sync", os.O_WRONLY | os.O_CREAT)
    took = []
    for _ in range(SYNCS):
        os.pwrite(file, os.urandom(4_096), 0)
        begun = time.perf_counter()
        os.fdatasync(file)
        took.append(time.perf_counter() - begun)
    os.close(file)
    return took


# --- what one event costs -------------------------------------------------------------------------


async def _costs(folder: Path) -> list[Row]:
    """The CPU of whoever appends, and of all threads together."""
    store = await _opened(folder, "r-cost")
    writes = _calls("r-cost")
    own: list[float] = []
    all_s = 0.0
    for _ in range(EVENTS // BATCH):
        group = [next(writes) for _ in range(BATCH)]
        begun, all_begun = time.thread_time(), time.process_time()
        await asyncio.gather(*(store.append(write) for write in group))
        own.append((time.thread_time() - begun) / BATCH)
        all_s += time.process_time() - all_begun
    await store.close()
    return [
        row("event, caller's CPU, p50", percentile(own, 0.5) * 1e6, "µs", EVENTS, SPAN),
        row("event, caller's CPU, p99 of batches", percentile(own, 0.99) * 1e6, "µs", EVENTS, SPAN),
        row("event, all threads' CPU, to the disk", all_s / EVENTS * 1e6, "µs", EVENTS, SPAN),
    ]


def _spans() -> list[Row]:
    if not PYTHON.exists():
        return [row(f"{SPAN}: absent, `make proof` installs it", 0, "", 0)]
    script = ROOT / "bench" / "rivals" / "otel_spans.py"
    said = {f"ring0.{name}": value for name, value in _attributes().items()}
    done = subprocess.run(
        [PYTHON, script, str(SPANS), json.dumps(said)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    told = json.loads(done.stdout)
    return [
        row(f"{SPAN}, caller's CPU, p50", percentile(told["own_s"], 0.5) * 1e6, "µs", SPANS),
        row(f"{SPAN}, all threads' CPU", told["process_s"] * 1e6, "µs", SPANS),
        row(f"{SPAN}: dropped of {told['made']}", told["made"] - told["exported"], "spans", SPANS),
    ]


def _attributes() -> dict[str, Any]:
    call = _call("r-cost", 0)
    return {
        "run": call.run,
        "call": call.id,
        "kind": str(call.kind),
        "tool": call.name,
        "state": str(call.state),
        "verdict": str(call.verdict.kind),
        "rules": [reason.rule for reason in call.verdict.reasons],
        "why": [reason.text for reason in call.verdict.reasons],
        "arguments": call.args,
        "request": call.request_digest,
        "label": ["user", "public"],
        "cost_microusd": 12,
    }


# --- how many in a second -------------------------------------------------------------------------


def _rates(folder: Path) -> list[Row]:
    """In turns, so that a disk that is slower for a while is slower for both."""
    alone, raw, own = [], [], []
    for number in range(ROUNDS):
        alone.append(_raw(folder / f"alone{number}", rows=False))
        raw.append(_raw(folder / f"raw{number}", rows=True))
        own.append(asyncio.run(_durable(folder / f"own{number}", f"r-{number}")))
    singly = asyncio.run(_one_by_one(folder / "singly"))
    share = [mine / theirs for mine, theirs in zip(own, raw, strict=True)]
    count = EVENTS * ROUNDS
    return [
        row(
            f"{SQLITE}, events alone, groups of {AT_ONCE}",
            statistics.median(alone),
            "events/s",
            count,
        ),
        row(
            f"{SQLITE}, the same rows, groups of {AT_ONCE}",
            statistics.median(raw),
            "events/s",
            count,
        ),
        row(f"durable, {AT_ONCE} wait at once", statistics.median(own), "events/s", count, SQLITE),
        row("durable events, share of raw", statistics.median(share) * 100, "%", ROUNDS, SQLITE),
        row("durable events, one after the other", singly, "events/s", SYNCS),
    ]


def _raw(folder: Path, *, rows: bool) -> float:
    """The event's own row; with `rows` those too that follow from it: its value, its call, and once
    a group the run, the tenant, the tree. They are made beforehand: nothing is worked out, nothing
    is checked, nobody is told."""
    folder.mkdir()
    connection = apsw.Connection(str(folder / "raw.db"))
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute(sql.SCHEMA).fetchall()
    connection.execute(sql.PRAGMAS).fetchall()
    body = ev.encode_entry(_intended("r-raw", 0).events[0])
    events = [
        (index, "r-raw", index + 1, merkle.leaf_hash(body + b"%d" % index), body)
        for index in range(EVENTS)
    ]
    call = encode(_call("r-raw", 0))
    calls = [(f"r-raw/0/{n // 2}", "r-raw", n, "intended", call) for n in range(EVENTS)]
    blobs = [(f"{n:064x}", VALUE, b"%100d" % n) for n in range(EVENTS)]
    begun = time.perf_counter()
    for at in range(0, EVENTS, AT_ONCE):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(sql.ADD_EVENT, events[at : at + AT_ONCE])
        if rows:
            connection.executemany(sql.ADD_BLOB, blobs[at : at + AT_ONCE])
            connection.executemany(sql.PUT["call"], calls[at : at + AT_ONCE])
            connection.execute(sql.PUT["run"], ("r-raw", "running", "", "r-raw", 1, 0, call))
            connection.execute(sql.PUT["tenant"], ("acme", call[:80]))
            connection.execute(sql.MOVE_TREE, (at, b"", at))
        connection.execute("COMMIT")
    took = time.perf_counter() - begun
    connection.close()
    return EVENTS / took


async def _durable(folder: Path, run: str) -> float:
    store = await _opened(folder, run)
    writes = _calls(run)

    async def caller() -> None:
        for _ in range(EVENTS // AT_ONCE):
            await store.append(replaced(next(writes)))

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    took = time.perf_counter() - begun
    await store.close()
    return EVENTS // AT_ONCE * AT_ONCE / took


async def _one_by_one(folder: Path) -> float:
    store = await _opened(folder, "r-alone")
    writes = _calls("r-alone")
    begun = time.perf_counter()
    for _ in range(SYNCS):
        await store.append(replaced(next(writes)))
    took = time.perf_counter() - begun
    await store.close()
    return SYNCS / took


async def _lag(folder: Path, sync_s: float) -> list[Row]:
    """From the append to the disk, at a rate that a busy machine has."""
    store = await _opened(folder, "r-lag")
    writes = _calls("r-lag")
    took: list[float] = []

    async def one(write: Write) -> None:
        begun = time.perf_counter()
        await store.append(replaced(write))
        took.append(time.perf_counter() - begun)

    tasks, begun = [], time.perf_counter()
    for number in range(RATE_PER_S * RATE_S):
        ahead_s = begun + number / RATE_PER_S - time.perf_counter()
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
        tasks.append(asyncio.ensure_future(one(next(writes))))
    await asyncio.gather(*tasks)
    await store.close()
    p50, p99 = percentile(took, 0.5), percentile(took, 0.99)
    count = len(took)
    return [
        row(f"lag to the disk at {RATE_PER_S}/s, p50", p50 * 1_000, "ms", count, DISK),
        row(f"lag to the disk at {RATE_PER_S}/s, p99", p99 * 1_000, "ms", count, DISK),
        row("lag, p99 in fdatasyncs (p50)", p99 / sync_s, "times", count, DISK),
    ]


def _verified() -> Row:
    """The log alone, as `audit verify --log-only` reads it, from memory."""
    body = ev.encode_entry(_intended("r-verify", 0).events[0])
    entries = ((index, None, body) for index in range(VERIFIED))
    begun = time.perf_counter()
    report = check_log(entries, Anchors((), ()))
    assert report.events == VERIFIED
    took_s = time.perf_counter() - begun
    return row("verify a log of a million events", took_s, "s", 1)


# --- events ---------------------------------------------------------------------------------------


async def _opened(folder: Path, run: str) -> SqliteStore:
    folder.mkdir()
    store = open_store(folder, Runtime(), write=True)
    queued = Run(
        id=run,
        state=RunState.QUEUED,
        root=run,
        agent="clerk",
        agent_digest="d" * 64,
        mode=Mode.ISOLATED,
        tenant="acme",
        principal="ann",
        task=address(KEY, b"task"),
        label=Label(integrity=Integrity.USER, sources=("task",)),
        budget=Budget(calls=limits.BUDGET_CALLS_MAX, cost_microusd=0),
        started_us=1,
        deadline_us=1 << 60,
    )
    manifest = address(KEY, b"manifest")
    await store.append(
        Write(
            run=run,
            key=KEY,
            blobs={queued.task: b"task", manifest: b"manifest"},
            durable=True,
            events=[ev.RunQueued(run=queued, manifest=manifest)],
        )
    )
    await store.append(Write(run=run, events=[ev.RunMoved(state=RunState.RUNNING, epoch=1)]))
    return store


def _call(run: str, number: int) -> Call:
    return Call(
        id=f"{run}/0/{number}",
        run=run,
        seq=0,
        kind=CallKind.TOOL,
        name="crm.query",
        state=CallState.INTENDED,
        request_digest="e" * 64,
        args=address(KEY, b"{}"),
        effect=Effect.IDEMPOTENT,
        verdict=Verdict(
            kind=VerdictKind.ALLOW, reasons=(Reason(rule="reads", text="It only reads."),)
        ),
        decision=address(KEY, b"{}"),
        begun_us=5,
    )


def _intended(run: str, number: int) -> Write:
    return Write(
        run=run,
        blobs={address(KEY, b"{}"): b"{}"},
        events=[ev.CallIntended(call=_call(run, number))],
    )


def _calls(run: str) -> Iterator[Write]:
    """An intent, its outcome, the next intent."""
    number = 0
    while True:
        yield _intended(run, number)
        value = b"%100d" % number
        where = address(KEY, value)
        ended = ev.CallEnded(call=f"{run}/0/{number}", state=CallState.OK, outcome=where)
        yield Write(run=run, blobs={where: value}, events=[ended])
        number += 1


def replaced(write: Write) -> Write:
    """The same, for the disk."""
    return replace(write, durable=True)
