"""Sandboxes are clones of one process; and it leaves them nothing, and none of them to another."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sandbox_world import AS_ROOT, REPO, RUNTIME, uids

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.tools.sandbox import Sandbox, SandboxSpec, launch
from ring0.tools.sandbox.control import Control
from ring0.tools.sandbox.process import start_ticks
from ring0.tools.sandbox.zygote import Zygotes


@pytest.fixture
async def zygotes() -> AsyncIterator[Zygotes]:
    made = Zygotes(RUNTIME)
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def running(zygotes: Zygotes, code: str, **fields: Any) -> AsyncIterator[Sandbox]:
    spec = SandboxSpec(code=code, host_uid=next(uids), **fields)
    made = await launch(spec, RUNTIME, zygotes)
    try:
        await made.go()
        yield made
    finally:
        await made.close()


async def printed(zygotes: Zygotes, code: str, **fields: Any) -> str:
    async with running(zygotes, code, **fields) as made, asyncio.timeout(20):
        out, err = await made.stdout.read(), await made.stderr.read()
        await made.wait()
        return (out + err).decode()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def tenant_of(made: Sandbox) -> int:
    pid = made.identity.pid
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())


# --- what a clone has of the zygote -------------------------------------------------------------


async def test_no_socket_of_the_zygote_or_of_another_sandbox_leaks(zygotes: Zygotes) -> None:
    listing = "import os; print(os.listdir('/proc/self/fd')); input()"
    async with running(zygotes, listing) as one, running(zygotes, listing) as two:
        for made in (one, two):
            line = (await made.stdout.readline()).decode()
            assert len(json.loads(line.replace("'", '"'))) == 4, "three, and the folder itself"
        if not AS_ROOT:
            return  # from outside, only root can look at the processes themselves
        held = [
            os.readlink(f"/proc/{pid}/fd/{fd}")
            for pid in (zygotes.of(()).pid, one.identity.pid, two.identity.pid)
            for fd in os.listdir(f"/proc/{pid}/fd")
        ]
        sockets = [name for name in held if name.startswith("socket:")]
        assert len(sockets) == len(set(sockets)) == 3, "each has its own one, and no other"
        # Of the streams init has none left, so that they end with the tenant's processes.
        inits = [os.readlink(f"/proc/{one.identity.pid}/fd/{fd}") for fd in (0, 1, 2)]
        assert set(inits) == {"/dev/null"}


async def test_the_environment_of_all_is_empty_from_the_first_process_on(
    zygotes: Zygotes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "canary-in-env")
    ask = "import os; print(dict(os.environ)); print(open('/proc/1/environ').read())"
    async with running(zygotes, "input()") as made:
        pids = [zygotes.of(()).pid]
        if AS_ROOT:
            pids += [made.identity.pid, tenant_of(made)]
        assert {Path(f"/proc/{pid}/environ").read_bytes() for pid in pids} == {b""}
    told = await printed(zygotes, ask, env={"A": "1"})
    assert "{'PATH': '/usr/local/bin:/usr/bin:/bin', 'HOME': '/tmp', 'A': '1'}" in told
    assert "PermissionError" in told and "canary" not in told


async def test_two_clones_share_no_file_system_that_either_may_write_to(zygotes: Zygotes) -> None:
    ask = (
        "import os; open('/tmp/mine','w').write('x')\n"
        "print([os.stat(p).st_dev for p in ('/', '/tmp', '/work')],"
        # A Python that lies in /tmp is there as a folder.
        " [e.name for e in os.scandir('/tmp') if e.is_file()])\n"
        "try: os.mkdir('/x')\nexcept OSError as error: print(error.errno)\ninput()"
    )
    async with running(zygotes, ask, workspace=True) as one:
        first = (await one.stdout.readline()).decode(), await one.stdout.readline()
        async with running(zygotes, ask, workspace=True) as two:
            second = (await two.stdout.readline()).decode(), await two.stdout.readline()
    assert first[1] == second[1] == b"30\n", "EROFS"
    devices = [set(json.loads(told[0].partition("]")[0] + "]")) for told in (first, second)]
    assert devices[0].isdisjoint(devices[1])
    assert "['mine']" in first[0] and "['mine']" in second[0]


async def test_every_clone_has_its_ids_mapped(zygotes: Zygotes) -> None:
    ask = (
        "import os; open('/tmp/f','w'); s=os.stat('/tmp/f'); print(os.getuid(), s.st_uid, s.st_gid)"
    )
    assert await printed(zygotes, ask) == "1000 1000 1000\n"


CHANCE = """
import multiprocessing.process, os, random, ssl, tempfile, uuid
print(random.random(), tempfile.mktemp(), ssl.RAND_bytes(8).hex(), uuid.uuid4(),
      bytes(multiprocessing.process.current_process().authkey).hex())
