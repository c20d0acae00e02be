"""The tier without namespaces: what its program can reach, with a control outside for each way."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox_world import QUESTIONS, RUNTIME, python, uids
from tier_world import PYTHON, REPO, Answers, as_nobody, run_kernel

from ring0.errors import SandboxUnavailable
from ring0.tools.sandbox import Mount, SandboxLimits, SandboxSpec, landlock, workfolder

LIMITS = {"wall_s": 20, "output_bytes": 1 << 20}

ASKED = (
    QUESTIONS.partition("if __name__")[0]
    + """
import os, socket, stat

def opened(path, flags):
    return attempt(lambda: os.close(os.open(path, flags, 0o600)))

def pair(kind):
    return attempt(socket.socketpair, socket.AF_UNIX, kind)

def sent(path):
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return one.sendto(b"hello", path) and 0

def watched(path):
    fd = libc.inotify_init1(0)
    there = fd >= 0 and libc.inotify_add_watch(fd, path.encode(), 2) >= 0
    return 0 if there else ctypes.get_errno()

def answers(folder, files, kernel, canary_socket):
    own = os.environ.get("TMPDIR") or "/tmp"
    given = dict(os.environ)
    there = own + "/own"
    os.close(os.open(there, os.O_CREAT | os.O_RDWR))
    os.symlink(files + "/canary", own + "/link")
    seen = {
        "own": [opened(there, os.O_RDWR), attempt(os.rename, there, there + "2")],
        "read": {p: opened(p, os.O_RDONLY) for p in
                 [files + "/canary", own + "/link", "/etc/passwd", "/", "/proc",
                  "/proc/self/status", "/proc/1/environ", "/tmp", "/sys", "/dev", "/dev/shm",
                  folder + "/pyproject.toml"]},
        "write": {
            "open": opened(files + "/canary", os.O_WRONLY),
            "open, by its link": opened(own + "/link", os.O_WRONLY),
            "truncate": attempt(os.truncate, files + "/canary", 0),
            "create": opened(files + "/new", os.O_WRONLY | os.O_CREAT),
            "rename": attempt(os.rename, files + "/canary", files + "/renamed"),
            "link in": attempt(os.link, files + "/canary", own + "/linked"),
            "link out": attempt(os.link, own + "/own2", files + "/linked"),
            "move out": attempt(os.rename, own + "/own2", files + "/moved"),
            "unlink": attempt(os.unlink, files + "/spare"),
            "mkdir": attempt(os.mkdir, files + "/folder"),
            "symlink": attempt(os.symlink, "/", files + "/symlink"),
            "fifo": attempt(os.mkfifo, files + "/fifo"),
        },
        "change": {
            "chmod": attempt(os.chmod, files + "/mine", 0o777),
            "chown": attempt(os.chown, files + "/mine", os.getuid(), os.getgid()),
            "utime": attempt(os.utime, files + "/mine"),
        },
        "device": {"null": opened("/dev/null", os.O_RDWR), "node": attempt(
            os.mknod, own + "/node", stat.S_IFCHR | 0o666, os.makedev(1, 3))},
        "sockets": {"unix": attempt(socket.socket, socket.AF_UNIX),
                    "inet": attempt(socket.socket, socket.AF_INET),
                    "netlink": attempt(socket.socket, 16, socket.SOCK_RAW)},
        "pairs": {"stream": pair(socket.SOCK_STREAM), "datagrams": pair(socket.SOCK_DGRAM)},
        "datagram": attempt(sent, canary_socket),
        "watch": watched(files),
        "signals": {str(pid): attempt(os.kill, pid, 0) for pid in (kernel, os.getppid())},
        "own signal": attempt(os.kill, os.getpid(), 0),
        "nice": attempt(os.setpriority, os.PRIO_PROCESS, kernel, 19),
        "powers": libc.prctl(39, 0, 0, 0, 0),
        "descriptors": [fd for fd in range(64) if attempt(os.fstat, fd) == 0],
        "calls": calls(),
        "environment": given,
    }
    return seen
print(json.dumps(answers(*ASKED)), flush=True)
"""
)


@pytest.fixture(scope="module")
def canaries() -> Iterator[Path]:
    """World-readable, world-writable, and a socket: only the sandbox's walls keep them."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        path = Path(folder)
        path.chmod(0o777)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(path / "socket"))
            (path / "socket").chmod(0o666)
            yield path


def _lay(path: Path, owner: int) -> None:
    for old in path.iterdir():
        if old.name != "socket":
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    for name in ("canary", "spare", "mine"):
        (path / name).write_text("canary")
        (path / name).chmod(0o666)
    os.chown(path / "mine", owner, owner)


