"""`ring0 bench sandbox`: a fresh sandbox for one program, parked or on demand, beside its floor.

A claim is measured as a tool's call pays for it: from `Sandboxes.start` with a journal on disk to
the last byte that the program printed (`answer`), and to when all of it is gone and on record
(`ended`). The floor is C: the same seven namespaces and nothing in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop

from bench.rows import Row, row, spread
from ring0.kernel.sandboxes import Sandboxes
from ring0.runtime import Runtime
from ring0.store import Write
from ring0.store import events as ev
from ring0.store.sqlite.opening import open_store
from ring0.tools.sandbox import SandboxSpec
from ring0.tools.sandbox.host import launch, make
from ring0.tools.sandbox.zygote import Zygotes
from ring0.types import Budget, Integrity, Label, Mode, Run, RunState

PARKED, ON_DEMAND, OUTSIDE, KILLED, MANY, AT_ONCE, IDLE = 200, 100, 50, 30, 600, 8, 24
CODE = "print(sum(range(100)))"
BWRAP = (
    "bwrap",
    "--unshare-all",
    "--ro-bind",
    "/",
    "/",
    "--proc",
    "/proc",
    "--tmpfs",
    "/tmp",
    "true",
)
FLOOR = "floor: clone with 7 namespaces, in C"
PROGRAMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Python", {"code": CODE}),
    ("true by exec", {"argv": ("true",)}),
)
RUNTIME = Runtime()
RUN = "r-bench"

C = r"""
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static char stack[65536];
static int child(void *flags) { if (!flags) execl("/bin/true", "true", (char *)0); _exit(0); }
int main(int argc, char **argv) {
  int all = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID
            | CLONE_NEWNET | CLONE_NEWUSER;
  for (int i = 0; i < atoi(argv[2]); i++) {
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    int flags = argv[1][0] == 'n' ? all : CLONE_VFORK | CLONE_VM;
    int pid = clone(child, stack + sizeof stack, flags | SIGCHLD, argv[1][0] == 'n' ? argv : 0);
    if (pid < 0) { perror("clone"); return 1; }
    waitpid(pid, 0, 0);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("%ld\n", (b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec);
  }
}
"""


def run() -> list[Row]:
    """All figures. Takes about twenty seconds."""
    with tempfile.TemporaryDirectory(prefix="ring0-bench-", dir=Path.cwd()) as folder:
        rows = _floor(Path(folder)) + _outside()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return rows + runner.run(_inside(Path(folder)))


# --- beside it ----------------------------------------------------------------------------------


def _floor(folder: Path) -> list[Row]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return [row(f"{FLOOR} (no C compiler here)", 0, "ms", 0)]
    (folder / "floor.c").write_text(C)
    subprocess.run([compiler, "-O2", "-o", folder / "floor", folder / "floor.c"], check=True)
    rows = []
    for name, kind in ((FLOOR, "namespaces"), ("floor: vfork and exec of true, in C", "exec")):
        asked = [str(folder / "floor"), kind, str(ON_DEMAND)]
        done = subprocess.run(asked, capture_output=True, text=True)
        if done.returncode != 0:
            return [row(f"{name} ({done.stderr.strip()})", 0, "ms", 0)]
        rows += spread(name, [int(line) / 1e9 for line in done.stdout.split()])
    return rows


def _outside() -> list[Row]:
    """Not contained at all, and contained by another's means."""
    rows = _timed("rival: subprocess, python -I -S -c", [sys.executable, "-I", "-S", "-c", CODE])
    rows += _timed("rival: subprocess, true", ["true"])
    if shutil.which("bwrap") is None:
        return [*rows, row("rival: bwrap --unshare-all true (not installed)", 0, "ms", 0)]
    return rows + _timed("rival: bwrap --unshare-all true", list(BWRAP))


def _timed(name: str, argv: list[str]) -> list[Row]:
    times = []
    for _ in range(OUTSIDE):
        begun = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    return spread(name, times)


# --- sandboxes ----------------------------------------------------------------------------------


async def _inside(folder: Path) -> list[Row]:
    rows = await _on_demand()
    async with _kernel(folder) as sandboxes:
        for name, program in PROGRAMS:
            rows += await _parked(sandboxes, f"parked, {name}", program)
        rows += await _throughput(sandboxes)
        return rows + await _idle(sandboxes) + await _kill(sandboxes)


@contextlib.asynccontextmanager
async def _kernel(folder: Path) -> AsyncIterator[Sandboxes]:
    """As much of one as starts sandboxes: a journal with a run in it."""
    store = open_store(folder, RUNTIME, write=True)
    queued = Run(
        id=RUN, state=RunState.QUEUED, parent="", root=RUN, depth=0, agent="bench",
        agent_digest="", mode=Mode.ISOLATED, tenant="local", principal="bench", task="",
        label=Label(integrity=Integrity.USER), budget=Budget(calls=1), started_us=1,
        deadline_us=2**52,
    )  # fmt: skip
    await store.append(Write(run=RUN, events=[ev.RunQueued(run=queued, manifest="")], durable=True))
    sandboxes = Sandboxes(store, RUNTIME)
    try:
        yield sandboxes
    finally:
        await sandboxes.close()
        await store.close()


async def _one(sandboxes: Sandboxes, program: dict[str, Any]) -> tuple[float, float]:
    """A whole use: seconds to the answer, and to the end."""
    begun = time.perf_counter()
    spec = SandboxSpec(host_uid=sandboxes.next_uid(), **program)
    made = await sandboxes.start(RUN, spec, "bench")
    await made.stdout.read()
    answered = time.perf_counter() - begun
    await made.wait()
    await sandboxes.end(made)
    return answered, time.perf_counter() - begun


async def _parked(sandboxes: Sandboxes, name: str, program: dict[str, Any]) -> list[Row]:
    await _one(sandboxes, program)
    times = []
    for _ in range(PARKED):
        while not sandboxes.parked:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)  # as an agent that thinks between its calls, only shorter
        times.append(await _one(sandboxes, program))
    return [
        *spread(f"{name}: claim to answer", [time[0] for time in times], FLOOR),
        *spread(f"{name}: claim to ended, on record", [time[1] for time in times], FLOOR),
    ]