"""


async def test_what_a_zygote_drew_by_chance_is_drawn_anew_in_each_clone(zygotes: Zygotes) -> None:
    image = ("random", "tempfile", "ssl", "uuid", "multiprocessing.process")
    told = [(await printed(zygotes, CHANCE, image=image)).split() for _ in range(2)]
    assert len(told[0]) == len(told[1]) == 5, told
    assert not set(told[0]) & set(told[1])


async def test_also_what_numpy_drew() -> None:
    pytest.importorskip("numpy")
    zygotes = Zygotes(RUNTIME, trusted=["numpy"])
    try:
        code = "import numpy.random; print(numpy.random.random())"
        told = [await printed(zygotes, code, image=("numpy.random",)) for _ in range(2)]
        assert float(told[0]) != float(told[1])
    finally:
        await zygotes.close()


async def test_no_clone_can_be_dumped_or_looked_into(zygotes: Zygotes) -> None:
    ask = (
        "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
        "try: open('/proc/1/mem')\nexcept OSError as error: print(error.errno)"
    )
    assert await printed(zygotes, ask) == "0\n13\n"


@pytest.mark.skipif(not AS_ROOT, reason="only root may look into the zygote")
async def test_nothing_of_one_sandbox_stays_in_the_zygote_for_the_next(zygotes: Zygotes) -> None:
    canary = "canary-" + "of-one-tenant"
    code = f"kept = '{canary}' + str(input())"
    async with running(zygotes, code, env={"KEY": canary}, argv=(canary,)) as made:
        assert canary.encode() in _memory(tenant_of(made)), "the control"
        assert canary.encode() not in _memory(zygotes.of(()).pid)
        assert canary.encode() not in _memory(made.identity.pid)


def _memory(pid: int) -> bytes:
    found = b""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            if " rw-p " in line:
                start, end = (int(side, 16) for side in line.split()[0].split("-"))
                memory.seek(start)
                found += memory.read(end - start)
    return found


# --- images -------------------------------------------------------------------------------------


async def test_an_image_is_imported_before_the_program_starts(zygotes: Zygotes) -> None:
    ask = "import sys; print('decimal' in sys.modules, 'inside.init' in sys.modules)"
    assert await printed(zygotes, ask) == "False False\n"
    assert await printed(zygotes, ask, image=("decimal",)) == "True False\n"
    assert zygotes.of(()).pid != zygotes.of(("decimal",)).pid


@pytest.mark.parametrize(
    "image", [("numpy",), ("os;x",), ("../evil",), ("antigravity",), ("__main__",), ("os",) * 65]
)
async def test_the_kernel_imports_nothing_that_nobody_named(
    image: tuple[str, ...], zygotes: Zygotes
) -> None:
    with pytest.raises(InvalidInput):
        await printed(zygotes, "pass", image=image)


async def test_an_image_that_can_not_be_imported_is_told(zygotes: Zygotes) -> None:
    for _ in range(2):
        with pytest.raises(InvalidInput, match="image") as told:
            await printed(zygotes, "pass", image=("json.nowhere",))
        assert "json.nowhere" in told.value.why


def test_an_image_that_starts_threads_is_refused(tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(
        "from threading import Thread\nimport time\n"
        "Thread(target=time.sleep, args=(9,), daemon=True).start()"
    )
    load = (
        f"import sys; sys.path += [{str(tmp_path)!r}, {str(REPO / 'src/ring0/tools/sandbox')!r}]\n"
        "from inside.zygote import load; print(load(['json'])); print(load(['busy']))"
    )
    told = subprocess.run([sys.executable, "-I", "-c", load], capture_output=True, text=True)
    assert told.stdout == "\nbusy: importing this starts threads\n", told.stderr


async def test_few_zygotes_are_kept(zygotes: Zygotes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ZYGOTES_MAX", 2)
    pids = [zygotes.of(image).pid for image in ((), ("json",), ("re",))]
    await asyncio.gather(*zygotes._leaving)
    assert [alive(pid) for pid in pids] == [False, True, True]


# --- the zygote's own life ----------------------------------------------------------------------


async def test_a_zygote_that_dies_harms_no_sandbox_and_is_replaced(zygotes: Zygotes) -> None:
    async with running(zygotes, "print(input())") as made:
        first = zygotes.of(()).pid
        os.kill(first, signal.SIGKILL)
        assert await printed(zygotes, "print('next')") == "next\n"
        assert zygotes.of(()).pid != first
        made.stdin.write(b"lives\n")
        assert await made.stdout.readline() == b"lives\n"


async def test_a_zygote_that_dies_while_it_is_asked_is_asked_anew(zygotes: Zygotes) -> None:
    zygote = zygotes.of(())
    os.kill(zygote.pid, signal.SIGSTOP)
    asked = asyncio.create_task(printed(zygotes, "print('made')"))
    await asyncio.sleep(0.1)
    os.kill(zygote.pid, signal.SIGKILL)
    assert await asked == "made\n"


async def test_a_zygote_is_replaced_after_its_share(
    zygotes: Zygotes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ZYGOTE_SANDBOXES_MAX", 2)
    first = zygotes.of(()).pid
    async with running(zygotes, "print(input())") as made:
        for _ in range(2):
            await printed(zygotes, "pass")
        assert zygotes.of(()).pid != first
        await asyncio.gather(*zygotes._leaving)
        assert not alive(first)
        made.stdin.write(b"lives\n")
        assert await made.stdout.readline() == b"lives\n"


KERNEL = """
import asyncio, json, os, sys
from ring0.runtime import Runtime
from ring0.tools.sandbox import SandboxSpec
from ring0.tools.sandbox.host import make
from ring0.tools.sandbox.zygote import Zygotes
async def main():
    zygotes = Zygotes(Runtime())
    made = await make(SandboxSpec(host_uid=int(sys.argv[1])), Runtime(), zygotes)
    print(json.dumps([zygotes.of(()).pid, made.identity.pid]), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_zygotes_and_parked_sandboxes_end_with_the_kernel() -> None:
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, str(next(uids))], stdout=subprocess.PIPE, text=True
    )
    assert kernel.stdout is not None
    pids = json.loads(kernel.stdout.readline())
    assert all(map(alive, pids))
    kernel.kill()
    kernel.wait()
    kernel.stdout.close()
    async with asyncio.timeout(5):
        while any(map(alive, pids)):
            await asyncio.sleep(0.02)


