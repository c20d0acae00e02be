"""Sandboxes that are made ahead: used once, for their class alone, never more than a shortcut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sandbox_world import AS_ROOT, MIB, RUNTIME

import journals
from ring0 import limits
from ring0.errors import InvalidInput, SandboxFailed
from ring0.kernel.sandboxes import Sandboxes
from ring0.store import Store
from ring0.store import events as ev
from ring0.store.sqlite.opening import open_store
from ring0.tools.sandbox import Mount, Sandbox, SandboxLimits, SandboxSpec
from ring0.tools.sandbox.pool import Parked
from ring0.tools.sandbox.process import start_ticks
from ring0.tools.sandbox.spec import class_of

RUN = "r-1"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = open_store(tmp_path, RUNTIME, write=True)
    await made.append(journals.queued(RUN))
    yield made
    await made.close()


@pytest.fixture
async def sandboxes(store: Store) -> AsyncIterator[Sandboxes]:
    made = Sandboxes(store, RUNTIME)
    yield made
    await made.close()


def spec(sandboxes: Sandboxes, code: str = "print(input())", **fields: Any) -> SandboxSpec:
    return SandboxSpec(code=code, host_uid=sandboxes.next_uid(), **fields)


async def until_parked(sandboxes: Sandboxes, count: int = 1) -> None:
    async with asyncio.timeout(10):
        while sandboxes._pool.parked < count:
            await asyncio.sleep(0.01)


async def use(sandboxes: Sandboxes, **fields: Any) -> Sandbox:
    made = await sandboxes.start(RUN, spec(sandboxes, **fields), "test")
    await sandboxes.end(made)
    return made


def parked(sandboxes: Sandboxes) -> list[Parked]:
    return [one for known in sandboxes._pool._classes.values() for one in known.ready]


# --- a claim ------------------------------------------------------------------------------------


async def test_the_second_of_a_class_finds_one_that_is_parked_and_uses_it_once(
    sandboxes: Sandboxes,
) -> None:
    await use(sandboxes)
    await until_parked(sandboxes)
    (waiting,) = parked(sandboxes)
    claimed = await sandboxes.start(RUN, spec(sandboxes, env={"A": "1"}, cwd="/usr"), "test")
    assert claimed is waiting.sandbox
    claimed.stdin.write(b"hello\n")
    assert await claimed.stdout.read() == b"hello\n"
    with pytest.raises(SandboxFailed, match="once"):
        await claimed.go()
    await sandboxes.end(claimed)
    assert start_ticks(claimed.identity.pid) is None
    await until_parked(sandboxes)
    assert parked(sandboxes)[0].sandbox is not claimed


async def test_one_that_is_parked_takes_any_program(sandboxes: Sandboxes) -> None:
    await use(sandboxes)
    await until_parked(sandboxes)
    (waiting,) = parked(sandboxes)
    shell = SandboxSpec(argv=("sh", "-c", "echo $0 $A $PWD", "x"), env={"A": "1"}, cwd="/usr",
                        host_uid=sandboxes.next_uid())  # fmt: skip
    claimed = await sandboxes.start(RUN, shell, "test")
    assert claimed is waiting.sandbox
    assert await claimed.stdout.read() == b"x 1 /usr\n"


@pytest.mark.parametrize(
    "other",
    [{"doors": True}, {"egress": True}, {"workspace": True}, {"image": ("json",)},
     {"limits": SandboxLimits(tmp_bytes=MIB)}, {"mounts": (Mount("/usr/bin", "/opt/bin"),)},
     {"tier": "microvm"}],
)  # fmt: skip
def test_what_is_made_otherwise_is_of_another_class(other: dict[str, Any]) -> None:
    assert class_of(SandboxSpec(code="1", **other)) != class_of(SandboxSpec(code="1"))


def test_the_program_and_the_uid_make_no_class() -> None:
    one = SandboxSpec(code="1", argv=("a",), env={"A": "1"}, cwd="/usr", host_uid=7)
    assert class_of(one) == class_of(SandboxSpec(argv=("true",)))


async def test_a_folder_that_was_put_in_the_place_of_another_is_not_the_one_that_is_mounted(
    sandboxes: Sandboxes, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    named = tmp_path / "code"
    mounts = (Mount(str(named), "/opt/code"),)
    code = "print(open('/opt/code/version').read())"
    for version in ("one", "two"):
        if named.exists():
            named.rename(tmp_path / "old")
        named.mkdir(mode=0o755)
        (named / "version").write_text(version)
        made = await sandboxes.start(RUN, spec(sandboxes, code, mounts=mounts), "test")
        assert (await made.stdout.read()).decode() == version + "\n"
        await sandboxes.end(made)
        await until_parked(sandboxes)


@pytest.mark.skipif(not AS_ROOT, reason="only root gives uids")
async def test_each_parked_one_has_a_uid_of_its_own(sandboxes: Sandboxes) -> None:
    await asyncio.gather(*(use(sandboxes) for _ in range(4)))
    await until_parked(sandboxes, 3)
    used = [one.sandbox.uid for one in parked(sandboxes)]
    assert len(set(used)) == len(used) and 0 not in used
    assert os.stat(f"/proc/{parked(sandboxes)[0].sandbox.identity.pid}").st_uid in (0, used[0])


async def test_who_names_no_uid_is_given_one(sandboxes: Sandboxes) -> None:
    uids = set()
    for _ in range(3):
        made = await sandboxes.start(RUN, SandboxSpec(argv=("true",), doors=True), "test")
        uids.add(made.uid)
        await sandboxes.end(made)
    assert len(uids) == 3 if AS_ROOT else uids == {os.getuid()}


async def test_one_that_died_while_it_waited_is_not_handed_out(sandboxes: Sandboxes) -> None:
    await use(sandboxes)
    await until_parked(sandboxes)
    (waiting,) = parked(sandboxes)
    os.kill(waiting.sandbox.identity.pid, signal.SIGKILL)
    await waiting.sandbox.wait()
    made = await sandboxes.start(RUN, spec(sandboxes), "test")
    assert made is not waiting.sandbox and made.alive


async def test_a_program_that_can_not_be_uses_up_nothing(sandboxes: Sandboxes) -> None:
    await use(sandboxes)
    await until_parked(sandboxes)
    with pytest.raises(InvalidInput):
        await sandboxes.start(RUN, spec(sandboxes, "a\0b"), "test")
    assert len(parked(sandboxes)) == 1


async def test_many_at_once_are_all_served(sandboxes: Sandboxes) -> None:
    async def one(number: int) -> bytes:
        made = await sandboxes.start(RUN, spec(sandboxes, f"print({number})"), "test")
        try:
            return await made.stdout.read()
        finally:
            await sandboxes.end(made)

    answers = await asyncio.gather(*(one(number) for number in range(40)))
    assert answers == [b"%d\n" % number for number in range(40)]
    assert sandboxes._pool.parked <= limits.POOL_CLASS_PARKED_MAX


async def test_one_that_is_parked_for_an_image_has_it(sandboxes: Sandboxes) -> None:
    code = "import sys; print('decimal' in sys.modules)"
    for _ in range(2):
        made = await sandboxes.start(RUN, spec(sandboxes, code, image=("decimal",)), "test")
        assert await made.stdout.read() == b"True\n"
        await sandboxes.end(made)
        await until_parked(sandboxes)


async def test_calls_that_are_cancelled_at_any_moment_leave_nothing(store: Store) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    sandboxes = Sandboxes(store, RUNTIME)
    await use(sandboxes)

    async def one(number: int) -> None:
        made = await sandboxes.start(RUN, spec(sandboxes, "print('x' * 9)"), "test")
        try:
            assert await made.stdout.read() == b"xxxxxxxxx\n"
        finally:
            await sandboxes.end(made)

    for round_ in range(5):
        tasks = [asyncio.create_task(one(number)) for number in range(12)]
        for number, task in enumerate(tasks):
            await asyncio.sleep(0.0007 * ((number * 7 + round_ * 3) % 11))
            if number % 3:
                task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ended} <= {type(None), asyncio.CancelledError}, ended
    await sandboxes.close()
    await store.flush()
    assert [*await store.sandboxes_alive(), *await store.sandboxes_parked()] == []
    await asyncio.sleep(0.05)  # transports close their pipes a moment later
    assert sorted(os.listdir("/proc/self/fd")) == before
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
              for pid in children]  # fmt: skip
    assert "Z" not in states


# --- on record ----------------------------------------------------------------------------------


async def _entries(store: Store) -> list[ev.Entry]:
    await store.flush()
    return [entry async for entry in store.entries()]


async def test_one_is_on_disk_before_it_can_be_claimed_and_the_claim_names_the_run(
    sandboxes: Sandboxes, store: Store
) -> None:
    await use(sandboxes)
    await until_parked(sandboxes)
    (waiting,) = parked(sandboxes)
    (row,) = await store.sandboxes_parked()
    assert (row.id, row.run, row.pid) == (waiting.name, "kernel", waiting.sandbox.identity.pid)
    made = await sandboxes.start(RUN, spec(sandboxes), "mine")
    await asyncio.sleep(3 * limits.SANDBOX_CLAIM_DELAY_MS / 1_000)
    await store.flush()
    (row,) = [row for row in await store.sandboxes_alive() if row.id == waiting.name]
    assert (row.run, row.purpose) == (RUN, "mine")
    await sandboxes.end(made)
    told = [entry.body for entry in await _entries(store) if entry.run == RUN]
    assert [body for body in told if getattr(body, "sandbox", "") == waiting.name] == [
        ev.SandboxClaimed(sandbox=waiting.name, pid=row.pid, purpose="mine"),
        ev.SandboxEnded(sandbox=waiting.name),
    ]


async def test_a_claim_that_is_over_at_once_is_on_record_too(
    sandboxes: Sandboxes, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SANDBOX_CLAIM_DELAY_MS", 3_600_000)
    await use(sandboxes)
    await until_parked(sandboxes)
    (waiting,) = parked(sandboxes)
    await use(sandboxes)
    kinds = [
        type(entry.body).__name__ for entry in await _entries(store)
        if getattr(entry.body, "sandbox", "") == waiting.name
    ]  # fmt: skip
    assert kinds == ["SandboxStarted", "SandboxClaimed", "SandboxEnded"]


async def test_closing_ends_all_of_them_on_record(store: Store) -> None:
    sandboxes = Sandboxes(store, RUNTIME)
    running = await sandboxes.start(RUN, spec(sandboxes), "test")
    await until_parked(sandboxes)
    waiting = parked(sandboxes)[0].sandbox
    await sandboxes.close()
    await store.flush()
    assert not running.alive and not waiting.alive
    assert [*await store.sandboxes_alive(), *await store.sandboxes_parked()] == []


KERNEL = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import journals
from ring0.kernel.sandboxes import Sandboxes
from ring0.runtime import Runtime
from ring0.store.sqlite.opening import open_store
from ring0.tools.sandbox import SandboxSpec
async def main():
    store = open_store(Path(sys.argv[1]), Runtime(), write=True)
    await store.append(journals.queued("r-1"))
    boxes = Sandboxes(store, Runtime())
    made = await boxes.start("r-1", SandboxSpec(code="input()", host_uid=boxes.next_uid()), "test")
    while not boxes._pool.parked:
        await asyncio.sleep(0.01)
    (parked,) = [one for known in boxes._pool._classes.values() for one in known.ready]
    print(made.identity.pid, parked.sandbox.identity.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_after_a_crash_the_next_kernel_confirms_also_the_parked_ones_dead(
    tmp_path: Path,
) -> None:
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, str(tmp_path), str(Path(journals.__file__).parent)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert kernel.stdout is not None
    pids = list(map(int, kernel.stdout.readline().split()))
    for pid in pids:  # so that they can't end by themselves: burying them must kill them
        os.kill(pid, signal.SIGSTOP)
    kernel.kill()
    kernel.wait()
    kernel.stdout.close()
    store = open_store(tmp_path, RUNTIME, write=True)
    try:
        assert len(await store.sandboxes_parked()) == 1
        assert await Sandboxes(store, RUNTIME).bury() == 2
        await store.flush()
        assert [*await store.sandboxes_alive(), *await store.sandboxes_parked()] == []
        for pid in pids:
            with contextlib.suppress(FileNotFoundError):
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                assert state in "ZX"
    finally:
        await store.close()