async def _on_demand() -> list[Row]:
    zygotes = Zygotes(RUNTIME)
    rows = []
    uid = 1_900_000_000
    try:
        for name, program in PROGRAMS:
            times = []
            for _ in range(ON_DEMAND):
                uid += 1
                begun = time.perf_counter()
                spec = SandboxSpec(host_uid=uid, **program)
                made = await launch(spec, RUNTIME, zygotes)
                await made.go()
                await made.stdout.read()
                times.append(time.perf_counter() - begun)
                await made.close()
            rows += spread(f"on demand, {name}: asked to answer", times[5:], FLOOR)
        begun = time.perf_counter()
        made = await launch(SandboxSpec(argv=("true",), host_uid=uid + 1), RUNTIME)
        rows.append(row("on demand, without a zygote: made", (time.perf_counter() - begun) * 1e3,
                        "ms", 1))  # fmt: skip
        await made.close()
    finally:
        await zygotes.close()
    return rows


async def _throughput(sandboxes: Sandboxes) -> list[Row]:
    rows = []
    for name, program in PROGRAMS:

        async def worker(program: dict[str, Any] = program) -> None:
            for _ in range(MANY // AT_ONCE):
                await _one(sandboxes, program)

        begun = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        rate = MANY / (time.perf_counter() - begun)
        title = f"sustained, {name}: fresh, used once, {AT_ONCE} at once, {os.cpu_count()} cores"
        rows.append(row(title, rate, "sandboxes/s", MANY))
    return rows


async def _idle(sandboxes: Sandboxes) -> list[Row]:
    """As many as a pool parks at most: what they share is shared by all."""
    zygotes = Zygotes(RUNTIME)
    made = [
        await make(SandboxSpec(host_uid=sandboxes.next_uid()), RUNTIME, zygotes)
        for _ in range(IDLE)
    ]
    await asyncio.sleep(0.5)
    try:
        sizes = []
        for one in made:
            pid = one.identity.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            sizes.append(sum(map(_pss_kib, (pid, *map(int, children)))))
        zygote = _pss_kib(zygotes.of(()).pid)
    except OSError as error:
        return [row(f"idle parked sandbox ({error.strerror})", 0, "KiB", 0)]
    finally:
        await asyncio.gather(*(one.close() for one in made))
        await zygotes.close()
    mean = sum(sizes) / len(sizes)
    return [
        row("idle parked sandbox, PSS of both processes", mean, "KiB", IDLE),
        row("their zygote, PSS", zygote, "KiB", 1),
    ]


def _pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


FAMILY = """
import os, time
for _ in range(5):
    if os.fork() == 0: time.sleep(99)
print("up", flush=True)
time.sleep(99)
"""


async def _kill(sandboxes: Sandboxes) -> list[Row]:
    """A program that forks and won't leave: from the kill to when all of it is gone."""
    times = []
    for _ in range(KILLED):
        spec = SandboxSpec(code=FAMILY, host_uid=sandboxes.next_uid())
        made = await sandboxes.start(RUN, spec, "bench")
        await made.stdout.readline()
        begun = time.perf_counter()
        await made.kill()
        times.append(time.perf_counter() - begun)
        await sandboxes.end(made)
    return spread("kill, 6 processes: to all of them gone", times)