async def test_a_thread_that_ends_does_not_end_the_sandbox_it_started() -> None:
    loop = asyncio.new_event_loop()
    made: list[Sandbox] = []

    def start() -> None:
        spec = SandboxSpec(code="print(input())", host_uid=next(uids))
        made.append(loop.run_until_complete(launch(spec, RUNTIME)))
        loop.run_until_complete(made[0].go())

    thread = threading.Thread(target=start)
    thread.start()
    await asyncio.to_thread(thread.join)
    await asyncio.sleep(0.2)
    identity = made[0].identity
    assert start_ticks(identity.pid) == identity.start_ticks and alive(identity.pid)

    def finish() -> None:
        made[0].stdin.write(b"lives\n")
        assert loop.run_until_complete(made[0].stdout.readline()) == b"lives\n"
        loop.run_until_complete(made[0].close())
        loop.close()

    await asyncio.to_thread(finish)


# --- tenants that misbehave ---------------------------------------------------------------------


async def test_one_that_floods_is_held_up_and_nobody_else(zygotes: Zygotes) -> None:
    async with running(zygotes, "while True: print('x' * 65536)"):
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            assert await printed(zygotes, "print('calm')") == "calm\n"


async def test_one_that_stops_itself_is_killed_like_any_other(zygotes: Zygotes) -> None:
    code = "import os, signal; print('up', flush=True); os.kill(0, signal.SIGSTOP)"
    async with running(zygotes, code) as made:
        assert await made.stdout.readline() == b"up\n"
        await made.kill()
        assert start_ticks(made.identity.pid) is None