@pytest.fixture(scope="module", params=["root", "nobody"])
def seen(request: pytest.FixtureRequest, canaries: Path) -> tuple[Answers, Answers]:
    """The answers from inside, and those of a control: the same uid as the kernel, outside."""
    uid = 65534 if request.param == "nobody" else 0
    _lay(canaries, uid)
    asked = [str(REPO), str(canaries), os.getpid(), str(canaries / "socket")]
    code = f"ASKED = {asked!r}\n{ASKED}"
    found = run_kernel("landlock", request.param, {"asked": (code, LIMITS)})["asked"]
    assert found["stdout"], found
    _lay(canaries, uid)
    prefix = as_nobody()[1] if uid else ()
    with tempfile.TemporaryDirectory() as own:
        os.chown(own, uid, uid)
        done = subprocess.run(
            [*prefix, PYTHON, "-I", "-S", "-c", code], capture_output=True, text=True,
            env={"TMPDIR": own}, check=False, timeout=30,
        )  # fmt: skip
    assert done.stdout, done.stderr
    return json.loads(found["stdout"]), json.loads(done.stdout)


Both = tuple[Answers, Answers]


def test_it_has_its_own_files(seen: Both) -> None:
    assert seen[0]["own"] == [0, 0]


def test_it_reads_nothing_that_is_not_named(seen: Both) -> None:
    inside, outside = seen
    assert set(inside["read"].values()) == {errno.EACCES}
    canary = next(path for path in inside["read"] if path.endswith("/canary"))
    assert outside["read"][canary] == outside["read"]["/etc/passwd"] == 0


def test_it_changes_nothing_outside_of_its_folder(seen: Both) -> None:
    inside, outside = seen
    assert 0 not in inside["write"].values(), inside["write"]
    assert set(outside["write"].values()) <= {0, errno.EXDEV, errno.ENOENT}, outside["write"]
    assert outside["write"]["open"] == outside["write"]["truncate"] == 0


def test_it_changes_no_mode_owner_or_time_of_a_file_of_the_kernels_user(seen: Both) -> None:
    """Landlock lets these through; the filter, or another uid, does not."""
    inside, outside = seen
    assert {inside["change"]["chmod"], inside["change"]["chown"]} == {errno.EPERM}
    assert outside["change"] == {"chmod": 0, "chown": 0, "utime": 0}


def test_devices_are_the_harmless_ones(seen: Both) -> None:
    assert seen[0]["device"]["null"] == 0
    assert seen[0]["device"]["node"] in (errno.EPERM, errno.EACCES)


def test_it_can_make_no_socket_that_reaches_the_machine(seen: Both) -> None:
    inside, outside = seen
    assert set(inside["sockets"].values()) == {errno.EPERM}
    assert set(outside["sockets"].values()) == {0}


def test_a_pair_of_datagram_sockets_reaches_no_socket_of_the_host(seen: Both) -> None:
    """Either end could send to any path (journald's, for one), without `connect`."""
    inside, outside = seen
    assert inside["pairs"] == {"stream": 0, "datagrams": errno.EPERM}
    assert inside["datagram"] == errno.EPERM
    assert outside["datagram"] == 0


def test_it_watches_no_folder_of_the_host(seen: Both) -> None:
    assert seen[0]["watch"] == errno.EPERM
    assert seen[1]["watch"] == 0


def test_it_signals_nobody_but_itself_not_even_with_the_same_uid(seen: Both) -> None:
    inside, _ = seen
    assert set(inside["signals"].values()) == {errno.EPERM}
    assert inside["own signal"] == 0


def test_it_gets_no_power_and_no_descriptor_and_no_environment(seen: Both) -> None:
    inside, _ = seen
    assert inside["powers"] == 1, "no new privileges"
    assert inside["descriptors"] == [0, 1, 2]
    assert set(inside["environment"]) <= {"PATH", "HOME", "TMPDIR", "LC_CTYPE"}


def test_the_calls_that_reach_the_kernel_of_the_machine_are_refused(seen: Both) -> None:
    inside, _ = seen
    open_ones = {name for name, error in inside["calls"].items() if error == 0}
    assert open_ones == set()
    for name in ("unshare", "io_uring_setup", "bpf", "keyctl", "userfaultfd", "ptrace", "mount"):
        assert inside["calls"][name] == errno.EPERM


# --- what it hasn't got, it refuses ------------------------------------------------------------


@pytest.mark.parametrize("asked", [{"doors": True}, {"egress": True}])
async def test_doors_and_egress_are_refused_not_left_out(asked: dict[str, Any]) -> None:
    spec = SandboxSpec(argv=("true",), host_uid=next(uids), **asked)
    with pytest.raises(SandboxUnavailable, match="no doors and no egress"):
        await landlock.make(spec, RUNTIME)


