"""The totals of a sandbox: real groups, real processes that go over them, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ring0.errors import SandboxFailed
from ring0.runtime import Runtime
from ring0.tools.sandbox import cgroups
from ring0.tools.sandbox.hierarchies import look
from ring0.tools.sandbox.spec import SandboxLimits

MIB = 1024 * 1024
RUNTIME = Runtime()
here = pytest.mark.skipif(
    cgroups.found().mechanism == "rlimits", reason="no cgroup may be made by this user here"
)
FEW = SandboxLimits(memory_bytes=48 * MIB, tmp_bytes=16 * MIB, processes=8)


class World:
    """Groups, and processes in them; all of them end with the test."""

    def __init__(self) -> None:
        self.groups: list[cgroups.Group] = []
        self.started: list[subprocess.Popen[str]] = []

    def group(self, limits: SandboxLimits = FEW) -> cgroups.Group:
        group = cgroups.create(f"test-{os.getpid()}-{len(self.groups)}", limits)
        assert group is not None
        self.groups.append(group)
        return group

    def start(self, group: cgroups.Group, code: str) -> subprocess.Popen[str]:
        """A Python that joins before it runs `code`, as a sandbox's init does."""
        fds = group.join_fds()
        script = f"import os\nfor fd in {fds}: os.write(fd, b'0')\n{code}"
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", script], pass_fds=fds, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for fd in fds:
            os.close(fd)
        self.started.append(process)
        return process


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    for group in made.groups:
        await group.end(RUNTIME)
        group.remove()
    for process in made.started:
        process.kill()
        process.communicate()
    cgroups._remove_waiting()
    assert cgroups._waiting == [], "nothing stays behind"


@here
async def test_the_memory_of_many_processes_together_is_bounded(world: World) -> None:
    """RLIMIT_DATA would let each of these have all of it."""
    group = world.group()
    parts = """
children = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        part = bytearray(30 * 2**20)
        while True: pass
    children.append(pid)
pid, status = os.wait()
print(status, flush=True)
for other in set(children) - {pid}: os.kill(other, 15)
"""
    printed, _ = world.start(group, parts).communicate(timeout=20)
    assert int(printed) == signal.SIGKILL
    used = group.usage()
    assert used.memory_kills >= 1 and used.memory_bytes_peak <= 64 * MIB
    assert group.over(cpu_s=0) == "memory"


@here
@pytest.mark.parametrize("hide", ["os.memfd_create('x')", "os.open('/dev/shm', os.O_TMPFILE | 2)"])
async def test_memory_in_a_file_of_memory_counts(world: World, hide: str) -> None:
    group = world.group()
    fill = f"fd = {hide}\nfor _ in range(200): os.write(fd, bytes(2**20))\nprint('all of it')"
    printed, _ = world.start(group, fill).communicate(timeout=20)
    assert printed == "" and group.over(cpu_s=0) == "memory"


@here
async def test_within_its_totals_nobody_is_hurt(world: World) -> None:
    group = world.group()
    process = world.start(group, "x = bytearray(20 * 2**20); print(os.fork() >= 0)")
    printed, _ = process.communicate(timeout=20)
    assert printed == "True\nTrue\n" and process.returncode == 0
    assert group.over(cpu_s=9) == ""


@here
async def test_processes_are_counted_for_the_sandbox_as_a_whole_also_for_root(world: World) -> None:
    """RLIMIT_NPROC does nothing for host uid 0."""
    bomb = """
import time
count = 0
try:
    while count < 500:
        if os.fork() == 0: time.sleep(60)
        count += 1
except BlockingIOError: pass
print(count, flush=True)
"""
    group = world.group()
    process = world.start(group, bomb)
    assert process.stdout is not None and int(process.stdout.readline()) == FEW.processes
    assert len(group.processes()) <= FEW.processes + 1


@here
async def test_a_fork_bomb_that_replaces_its_dead_is_ended_for_certain(world: World) -> None:
    group = world.group()
    bomb = "while True:\n  try: os.fork()\n  except BlockingIOError: pass"
    world.start(group, bomb)
    await _until(lambda: len(group.processes()) >= FEW.processes)
    await RUNTIME.wait_for(group.end(RUNTIME), 5)
    assert group.processes() == []


@here
async def test_cpu_time_is_that_of_all_processes_dead_ones_too(world: World) -> None:
    group = world.group()
    short = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
while True:
    if os.fork() == 0:
        for _ in range(3_000_000): pass
        os._exit(0)
    os.wait()
