"""How a sandbox begins, is bounded, and ends; and that it always ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop
from sandbox_world import AS_ROOT, REPO, RUNTIME, as_kernel, python, run, sandbox, uids

import ring0.tools.sandbox.mounts as mounts
from ring0.errors import InvalidInput, SandboxFailed, SandboxUnavailable
from ring0.tools.sandbox import (
    Exit,
    Identity,
    Mount,
    SandboxSpec,
    confirm_dead,
    launch,
    probe,
    runtime_mounts,
)
from ring0.tools.sandbox.process import boot_id, start_ticks


def alive(identity: Identity) -> bool:
    return start_ticks(identity.pid) == identity.start_ticks


def processes_of(uid: int | None) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and os.stat(f"/proc/{entry}").st_uid == uid:
                found.append(int(entry))
    return found


async def until_gone(identity: Identity, seconds: float = 5) -> None:
    """With a bound, by asking: the sandbox is no child of ours."""
    async with asyncio.timeout(seconds):
        while alive(identity) and _state(identity.pid) != "Z":
            await asyncio.sleep(0.02)


def dead_children() -> set[str]:
    """Those of this process that nobody has buried yet."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {pid for pid in children if _state(int(pid)) == "Z"}


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


# --- beginning --------------------------------------------------------------------------------


async def test_nothing_of_the_tenant_runs_before_go() -> None:
    async with sandbox(*python("print('ran', flush=True)"), go=False) as made:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(made.stdout.readline(), 0.3)
        assert alive(made.identity)
        await made.go()
        assert await made.stdout.readline() == b"ran\n"
        assert await made.wait() == Exit(0, None)


async def test_the_identity_names_its_first_process() -> None:
    async with sandbox("sleep", "60") as made:
        status = Path(f"/proc/{made.identity.pid}/status").read_text()
        inner = next(line for line in status.splitlines() if line.startswith("NSpid:"))
        assert inner.split()[-1] == "1"
        assert made.identity.boot_id == boot_id()


async def test_it_is_started_once() -> None:
    async with sandbox("true") as made:
        with pytest.raises(SandboxFailed):
            await made.go()


async def test_input_goes_in_and_output_comes_out() -> None:
    async with sandbox("sh", "-c", "cat; echo late >&2; exit 7") as made:
        made.stdin.write(b"x" * 200_000)
        made.stdin.close()
        assert await made.stdout.read() == b"x" * 200_000
        assert await made.stderr.read() == b"late\n"
        assert await made.wait() == Exit(7, None)


async def test_output_ends_when_the_program_closes_it() -> None:
    async with sandbox("sh", "-c", "exec >&- 2>&-; sleep 60") as made, asyncio.timeout(5):
        assert await made.stdout.read() == b""


async def test_a_program_that_dies_of_a_signal_says_which() -> None:
    _, ended = await run("sh", "-c", "kill -SEGV $$")
    assert ended == Exit(None, signal.SIGSEGV)


async def test_a_program_that_is_not_there_is_the_callers_mistake() -> None:
    async with sandbox("/nowhere/program", go=False) as made:
        with pytest.raises(InvalidInput, match="/nowhere/program"):
            await made.go()
        assert (await made.wait()).code == 127
    async with sandbox("true", go=False, cwd="/nowhere") as made:
        with pytest.raises(InvalidInput, match="/nowhere"):
            await made.go()