async def test_a_mount_under_another_name_is_refused() -> None:
    mounts = (Mount("/usr/share", "/opt/share"),)
    spec = SandboxSpec(argv=("true",), host_uid=next(uids), mounts=mounts)
    with pytest.raises(SandboxUnavailable, match="can't show /usr/share as /opt/share"):
        await landlock.make(spec, RUNTIME)


async def test_a_linux_without_scopes_for_signals_has_no_such_tier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 5)
    with pytest.raises(SandboxUnavailable, match="not on this machine") as error:
        await landlock.make(SandboxSpec(argv=("true",), host_uid=next(uids)), RUNTIME)
    assert "ABI 5" in error.value.why


async def test_python_source_longer_than_an_argument_runs() -> None:
    code = f"import sys\nprint(sys.argv, __name__)\n# {'x' * 300_000}"
    found = run_kernel("landlock", "nobody", {"long": (code, LIMITS)})["long"]
    assert found["stdout"] == "['-c'] __main__\n", found


CRASHING = """
import asyncio, sys
from ring0.runtime import Runtime
from ring0.tools.sandbox import SandboxSpec, landlock
async def main():
    argv = ("/bin/sh", "-c", "(setsid sleep 60 &) ; (setsid sleep 60 &) ; echo up; sleep 60")
    made = await landlock.make(SandboxSpec(argv=argv, host_uid=int(sys.argv[1])), Runtime())
    await made.go()
    print((await made.stdout.readline()).decode(), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives each sandbox a uid to be counted by")
async def test_nothing_outlives_a_kernel_that_crashes() -> None:
    """There is no namespace that Linux would end with its first process."""
    uid = next(uids)
    kernel = subprocess.Popen(
        [sys.executable, "-c", CRASHING, str(uid)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert kernel.stdout is not None and kernel.stdout.readline() == "up\n"
        assert len(_processes_of(uid)) >= 4
    finally:
        kernel.kill()
        kernel.communicate()
    for _ in range(200):
        if not _processes_of(uid):
            break
        await RUNTIME.sleep(0.01)
    assert _processes_of(uid) == []
    workfolder.sweep()


def _processes_of(uid: int) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid:
                found.append(pid)
        except OSError:
            pass
    return found


# --- its folder --------------------------------------------------------------------------------


async def test_its_workspace_is_readable_until_it_is_closed_and_gone_then() -> None:
    spec = SandboxSpec(
        argv=("/bin/sh", "-c", "echo hello > made"), host_uid=next(uids), workspace=True
    )
    sandbox = await landlock.make(spec, RUNTIME)
    await sandbox.go()
    await sandbox.wait()
    assert sandbox.files is not None
    assert sandbox.files.read("made", 100) == b"hello\n"
    await sandbox.close()
    assert not Path(sandbox._folder).exists()  # type: ignore[attr-defined]


async def test_a_folder_that_grows_too_large_ends_its_sandbox() -> None:
    fill = "i=0; while :; do i=$((i+1)); head -c 1000000 /dev/zero > $i; sleep 0.01; done"
    spec = SandboxSpec(
        argv=("/bin/sh", "-c", fill),
        host_uid=next(uids),
        limits=SandboxLimits(tmp_bytes=4 << 20),
    )
    sandbox = await landlock.make(spec, RUNTIME)
    await sandbox.go()
    try:
        await RUNTIME.wait_for(sandbox.wait(), 10)
    finally:
        await sandbox.close()
    assert sandbox.stopped == "disk"


def test_a_hostile_tree_is_removed_however_deep(tmp_path: Path) -> None:
    folder = workfolder.make(None)
    here = os.getcwd()
    try:
        os.chdir(folder)
        for _ in range(3_000):
            os.mkdir("d")
            os.symlink("/", "link")
            os.chdir("d")
        Path(".ring0-1").mkdir()
    finally:
        os.chdir(here)
    Path(folder, ".ring0-2").mkdir()
    (tmp_path / "kept").write_text("kept")
    os.symlink(tmp_path, f"{folder}/out")
    assert workfolder.is_over(folder, 1 << 30), "deeper than anyone needs"
    workfolder.remove(folder)
    assert not Path(folder).exists()
    assert (tmp_path / "kept").read_text() == "kept"


def test_folders_of_dead_kernels_go_at_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = workfolder.make(None)
    namespace = mine.rsplit("-", 2)[1]
    with tempfile.TemporaryDirectory() as _:
        dead = Path(tempfile.gettempdir(), f"ring0-work-{os.getpid()}-1-{namespace}-abc")
        dead.mkdir()
        assert workfolder.sweep() >= 1
        assert not dead.exists() and Path(mine).exists()
    workfolder.remove(mine)


def test_the_questions_ask_something() -> None:
    assert python("x") and "answers(*ASKED)" in ASKED