"""
    world.start(group, short)
    assert await RUNTIME.wait_for(cgroups.watch(group, 1, RUNTIME), 20) == "cpu"
    assert group.usage().cpu_us >= 1_000_000


@here
async def test_sandboxes_give_way_to_the_kernel(world: World) -> None:
    """Together they weigh less than one thread of the kernel does."""
    group = world.group()
    if cgroups.found().mechanism == "cgroup v1" and "cpu" in group._folders:
        shares = Path(group._folders["cpu"]).parent / "cpu.shares"
        assert int(shares.read_text()) < 1_024
    else:
        weight = Path(group._folders["memory"]).parent / "cpu.weight"
        assert int(weight.read_text()) < 100


@here
async def test_a_process_can_be_moved_in_from_outside(world: World) -> None:
    group = world.group()
    process = subprocess.Popen(["sleep", "60"])
    try:
        group.join(process.pid)
        assert group.processes() == [process.pid]
        await group.end(RUNTIME)
        assert process.wait(5) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


@here
async def test_a_limit_that_cannot_be_set_refuses_the_sandbox(world: World) -> None:
    world.group()
    with pytest.raises(SandboxFailed, match="limits could not be set"):
        cgroups.create(f"test-{os.getpid()}-0", FEW)  # it is taken
    world.groups.clear()


LEAVE = """
import os, subprocess, sys, time
from ring0.tools.sandbox import cgroups
from ring0.tools.sandbox.spec import SandboxLimits
group = cgroups.create("left", SandboxLimits())
process = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, start_new_session=True)
group.join(process.pid)
print(process.pid, group._folders["pids"], group._folders["memory"], flush=True)
time.sleep(60)
"""


@here
async def test_what_a_crashed_kernel_left_is_killed_and_removed_at_boot(tmp_path: Path) -> None:
    kernel = subprocess.Popen(
        [sys.executable, "-c", LEAVE], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert kernel.stdout is not None
    pid, *folders = kernel.stdout.readline().split()
    own = {str(Path(folder).parent) for folder in folders}
    try:
        cgroups.sweep()
        assert all(map(os.path.isdir, folders)), "one that lives is left alone"
        os.kill(int(pid), 0)
    finally:
        kernel.kill()
        kernel.communicate()
    assert cgroups.sweep() >= 1
    await _until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(int(pid)))
    cgroups.sweep()
    assert not any(map(os.path.exists, {*folders, *own}))


def test_a_kernel_that_ends_leaves_no_group() -> None:
    code = LEAVE.replace("time.sleep(60)", "process.kill(); process.wait(); group.remove()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    if cgroups.found().mechanism == "rlimits":
        assert "has no attribute 'join'" in done.stderr
        return
    _, *folders = done.stdout.split()
    assert not any(Path(folder).parent.exists() for folder in folders)


# --- where there is which ---------------------------------------------------------------------


def test_without_a_place_to_write_there_are_rlimits_and_the_reason(tmp_path: Path) -> None:
    base, found = _look(tmp_path, "", "0::/\n")
    assert base is None and found.mechanism == "rlimits"
    assert "No cgroup v2 is mounted" in found.why and "Delegate=yes" in found.todo


def test_a_machine_of_both_kinds_uses_the_one_that_has_the_controllers(tmp_path: Path) -> None:
    """Hybrid: version 2 is mounted, memory and pids are bound to version 1."""
    for name in ("memory/a", "pids/a", "unified"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "cgroup.procs").touch()
    (tmp_path / "unified/cgroup.controllers").write_text("hugetlb\n")
    mounts = (
        f"1 0 0:1 / {tmp_path}/memory rw - cgroup cgroup rw,memory\n"
        f"2 0 0:2 / {tmp_path}/pids rw - cgroup cgroup rw,pids\n"
        f"3 0 0:3 / {tmp_path}/unified rw - cgroup2 cgroup2 rw\n"
    )
    base, found = _look(tmp_path, mounts, "4:memory:/a\n3:pids:/a\n0::/\n")
    assert base is not None and found.mechanism == "cgroup v1"
    assert base.folders == {"memory": f"{tmp_path}/memory/a", "pids": f"{tmp_path}/pids/a"}


def test_in_version_2_the_nearest_group_that_hands_down_is_used(tmp_path: Path) -> None:
    """As root in a login session: its scope holds other people's processes, the slice has none."""
    scope = tmp_path / "user.slice/session-1.scope"
    scope.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "user.slice", scope):
        (folder / "cgroup.controllers").write_text("cpu memory pids\n")
        (folder / "cgroup.procs").write_text("1\n")
        (folder / "cgroup.subtree_control").write_text("cpu memory pids\n")
        (folder / "cgroup.type").write_text("domain\n")
    (scope / "cgroup.subtree_control").write_text("")
    mounts = f"3 0 0:3 / {tmp_path} rw - cgroup2 cgroup2 rw,nsdelegate\n"
    base, found = _look(tmp_path, mounts, "0::/user.slice/session-1.scope\n")
    assert base is not None and found.mechanism == "cgroup v2"
    assert base.folders["memory"] == f"{tmp_path}/user.slice"


