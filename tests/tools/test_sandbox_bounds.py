"""What a sandboxed program can use up: no more than its limits."""

from __future__ import annotations

import errno
import signal

import pytest
from sandbox_world import MIB, python, run, sandbox

from ring0.tools.sandbox import Exit, SandboxLimits


async def test_a_fork_bomb_meets_the_limit_on_processes() -> None:
    bomb = """
import os, time
count = 0
try:
    while count < 500:
        if os.fork() == 0: time.sleep(60)
        count += 1
except BlockingIOError: pass
print(count, flush=True); os._exit(0)
"""
    printed, _ = await run(*python(bomb), limits=SandboxLimits(processes=20))
    assert int(printed) == 19


async def test_a_crash_is_no_business_of_the_machines_core_dump_program() -> None:
    """With a limit of 0 a piped core_pattern runs as root; with 1 it does not. So 1 it stays."""
    lower = """
import resource
print(resource.getrlimit(resource.RLIMIT_CORE))
try: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (OSError, ValueError): print("kept")
resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))
"""
    assert await run(*python(lower)) == ("(1, 1)\nkept\n", Exit(0, None))


async def test_two_sandboxes_do_not_share_the_limit_on_processes() -> None:
    few = SandboxLimits(processes=4)
    async with sandbox("sh", "-c", "sleep 9 & sleep 9 & wait", limits=few):
        printed, ended = await run("sh", "-c", "echo $(echo a)", limits=few)
    assert (printed, ended) == ("a\n", Exit(0, None))


@pytest.mark.parametrize(
    "code",
    ["bytearray({size})", "import mmap; mmap.mmap(-1, 20 * 2**30, flags=0x4001)"],
    ids=["private", "shared"],
)
async def test_memory_is_bounded(code: str) -> None:
    few = SandboxLimits(memory_bytes=128 * MIB)
    held, ended = await run(*python(code.format(size=300 * MIB)), limits=few)
    assert ended.code == 1 and ("MemoryError" in held or "allocate" in held), held
    within = "import mmap; bytearray(64 * 2**20); mmap.mmap(-1, 2**30, flags=0x4001)"
    free, ended = await run(*python(within), limits=few)
    assert ended.code == 0, free


async def test_the_size_of_tmp_is_bounded() -> None:
    fill = """
size = 0
try:
    for name in range(100):
        with open(f"/tmp/{name}", "wb", 0) as file:
            for _ in range(4): size += file.write(bytes(2**20))
except OSError as error: print(error.errno, size // 2**20)
"""
    printed, _ = await run(*python(fill), limits=SandboxLimits(tmp_bytes=8 * MIB))
    number, size = map(int, printed.split())
    assert number == errno.ENOSPC and size <= 8


async def test_open_files_and_cpu_time_are_bounded() -> None:
    many = "import os\ntry:\n  while True: last = os.dup(0)\nexcept OSError: print(last)"
    printed, _ = await run(*python(many), limits=SandboxLimits(open_files=32))
    assert int(printed) == 31
    _, ended = await run(*python("while True: pass"), limits=SandboxLimits(cpu_s=1))
    # By its own bound, or by the whole sandbox's, which is as large: whichever is noticed first.
    assert ended in (Exit(None, signal.SIGXCPU), Exit(None, signal.SIGKILL))
