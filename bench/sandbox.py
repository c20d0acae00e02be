"""`ring0 bench sandbox`: a fresh sandbox for one program, parked or on demand, beside its floor.

A claim is measured as a tool's call pays for it: from `Sandboxes.start` with a journal on disk to
the last byte that the program printed (`answer`), and to when all of it is gone and on record
(`ended`). The floor is C: the same seven namespaces and nothing in them.

A machine has better and worse moments. What is compared is measured in turns, CPU time is told
beside the clock's, and the machine's load is the first and the last row.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvloop

from bench.rows import Row, percentile, row, spread
from ring0.kernel.sandboxes import Sandboxes
from ring0.runtime import Runtime
from ring0.store import Write
from ring0.store import events as ev
from ring0.store.sqlite.opening import open_store
from ring0.tools.sandbox import SandboxSpec
from ring0.tools.sandbox.host import launch, make
from ring0.tools.sandbox.zygote import Zygotes
from ring0.types import Budget, Integrity, Label, Mode, Run, RunState

PARKED, ON_DEMAND, KILLED, IDLES, TURNS = 200, 100, 30, (24, 4), 5
"""How often each is measured; how many are parked at once; in how many turns."""
MANY, AT_ONCE = 400, 8
"""Of the throughput: sandboxes in each turn."""
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
    """All figures. Takes about a minute."""
    with (
        tempfile.TemporaryDirectory(prefix="ring0-bench-", dir=Path.cwd()) as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        rows = [_load("before"), *runner.run(_all(Path(folder)))]
    return [*rows, _load("after")]


def _load(when: str) -> Row:
    return row(f"load of the machine {when}, 1 minute", os.getloadavg()[0], "processes", 1)


def _cpu_s() -> float:
    """CPU time of this process, the kernel, and of what it has waited for: each sandbox's
    processes. A zygote's share, and Linux's own tidying up afterwards, are not in it."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


# --- beside it ----------------------------------------------------------------------------------


class Rivals:
    """What a sandbox is compared to: Linux's own price, and programs that another starts."""

    def __init__(self, folder: Path) -> None:
        self._floor = self._compiled(folder)
        self._times: dict[str, list[float]] = defaultdict(list)
        self._missing: list[Row] = []
        if self._floor is None:
            self._missing.append(row(f"{FLOOR} (no C compiler here)", 0, "ms", 0))
        self._programs = {
            "rival: subprocess, python -I -S -c": [sys.executable, "-I", "-S", "-c", CODE],
            "rival: subprocess, true": ["true"],
        }
        name = "rival: bwrap --unshare-all true"
        if shutil.which("bwrap") is None:
            self._missing.append(row(f"{name} (not installed)", 0, "ms", 0))
        else:
            self._programs[name] = list(BWRAP)

    def turn(self, count: int) -> None:
        """Each of them, `count` times."""
        kinds = ((FLOOR, "namespaces"), ("floor: vfork and exec of true, in C", "exec"))
        for name, kind in kinds if self._floor else ():
            asked = [self._floor or "", kind, str(count)]
            done = subprocess.run(asked, capture_output=True, text=True)
            if done.returncode == 0:
                self._times[name] += [int(line) / 1e9 for line in done.stdout.split()]
            else:
                self._missing.append(row(f"{name} ({done.stderr.strip()})", 0, "ms", 0))
        for name, argv in self._programs.items():
            for _ in range(count):
                begun = time.perf_counter()
                subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
                self._times[name].append(time.perf_counter() - begun)

    def rows(self) -> list[Row]:
        figures = [one for name, times in self._times.items() for one in spread(name, times)]
        return figures + list({one["name"]: one for one in self._missing}.values())

    def _compiled(self, folder: Path) -> str | None:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            return None
        (folder / "floor.c").write_text(C)
        subprocess.run([compiler, "-O2", "-o", folder / "floor", folder / "floor.c"], check=True)
        return str(folder / "floor")


# --- sandboxes ----------------------------------------------------------------------------------


