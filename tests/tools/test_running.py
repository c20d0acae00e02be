"""Running a program to its end: whatever it does, it is heard up to its bounds and then gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sandbox_world import RUNTIME, python, sandbox

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.tools.sandbox import Exit, Sandbox, SandboxLimits
from ring0.tools.sandbox.running import Ran, run

MIB = 1024 * 1024
TRIES = 20
"""On a busy machine any of them may take longer than it does by itself."""


async def ran(code: str, *, fields: dict[str, Any] | None = None, **asked: Any) -> Ran:
    """What becomes of a Python program. Fails where one of its processes is left."""
    asked = {"wall_s": 20, "output_bytes": MIB, **asked}
    async with sandbox(*python(code), **(fields or {})) as made:
        done = await asyncio.wait_for(run(made, RUNTIME, **asked), 30)
        assert gone(made)
        return done


def gone(made: Sandbox) -> bool:
    """No process has its init as an ancestor, or it itself."""
    try:
        os.kill(made.identity.pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_what_goes_in_comes_out_and_the_exit_code_with_it() -> None:
    code = """
import sys
data = sys.stdin.buffer.read()
sys.stdout.buffer.write(data[::-1]); sys.stderr.write(str(len(data))); sys.exit(7)
"""
    every = bytes(range(256)) * 1000
    done = await ran(code, stdin=every)
    assert done == Ran(Exit(7, None), every[::-1], b"256000", "")
    assert done.code == 7


async def test_both_pipes_full_at_once_is_no_deadlock() -> None:
    """It writes a megabyte to each before it reads; its own input is a megabyte, too."""
    code = """
import sys
sys.stderr.write("e" * 400_000); sys.stderr.flush()
sys.stdout.write("o" * 400_000); sys.stdout.flush()
print(len(sys.stdin.read()))
"""
    done = await ran(code, stdin=b"i" * MIB)
    assert done.stdout == b"o" * 400_000 + b"1048576\n"
    assert done.stderr == b"e" * 400_000 and not done.stopped


async def test_a_program_that_never_reads_its_input_ends_all_the_same() -> None:
    done = await ran("print('bye')", stdin=b"i" * 4 * MIB)
    assert (done.stdout, done.exit, done.stopped) == (b"bye\n", Exit(0, None), "")


async def test_a_program_that_closes_its_streams_and_goes_on_is_waited_for() -> None:
    code = "import os, time\nfor fd in (0, 1, 2): os.close(fd)\ntime.sleep(0.4); os._exit(9)"
    done = await ran(code, stdin=b"x" * MIB)
    assert (done.exit, done.stdout, done.stopped) == (Exit(9, None), b"", "")


async def test_a_daemon_that_holds_the_output_open_ends_with_its_program() -> None:
    code = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (1, 2, 3, 15): signal.signal(number, signal.SIG_IGN)
        os.write(1, b"daemon\\n")
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(0.3)
"""
    began = RUNTIME.monotonic_us()
    done = await ran(code)
    assert (done.stdout, done.exit, done.stopped) == (b"daemon\n", Exit(0, None), "")
    assert RUNTIME.monotonic_us() - began < 5_000_000


async def test_a_program_that_ignores_signals_ends_at_its_wall_time() -> None:
    code = """
import signal, time
for number in set(range(1, 32)) - {9, 19}: signal.signal(number, signal.SIG_IGN)
print("up", flush=True); time.sleep(600)
"""
    done = await ran(code, wall_s=1.0)
    assert (done.stdout, done.exit, done.stopped) == (b"up\n", Exit(None, 9), "wall")
    assert done.code == 137


async def test_a_program_that_stops_itself_ends_at_its_wall_time() -> None:
    done = await ran("import os; os.kill(os.getpid(), 19)", wall_s=0.7)
    assert (done.exit, done.stopped) == (Exit(None, 9), "wall")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_flood_is_cut_at_the_bound_and_ends_the_program(stream: str) -> None:
    flood = f"import sys\nwhile True: sys.{stream}.write('f' * 10_000)"
    done = await ran(flood, output_bytes=100_000)
    assert done.stopped == "output" and done.exit == Exit(None, 9)
    assert getattr(done, stream) == b"f" * 100_000


async def test_the_bound_is_on_both_streams_together_and_exactly_met_is_not_over() -> None:
    code = "import os; os.write(1, b'a' * 600); os.write(2, b'b' * {})"
    assert (await ran(code.format(400), output_bytes=1000)).stopped == ""
    over = await ran(code.format(401), output_bytes=1000)
    assert over.stopped == "output" and len(over.stdout) + len(over.stderr) == 1000


async def test_no_output_at_all_can_be_asked_for() -> None:
    assert (await ran("pass", output_bytes=0)).stopped == ""
    silenced = await ran("print(1)", output_bytes=0)
    assert silenced.stopped == "output" and not silenced.stdout