@pytest.mark.skipif(not AS_ROOT, reason="capabilities can only be taken from root")
def test_a_machine_that_forbids_namespaces_is_told_with_the_step_and_the_remedy() -> None:
    kernel = as_kernel(
        {"argv": ["true"]}, prefix=("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    )
    error = json.loads(kernel.communicate(timeout=30)[0].splitlines()[0])
    assert error["code"] == SandboxUnavailable.code
    assert "namespaces" in error["why"] and "EPERM" in error["why"]
    assert "sysctl" in error["todo"]


@pytest.mark.skipif(not AS_ROOT, reason="only root gives uids")
@pytest.mark.parametrize("uid", [None, 0, 2**32])
async def test_root_never_makes_one_without_a_uid_of_its_own(uid: int | None) -> None:
    with pytest.raises(SandboxFailed, match="uid of its own"):
        await launch(SandboxSpec(argv=("true",), host_uid=uid), RUNTIME)


async def test_a_failed_launch_leaves_no_process_and_no_descriptor(tmp_path: Path) -> None:
    with (tmp_path / "x").open("w"):
        pass
    uid = next(uids)
    gc.collect()  # What other tests left open is closed now, and not meanwhile.
    before = sorted(os.listdir("/proc/self/fd"))
    # A place beneath a file: the launcher finds out, half-way through the tree.
    spec = SandboxSpec(
        argv=("true",),
        host_uid=uid,
        mounts=(Mount(str(tmp_path / "x"), "/opt"),),
    )
    broken = mounts.Plan((), (("/nowhere/at/all", "/opt/x/y"),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ring0.tools.sandbox.spec.plan", lambda _: broken)
        with pytest.raises(SandboxFailed, match="mounts"):
            await launch(spec, RUNTIME)
    assert processes_of(uid) == []
    assert set(os.listdir("/proc/self/fd")) <= set(before)


async def test_a_launch_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    spec = SandboxSpec(argv=("true",), host_uid=next(uids), doors=True)
    gc.collect()  # What other tests left open is closed now, and not meanwhile.
    before = sorted(os.listdir("/proc/self/fd"))
    dead_before = dead_children()
    for delay_ms in range(0, 24, 2):
        launching = asyncio.create_task(launch(spec, RUNTIME))
        await asyncio.sleep(delay_ms / 1_000)
        launching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            made = await launching
            await made.kill()
            assert made.tcp and made.unix
            made.tcp.close()
            made.unix.close()
    if AS_ROOT:
        assert processes_of(spec.host_uid) == []

    def left() -> list[str]:
        dead = [f"process {pid}" for pid in dead_children() - dead_before]
        return [
            *dead,
            *(f"descriptor {fd}" for fd in set(os.listdir("/proc/self/fd")) - set(before)),
        ]

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):  # The dead are buried, and pipes closed, a moment later.
            while left():
                await asyncio.sleep(0.01)
    assert left() == []


async def test_a_named_mount_is_shown_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "f").write_text("shown")
    os.chmod(tmp_path / "f", 0o666)
    printed, _ = await run(
        "sh",
        "-c",
        "cat /opt/agent/f; echo x > /opt/agent/f",
        mounts=(Mount(str(tmp_path), "/opt/agent"),),
    )
    assert printed.startswith("shown") and "Read-only" in printed
    assert (tmp_path / "f").read_text() == "shown"


@pytest.mark.parametrize(
    ("source", "target"),
    [("/", "/opt/x"), ("/root", "/opt/x"), ("/home", "/opt/x"), ("/usr", "/tmp/x"), ("/usr", "/"),
     ("/usr", "/etc/x"), ("/usr/../root", "/opt/x"), ("/nowhere", "/opt/x"), ("usr", "/opt/x"),
     ("/etc", "/usr/etc"), (str(REPO / ".git"), "/opt/x")],
)  # fmt: skip
async def test_a_mount_of_secrets_or_without_a_place_is_refused(source: str, target: str) -> None:
    with pytest.raises(InvalidInput):
        await launch(
            SandboxSpec(argv=("true",), host_uid=next(uids), mounts=(Mount(source, target),)),
            RUNTIME,
        )


def test_the_runtime_mounts_hold_no_home_and_no_project() -> None:
    for mount in runtime_mounts():
        assert mount.source == mount.target
        assert mount.source not in ("/", "/root", "/home", os.path.expanduser("~"), str(REPO))
        assert not os.path.lexists(os.path.join(mount.source, ".git"))
        if Path(mount.source).is_relative_to(REPO / "src"):
            assert Path(mount.source) == REPO / "src/ring0"


def test_an_environment_made_inside_a_project_does_not_show_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bin", "lib"):
        (tmp_path / name).mkdir()
    for name in ("pyvenv.cfg", ".env", "notes.txt"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    shown = {Path(m.source).name for m in runtime_mounts() if Path(m.source).parent == tmp_path}
    assert shown == {"bin", "lib", "pyvenv.cfg"}
    assert str(tmp_path) not in {mount.source for mount in runtime_mounts()}


async def test_the_probe_reports_what_holds_here() -> None:
    report = await probe(RUNTIME)
    assert report.available, report.error
    assert len(report.namespaces) == 7
    assert report.seccomp and report.no_new_privs and report.no_capabilities
    assert report.own_uid is AS_ROOT
    assert report.rlimits["CORE"] == 1 < report.rlimits["NPROC"]
    assert report.not_enforced


def test_it_works_in_uvloop() -> None:
    async def hello() -> tuple[str, Exit]:
        return await run("echo", "hello")

    assert uvloop.run(hello()) == ("hello\n", Exit(0, None))


# --- doors ------------------------------------------------------------------------------------

KNOCK = """
import socket, sys
tcp = socket.create_connection(("127.0.0.1", int(input())))
tcp.sendall(b"tcp")
unix = socket.socket(socket.AF_UNIX)
unix.connect("/run/ring0/door.sock")
unix.sendall(b"unix")
"""


async def test_the_doors_are_reachable_from_inside_and_name_the_sandbox() -> None:
    async with sandbox(*python(KNOCK), doors=True) as one, sandbox("sleep", "9", doors=True) as two:
        loop = asyncio.get_running_loop()
        assert one.tcp and one.unix and two.tcp and two.unix
        one.stdin.write(b"%d\n" % one.tcp_port)
        async with asyncio.timeout(10):
            for listener, said in ((one.tcp, b"tcp"), (one.unix, b"unix")):
                connection, _ = await loop.sock_accept(listener)
                assert await loop.sock_recv(connection, 10) == said
                connection.close()
        for listener in (two.tcp, two.unix):  # nobody came in by the other sandbox's doors
            with pytest.raises(BlockingIOError):
                listener.accept()


async def test_the_doors_are_not_reachable_from_outside() -> None:
    async with sandbox("sleep", "9", doors=True) as made:
        assert made.tcp
        with contextlib.suppress(ConnectionRefusedError):  # another program may listen there
            socket.create_connection(("127.0.0.1", made.tcp_port), timeout=2).close()
        with pytest.raises(BlockingIOError):
            made.tcp.accept()
        assert not os.path.exists("/run/ring0/door.sock")


async def test_the_listeners_are_held_by_the_kernel_alone() -> None:
    late = """
import os, socket
print(sorted(map(int, os.listdir("/proc/self/fd")))[:-1], flush=True)
port = int(input())
print(socket.socket().connect_ex(("127.0.0.1", port)))
print(socket.socket(socket.AF_UNIX).connect_ex("/run/ring0/door.sock"))
"""
    async with sandbox(*python(late), doors=True) as made:
        assert await made.stdout.readline() == b"[0, 1, 2]\n"
        assert made.tcp and made.unix
        made.tcp.close()
        made.unix.close()
        made.stdin.write(b"%d\n" % made.tcp_port)
        refused = b"%d\n" % errno.ECONNREFUSED
        assert await made.stdout.read() == refused * 2


async def test_the_unix_door_can_not_be_replaced() -> None:
    tamper = "import os; os.{}"
    for act in ("unlink('/run/ring0/door.sock')", "rename('/run/ring0', '/run/x')"):
        printed, _ = await run(*python(tamper.format(act)), doors=True)
        assert "Read-only" in printed


# --- ending -----------------------------------------------------------------------------------

FAMILY = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        time.sleep(600)
print("forked", flush=True)
time.sleep(600)
"""


async def test_kill_ends_grandchildren_too_and_returns_when_they_are_gone() -> None:
    async with sandbox(*python(FAMILY)) as made:
        await made.stdout.readline()
        if AS_ROOT:
            assert len(processes_of(made._spec.host_uid)) >= 5
        await made.kill()
        assert start_ticks(made.identity.pid) is None
        if AS_ROOT:
            assert processes_of(made._spec.host_uid) == []
        assert await made.wait() == Exit(None, signal.SIGKILL)
        await made.kill()


async def test_what_a_program_left_running_ends_with_it() -> None:
    async with sandbox("sh", "-c", "sleep 600 & echo $!") as made:
        assert await made.wait() == Exit(0, None)
        assert start_ticks(made.identity.pid) is None
        if AS_ROOT:
            assert processes_of(made._spec.host_uid) == []


async def test_a_tenant_can_not_harm_its_init() -> None:
    harm = """
import os, signal, time
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
    os.kill(1, number)
time.sleep(0.3)
print("still here")
"""
    assert await run(*python(harm)) == ("still here\n", Exit(0, None))


@pytest.mark.parametrize("go", [False, True], ids=["before go", "after go"])
async def test_a_sandbox_dies_with_its_kernel(go: bool) -> None:
    argv = python("import time; print('up', flush=True); time.sleep(600)")
    kernel = as_kernel({"argv": argv, "go": go, "stay": True})
    assert kernel.stdout is not None
    identity = Identity(*json.loads(kernel.stdout.readline()))
    if go:
        assert kernel.stdout.readline() == "up\n"
    assert alive(identity)
    kernel.kill()
    kernel.wait()
    kernel.stdout.close()
    await until_gone(identity)
    await confirm_dead(identity, RUNTIME)


async def test_at_boot_an_old_sandbox_is_killed_and_confirmed_dead() -> None:
    async with sandbox("sleep", "600") as made:
        await confirm_dead(made.identity, RUNTIME)
        assert not alive(made.identity) or _state(made.identity.pid) == "Z"
        assert (await made.wait()).signal == signal.SIGKILL
        await confirm_dead(made.identity, RUNTIME)


async def test_a_process_that_only_has_the_number_is_left_alone() -> None:
    other = subprocess.Popen(["sleep", "600"])
    try:
        ticks = start_ticks(other.pid)
        assert ticks is not None
        await confirm_dead(Identity(other.pid, ticks - 1, boot_id()), RUNTIME)
        await confirm_dead(Identity(other.pid, ticks, "of-another-boot"), RUNTIME)
        assert other.poll() is None
        await confirm_dead(Identity(other.pid, ticks, boot_id()), RUNTIME)  # the control
        assert other.wait(timeout=5) == -signal.SIGKILL
    finally:
        other.kill()
        other.wait()


def test_the_launcher_needs_nothing_but_the_standard_library() -> None:
    launcher = REPO / "src/ring0/tools/sandbox/launcher.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", launcher, "0", "0"], env={},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert "inside.init" in done.stderr
    assert "ring0" not in done.stderr.replace(str(REPO), "") and "msgspec" not in done.stderr
    assert "Traceback" not in done.stderr
