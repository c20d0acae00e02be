"""Programs that take all they can get, in each tier, from a kernel that is root and one that isn't:
each meets its limit, the machine is unharmed, and the next sandbox works."""

from __future__ import annotations

import errno

import pytest
from tier_world import MIB, Answers, run_kernel

FEW = {
    "memory_bytes": 128 * MIB,
    "tmp_bytes": 16 * MIB,
    "processes": 16,
    "wall_s": 15,
    "output_bytes": MIB,
}

FORKS = """
import os, time
count = 0
try:
    while count < 2000:
        if os.fork() == 0: time.sleep(60); os._exit(0)
        count += 1
        if count > 16: time.sleep(1)
except OSError: pass
print(count, flush=True); os._exit(0)
"""
BOMB = """
import os
while True:
    try: os.fork()
    except OSError: pass
"""
HEAP = "x = bytearray(400 * 2**20)"
MEMFD = """
import os
try:
    fd = os.memfd_create("x")
    for _ in range(400): os.write(fd, bytes(2**20))
    print("all of it")
except OSError as error: print(error.errno)
"""
TOGETHER = """
import os, time
for _ in range(5):
    if os.fork() == 0:
        x = bytearray(60 * 2**20)
        time.sleep(60)
time.sleep(60)
"""
FILES = """
import os, tempfile, time
folder, size = os.environ.get("TMPDIR", "/tmp"), 0
try:
    for name in range(1000):
        with open(f"{folder}/{name}", "wb", 0) as file:
            for _ in range(2): size += file.write(bytes(2**20))
        time.sleep(0.02)
    print("all of it")
except OSError as error: print(error.errno, size // 2**20)
"""
SPIN = "while True: pass"
SPINS = """
import os, resource
resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
while True:
    if os.fork() == 0:
        for _ in range(3_000_000): pass
        os._exit(0)
    os.wait()
"""
SLEEP = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"
FLOOD = "while True: print('x' * 4096)"
DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(60)
    os._exit(0)
print("ends")
"""
PROGRAMS: dict[str, tuple[str, dict[str, float]]] = {
    "forks": (FORKS, {}),
    "bomb": (BOMB, {"wall_s": 0.5}),
    "heap": (HEAP, {}),
    "memfd": (MEMFD, {}),
    "together": (TOGETHER, {}),
    "files": (FILES, {}),
    "spin": (SPIN, {"cpu_s": 1}),
    "spins": (SPINS, {"cpu_s": 1, "wall_s": 20}),
    "sleep": (SLEEP, {"wall_s": 0.3}),
    "flood": (FLOOD, {}),
    "daemon": (DAEMON, {}),
}

KERNELS = [
    "ns: root", "ns: nobody", "landlock: root", "landlock: nobody",
    "container: root", "container: nobody", "gvisor: root",
]  # fmt: skip


@pytest.fixture(scope="module", params=KERNELS)
def seen(request: pytest.FixtureRequest) -> Answers:
    """What became of each program, by a kernel of its own."""
    tier, _, who = request.param.partition(": ")
    programs = {name: (program, FEW | more) for name, (program, more) in PROGRAMS.items()}
    if who == "nobody":  # without totals these two end at their wall time, as `doctor` says
        for name in ("together", "spins"):
            programs[name][1]["wall_s"] = 1.5
    return run_kernel(tier, who, programs)


def _has_totals(seen: Answers) -> bool:
    return seen["mechanism"] != "rlimits"


def test_a_fork_bomb_makes_no_more_than_its_processes(seen: Answers) -> None:
    forks = seen["forks"]
    if forks["tier"] == "landlock" and not _has_totals(seen) and not forks["stdout"]:
        assert forks["exit"] == [None, 9]  # counted ten times a second, and ended
        return
    # gVisor's processes are its own; Linux counts only what carries them.
    assert 3 <= int(forks["stdout"]) <= (FEW["processes"] if forks["tier"] != "gvisor" else 2_000)


def test_a_fork_bomb_ends_with_its_sandbox(seen: Answers) -> None:
    # gVisor's own Linux may go down under it, with an exit code of its own.
    ends = ([None, 9], [2, None]) if seen["bomb"]["tier"] == "gvisor" else ([None, 9],)
    assert seen["bomb"]["stopped"] in ("wall", "memory") or seen["bomb"]["exit"] in ends


def test_a_heap_beyond_the_limit_is_not_had(seen: Answers) -> None:
    heap = seen["heap"]
    assert heap["stopped"] == "memory" or "MemoryError" in heap["stderr"], heap


def test_memory_without_a_name_is_not_had_or_counts(seen: Answers) -> None:
    memfd = seen["memfd"]
    assert "all of it" not in memfd["stdout"]
    assert memfd["stopped"] == "memory" or int(memfd["stdout"]) in (errno.EPERM, errno.EFBIG)


def test_the_memory_of_many_processes_is_bounded_together(seen: Answers) -> None:
    if not _has_totals(seen):
        assert seen["together"]["stopped"] == "wall", "what `ring0 doctor` says is not enforced"
        return
    assert seen["together"]["stopped"] == "memory"
    assert seen["together"]["used"]["memory_bytes_peak"] <= 400 * MIB


def test_all_files_together_are_bounded(seen: Answers) -> None:
    files = seen["files"]
    if files["tier"] == "landlock":  # looked at, not bounded
        assert files["stopped"] == "disk"
        return
    number, size = map(int, files["stdout"].split())
    assert number == errno.ENOSPC and size <= FEW["tmp_bytes"] // MIB


def test_a_program_that_spins_ends_at_its_cpu_time(seen: Answers) -> None:
    assert seen["spin"]["stopped"] == "cpu", seen["spin"]


def test_the_cpu_time_of_children_that_are_dead_counts(seen: Answers) -> None:
    assert seen["spins"]["stopped"] == ("cpu" if _has_totals(seen) else "wall"), seen["spins"]


def test_a_program_that_sleeps_ends_at_its_wall_time(seen: Answers) -> None:
    assert seen["sleep"]["stopped"] == "wall"


def test_a_flood_ends_at_its_output_size(seen: Answers) -> None:
    assert seen["flood"]["stopped"] == "output"


def test_a_daemon_ends_with_the_program_that_started_it(seen: Answers) -> None:
    assert seen["daemon"]["stdout"] == "ends\n"
    assert seen["daemon"]["exit"] == [0, None]


def test_after_each_of_them_the_next_sandbox_works(seen: Answers) -> None:
    assert {name: seen[name]["after"] for name in PROGRAMS} == dict.fromkeys(PROGRAMS, "fine\n")


def test_nothing_of_them_is_left(seen: Answers) -> None:
    assert seen["left"] == [], "a cgroup"
    assert seen["alive"] == []
    assert seen["folders"] == []