async def test_garbage_and_descriptors_on_the_control_socket_stay_without_effect() -> None:
    ours, theirs = Control.pair()
    hostile = socket.socket(fileno=theirs)
    before = sorted(os.listdir("/proc/self/fd"))
    with open("/dev/null") as null:
        many = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [null.fileno()] * 200))]
        for data in (b"\xff\xfe", b"{" * 9_000, b'{"step": 1}', b'{"step":"exit","code":"x"}'):
            hostile.sendmsg([data], many)
            heard = await ours.receive()
            assert heard is not None and heard[0].step == "unreadable"
            assert len(heard[1]) <= 4
            for fd in heard[1]:
                os.close(fd)
        hostile.sendmsg([b""], many)
        assert await ours.receive() is None
    assert sorted(os.listdir("/proc/self/fd")) == before
    hostile.close()
    ours.close()


@pytest.mark.skipif(not AS_ROOT, reason="only root may take init's descriptor")
async def test_an_init_that_talks_nonsense_ends_its_own_sandbox(zygotes: Zygotes) -> None:
    async with running(zygotes, "input()") as made, running(zygotes, "print(input())") as other:
        mouth = _control_of(made.identity.pid)
        with open("/dev/null") as null:
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [null.fileno()] * 9))]
            before = sorted(os.listdir("/proc/self/fd"))
            mouth.sendmsg([b"\xff" * 5_000], passed)
            mouth.close()
            assert (await made.wait()).signal == signal.SIGKILL
        assert len(os.listdir("/proc/self/fd")) <= len(before)
        other.stdin.write(b"lives\n")
        assert await other.stdout.readline() == b"lives\n"


def _control_of(init: int) -> socket.socket:
    """Init's end of the socket to the kernel, taken from it by pidfd_getfd."""
    (number,) = [
        int(fd) for fd in os.listdir(f"/proc/{init}/fd")
        if os.readlink(f"/proc/{init}/fd/{fd}").startswith("socket:")
    ]  # fmt: skip
    pidfd = os.pidfd_open(init)
    taken = ctypes.CDLL(None).syscall(438, pidfd, number, 0)
    os.close(pidfd)
    assert taken >= 0
    return socket.socket(fileno=taken)


async def test_last_words_are_heard_even_if_the_question_was_not() -> None:
    """Linux tells of the unread question first, and only then hands out what was sent."""
    ours, theirs = Control.pair()
    other = socket.socket(fileno=theirs)
    ours.send(True)
    other.send(b'{"step":"failed","at":"image","detail":"x"}')
    other.close()
    heard = await ours.receive()
    assert heard is not None and heard[0].detail == "x"
    assert await ours.receive() is None
    ours.close()