async def _all(folder: Path) -> list[Row]:
    rivals, single = Rivals(folder), await _without_zygote()
    demanded: dict[str, list[float]] = defaultdict(list)
    claimed: dict[str, list[tuple[float, float]]] = defaultdict(list)
    async with _kernel(folder) as sandboxes:
        zygotes = Zygotes(RUNTIME)
        for _, program in PROGRAMS:  # the first of each is slower, and nobody's figure
            await _one(sandboxes, program)
            await _demand(zygotes, sandboxes, program)
        for _ in range(TURNS):
            rivals.turn(ON_DEMAND // TURNS)
            for name, program in PROGRAMS:
                for _ in range(ON_DEMAND // TURNS):
                    demanded[name].append(await _demand(zygotes, sandboxes, program))
            for _ in range(PARKED // TURNS):
                for name, program in PROGRAMS:
                    claimed[name].append(await _claim(sandboxes, program))
        await zygotes.close()
        rows = rivals.rows()
        for name, times in demanded.items():
            rows += spread(f"on demand, {name}: asked to answer", times, FLOOR)
        rows.append(single)
        for name, both in claimed.items():
            rows += spread(f"parked, {name}: claim to answer", [time[0] for time in both], FLOOR)
            rows += spread(f"parked, {name}: claim to ended, on record",
                           [time[1] for time in both], FLOOR)  # fmt: skip
        rows += await _throughput(sandboxes)
        for count in IDLES:
            rows += await _idle(sandboxes, count)
        return rows + await _kill(sandboxes)


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


async def _claim(sandboxes: Sandboxes, program: dict[str, Any]) -> tuple[float, float]:
    while not sandboxes.parked:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)  # as an agent that thinks between its calls, only shorter
    return await _one(sandboxes, program)


async def _demand(zygotes: Zygotes, sandboxes: Sandboxes, program: dict[str, Any]) -> float:
    """Seconds to the answer of one that nobody made ahead."""
    begun = time.perf_counter()
    spec = SandboxSpec(host_uid=sandboxes.next_uid(), **program)
    made = await launch(spec, RUNTIME, zygotes)
    await made.go()
    await made.stdout.read()
    answered = time.perf_counter() - begun
    await made.close()
    return answered


async def _without_zygote() -> Row:
    begun = time.perf_counter()
    made = await launch(SandboxSpec(argv=("true",), host_uid=1_900_000_000), RUNTIME)
    took_ms = (time.perf_counter() - begun) * 1e3
    await made.close()
    return row("on demand, without a zygote: made", took_ms, "ms", 1)


async def _throughput(sandboxes: Sandboxes) -> list[Row]:
    """In turns, so that a bad moment of the machine is one turn's and not one program's."""
    rates: dict[str, list[float]] = defaultdict(list)
    costs_ms: dict[str, list[float]] = defaultdict(list)

    async def worker(program: dict[str, Any]) -> None:
        for _ in range(MANY // AT_ONCE):
            await _one(sandboxes, program)

    for _ in range(TURNS):
        for name, program in PROGRAMS:
            begun, used_s = time.perf_counter(), _cpu_s()
            await asyncio.gather(*(worker(program) for _ in range(AT_ONCE)))
            rates[name].append(MANY / (time.perf_counter() - begun))
            costs_ms[name].append((_cpu_s() - used_s) * 1e3 / MANY)
    rows = []
    for name in rates:
        title = f"sustained, {name}: fresh, used once, {AT_ONCE} at once, {os.cpu_count()} cores"
        middle, best = percentile(rates[name], 0.5), max(rates[name])
        count, cost_ms = MANY * TURNS, percentile(costs_ms[name], 0.5)
        rows += [
            row(f"{title}, p50 of {TURNS} turns", middle, "sandboxes/s", count),
            row(f"{title}, best turn", best, "sandboxes/s", MANY),
            row(f"sustained, {name}: CPU of each, the kernel's included", cost_ms, "ms", count),
        ]
    return rows


async def _idle(sandboxes: Sandboxes, count: int) -> list[Row]:
    """`count` of them: what they share with their zygote, and all with each other, is in each one's
    PSS by its part, so that few show more. Their own is what each one adds."""
    zygotes = Zygotes(RUNTIME)
    made = [
        await make(SandboxSpec(host_uid=sandboxes.next_uid()), RUNTIME, zygotes)
        for _ in range(count)
    ]
    await asyncio.sleep(0.5)
    try:
        sizes, own = [], []
        for one in made:
            pid = one.identity.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            both = [pid, *map(int, children)]
            sizes.append(sum(_kib(one, "Pss:") for one in both))
            own.append(sum(_kib(one, "Private_Dirty:") for one in both))
        zygote = _kib(zygotes.of(()).pid, "Pss:")
    except OSError as error:
        return [row(f"idle parked sandbox ({error.strerror})", 0, "KiB", 0)]
    finally:
        await asyncio.gather(*(one.close() for one in made))
        await zygotes.close()
    name = f"idle parked sandbox of {count}"
    return [
        row(f"{name}, PSS of both processes", sum(sizes) / count, "KiB", count),
        row(f"{name}, private to either process", sum(own) / count, "KiB", count),
        row(f"their zygote, PSS beside {count}", zygote, "KiB", 1),
    ]


def _kib(pid: int, what: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


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