async def test_a_signal_that_ends_the_program_is_named() -> None:
    done = await ran("import os; os.kill(os.getpid(), 15)")
    assert (done.exit, done.code, done.stopped) == (Exit(None, 15), 143, "")


async def test_cpu_time_that_is_used_up_is_named() -> None:
    done = await ran("while True: pass", fields={"limits": SandboxLimits(cpu_s=1)})
    assert done.stopped == "cpu"


async def test_it_is_heard_as_it_is_said() -> None:
    """The program waits for an answer that only one who has heard it can give."""
    said: asyncio.Queue[bytes] = asyncio.Queue()

    async def answers() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield (await said.get()).upper()

    def heard(stream: str, data: bytes) -> None:
        assert stream == "stderr"
        said.put_nowait(data)

    code = """
import sys
for word in "one", "two", "three":
    print(word, file=sys.stderr, flush=True)
    assert sys.stdin.readline() == word.upper() + "\\n"
"""
    done = await ran(code, stdin=answers(), heard=heard, keep=False)
    assert (done.exit, done.stdout, done.stderr) == (Exit(0, None), b"", b"")


async def test_a_slow_listener_slows_the_program_and_loses_nothing() -> None:
    parts: list[bytes] = []

    async def heard(stream: str, data: bytes) -> None:
        await asyncio.sleep(0.02)
        parts.append(data)

    done = await ran("import os\nfor _ in range(64): os.write(1, b's' * 16384)", heard=heard)
    assert b"".join(parts) == done.stdout == b"s" * 64 * 16384


async def test_a_listener_that_fails_ends_the_program() -> None:
    def heard(stream: str, data: bytes) -> None:
        raise LookupError("no room")

    async with sandbox(*python("print(1, flush=True); import time; time.sleep(60)")) as made:
        with pytest.raises(LookupError, match="no room"):
            await asyncio.wait_for(run(made, RUNTIME, heard=heard, wall_s=30, output_bytes=9), 20)
        assert gone(made)


async def test_a_cancel_ends_everything_within_50_ms() -> None:
    code = """
import os, time
for _ in range(20):
    if os.fork() == 0: os.setsid(); time.sleep(600)
print("up", flush=True); time.sleep(600)
"""
    took_ms: list[float] = []
    while not took_ms or (min(took_ms) >= 50 and len(took_ms) < TRIES):
        took_ms.append(await cancelled_ms(code))
    assert min(took_ms) < 50, took_ms


async def cancelled_ms(code: str) -> float:
    up = asyncio.Event()
    asked: dict[str, Any] = {"stdin": b"x" * MIB, "wall_s": 60, "output_bytes": MIB}
    async with sandbox(*python(code)) as made:
        running = asyncio.create_task(run(made, RUNTIME, heard=lambda *_: up.set(), **asked))
        await asyncio.wait_for(up.wait(), 20)
        began = RUNTIME.monotonic_us()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        took_ms = (RUNTIME.monotonic_us() - began) / 1000
        assert gone(made)
    return took_ms


async def test_input_that_never_comes_holds_nobody_up() -> None:
    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    assert (await ran("print(1)", stdin=nothing())).stdout == b"1\n"


async def test_nothing_is_left_running_in_the_kernel_afterwards() -> None:
    before = asyncio.all_tasks()
    for code, wall_s in (("print(1)", 20), ("import time; time.sleep(60)", 0.3)):
        await ran(code, stdin=b"x" * MIB, wall_s=wall_s)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before


async def test_a_pipe_held_open_by_a_stranger_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if a file descriptor had leaked to somebody who lives on."""
    monkeypatch.setattr(limits, "SANDBOX_PIPE_END_S_MAX", 0.2)
    async with sandbox(*python("print(1, flush=True); import time; time.sleep(0.5)")) as made:
        stranger = os.open(f"/proc/{tenant(made)}/fd/1", os.O_WRONLY)
        try:
            done = await asyncio.wait_for(run(made, RUNTIME, wall_s=20, output_bytes=99), 5)
        finally:
            os.close(stranger)
    assert (done.exit, done.stdout, done.stopped) == (Exit(0, None), b"1\n", "")


def tenant(made: Sandbox) -> int:
    with contextlib.ExitStack() as stack:
        pid = made.identity.pid
        file = stack.enter_context(open(f"/proc/{pid}/task/{pid}/children"))
        return int(file.read().split()[0])


async def test_bounds_that_make_no_sense_are_refused() -> None:
    async with sandbox("true") as made:
        with pytest.raises(InvalidInput):
            await run(made, RUNTIME, wall_s=0, output_bytes=1)
        with pytest.raises(InvalidInput):
            await run(made, RUNTIME, wall_s=1, output_bytes=-1)


def test_a_kill_by_a_signal_is_said_as_a_shell_says_it() -> None:
    assert Ran(Exit(None, signal.SIGKILL), b"", b"", "").code == 137