def test_in_a_container_its_own_part_is_the_mount_itself(tmp_path: Path) -> None:
    for name in ("memory", "pids"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    mounts = "".join(
        f"{n} 0 0:{n} /docker/abc {tmp_path}/{name} rw - cgroup cgroup rw,{name}\n"
        for n, name in enumerate(("memory", "pids"), 1)
    )
    base, _ = _look(tmp_path, mounts, "4:memory:/docker/abc\n3:pids:/docker/abc\n")
    assert base is not None and base.folders["memory"] == f"{tmp_path}/memory"


def _look(folder: Path, mounts: str, own: str):  # type: ignore[no-untyped-def]
    (folder / "mountinfo").write_text(mounts)
    (folder / "cgroup").write_text(own)
    return look(str(folder / "mountinfo"), str(folder / "cgroup"))


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await RUNTIME.sleep(0.01)
    raise AssertionError("it never came to hold")


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


# --- used again -------------------------------------------------------------------------------


def _version_1() -> bool:
    return cgroups.found().mechanism == "cgroup v1"


@here
@pytest.mark.skipif(not _version_1(), reason="version 2 never forgets its peak")
async def test_a_group_that_serves_again_counts_from_the_beginning(world: World) -> None:
    first = world.group()
    code = "x = bytearray(20 * 2**20)\nfor _ in range(3_000_000): pass"
    world.start(first, code).wait(20)
    assert first.usage().memory_bytes_peak > 20 * MIB and first.usage().cpu_us > 50_000
    again = await _taken_again(world, first)
    assert again is not None and again._folders == first._folders
    assert again.usage().memory_bytes_peak < 2 * MIB and again.usage().cpu_us < 50_000
    world.start(again, "pass").wait(20)
    assert again.over(cpu_s=1) == ""


@here
@pytest.mark.skipif(not _version_1(), reason="version 2 never forgets its peak")
async def test_a_group_does_not_serve_again_for_other_limits_or_with_somebody_in_it(
    world: World,
) -> None:
    first = world.group()
    other = SandboxLimits(memory_bytes=64 * MIB, tmp_bytes=16 * MIB, processes=8)
    assert (taken := await _taken_again(world, first, other)) is not None
    assert taken._folders != first._folders
    second = world.group()
    process = world.start(second, "import time\nprint('in', flush=True)\ntime.sleep(60)")
    assert process.stdout is not None and process.stdout.readline()
    assert (taken := await _taken_again(world, second)) is not None
    assert taken._folders != second._folders
    process.kill()
    process.wait(20)


@here
@pytest.mark.skipif(not _version_1(), reason="version 2 never forgets its peak")
async def test_a_group_whose_memory_was_used_up_does_not_serve_again(world: World) -> None:
    first = world.group()
    world.start(first, "x = b'x' * (90 * 2**20)").wait(20)
    assert first.over(cpu_s=0) == "memory"
    assert (taken := await _taken_again(world, first)) is not None
    assert taken._folders != first._folders and taken.over(cpu_s=0) == ""


@here
@pytest.mark.skipif(not _version_1(), reason="version 2 never forgets its peak")
async def test_a_group_is_given_back_once(world: World) -> None:
    """The second time it may be another sandbox's."""
    first = world.group()
    taken = await _taken_again(world, first)
    first.give_back()
    first.remove()
    assert taken is not None and all(map(os.path.isdir, taken._folders.values()))
    assert not cgroups._spare


async def _taken_again(
    world: World, group: cgroups.Group, limits: SandboxLimits = FEW
) -> cgroups.Group | None:
    """What the next sandbox gets after `group` was given back, a little later."""
    while cgroups._spare:
        cgroups._spare.popleft().remove()
    await RUNTIME.sleep(0.3)  # Linux gives back what was charged
    group.give_back()
    taken = cgroups.take(f"test-{os.getpid()}-again-{len(world.groups)}", limits)
    if taken is not None:
        world.groups.append(taken)
    return taken
