"""Where an attack's program runs: in a fresh sandbox, or, as its control, as a plain process.

It is the same text in both. This module starts it and says how it ended; it judges nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.runtime import Runtime
from ring0.tools.sandbox.running import Ran, run
from ring0.tools.sandbox.sandbox import Sandbox
from ring0.tools.sandbox.selftest.attack import SMALL, Attack, Proof
from ring0.tools.sandbox.selftest.world import VARIABLE, World
from ring0.tools.sandbox.spec import SandboxLimits, SandboxSpec

Make = Callable[[SandboxSpec], Awaitable[Sandbox]]
"""A fresh sandbox of the tier that is tested, with a uid that no other one has."""

ANSWER: Final = "answers/answer.txt"
"""The file that the kernel reads."""
SYSTEM_PYTHON: Final = "/usr/bin/python3"
PROGRAMS: Final = Path(__file__).parent / "programs"
_NAMES: Final = "ring0.tools.sandbox.selftest.programs"
# The modules are put where an import finds them: in a sandbox there is no ring0 to import.
_START: Final = """
import sys, types, json
for name, text in {parts!r}:
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, name, "exec"), module.__dict__)
sys.modules[{inside!r}].main(getattr(module, {function!r}), json.loads(sys.argv[-1]))
"""


class Outcome(msgspec.Struct, frozen=True):
    """How a program ended."""

    said: dict[str, str]
    """Its line: got, refused, missing or broken; empty where it said nothing."""
    ended: str
    """For people: "exit 0", "SIGKILL"."""
    stopped: str
    """The bound that ended it."""
    signal: int
    output_bytes: int
    uid: int
    """On the host."""
    taken: str = ""
    """What the kernel read of its folder, if it was ever the canary."""
    memory_bytes_peak: int = -1
    """As the host counted it, of the whole sandbox; -1 where nobody did."""


class Taker:
    """Reads one file of an attack's folder, again and again, as the kernel reads a result."""

    def __init__(self, read: Callable[[], bytes], canary: str, runtime: Runtime) -> None:
        self._read = read
        self._canary = canary.encode()
        self._task = runtime.start(self._reads(runtime), name="taker")
        self.taken = ""

    async def _reads(self, runtime: Runtime) -> None:
        while not self.taken:
            self._look()
            await runtime.sleep(0)

    def _look(self) -> None:
        with contextlib.suppress(Ring0Error, OSError):
            content = self._read()
            self.taken = content.decode("utf-8", "replace") if self._canary in content else ""

    async def end(self) -> str:
        """One last look, when everything is as the attack left it."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self.taken:
            self._look()
        return self.taken


@functools.lru_cache(maxsize=256)
def source(family: str, function: str) -> str:
    """The whole text of an attack's program."""
    parts = [
        (f"{_NAMES}.{name}", (PROGRAMS / f"{name}.py").read_text()) for name in ("inside", family)
    ]
    return _START.format(parts=parts, inside=f"{_NAMES}.inside", function=function)


def interpreter(tier: str) -> str:
    """The Python that attacks are started with. The `landlock` tier shows a program at its own
    place, to a uid that may not get there: then it is the system's."""
    ours = os.path.realpath(sys.executable)
    above = [str(folder) for folder in Path(ours).parents]
    hidden = not all(os.stat(folder).st_mode & 0o001 for folder in above)
    if tier == "landlock" and os.geteuid() == 0 and hidden and os.path.exists(SYSTEM_PYTHON):
        return SYSTEM_PYTHON
    return sys.executable


async def inside(
    world: World, make: Make, runtime: Runtime, attack: Attack, target: dict[str, Any],
    *, by_exec: str,
) -> Outcome:  # fmt: skip
    """In a fresh sandbox, which is gone afterwards. `by_exec`: the interpreter that is started;
    empty: the one that the zygote is."""
    text = source(attack.family, attack.program)
    argument = msgspec.json.encode(target).decode()
    program: dict[str, Any] = {"code": text, "argv": (argument,)}
    if by_exec:
        program = {"argv": (by_exec, "-I", "-S", "-c", text, argument)}
    spec = SandboxSpec(
        limits=SMALL if attack.small else SandboxLimits(),
        workspace=attack.workspace,
        egress=attack.egress,
        **program,
    )
    sandbox = await make(spec)
    taker = proxy = None
    try:
        if attack.egress:
            proxy = await world.outlets.serve(sandbox)
        if attack.proof is Proof.TAKEN:
            assert sandbox.files is not None, "such an attack asks for a workspace"
            read = functools.partial(sandbox.files.read, ANSWER, limits.KIB)
            taker = Taker(read, world.canary, runtime)
        await sandbox.go()
        done = await run(
            sandbox,
            runtime,
            wall_s=attack.wall_s or limits.SELFTEST_ATTACK_S_MAX,
            output_bytes=limits.SELFTEST_OUTPUT_SIZE_BYTES_MAX,
        )
        taken = await taker.end() if taker else ""
    finally:
        if taker is not None:
            await taker.end()
        if proxy is not None:
            await proxy.close()
        await sandbox.close()
    return _outcome(done, sandbox, taken)


async def outside(
    world: World, runtime: Runtime, attack: Attack, target: dict[str, Any]
) -> Outcome:
    """As a process like any other, of the user that the kernel runs as."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", source(attack.family, attack.program),
        msgspec.json.encode(target).decode(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={VARIABLE: world.canary, "PATH": os.defpath},
        cwd="/",
        pass_fds=(world.left_open,),
        start_new_session=True,
    )  # fmt: skip
    taker = None
    if attack.proof is Proof.TAKEN:
        path = Path(target["own_folder"], ANSWER)
        taker = Taker(path.read_bytes, world.canary, runtime)
    try:
        out, err = await runtime.wait_for(process.communicate(), limits.SELFTEST_ATTACK_S_MAX)
    except TimeoutError:
        out, err = b"", b"It did not end in time."
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        taken = await taker.end() if taker else ""
    code = process.returncode or 0
    return Outcome(
        said=_line(out, err),
        ended=_end(code if code >= 0 else None, -code),
        stopped="",
        signal=max(0, -code),
        output_bytes=len(out) + len(err),
        uid=os.geteuid(),
        taken=taken,
    )


def _outcome(done: Ran, sandbox: Sandbox, taken: str) -> Outcome:
    number = done.exit.signal or 0
    return Outcome(
        said=_line(done.stdout, done.stderr),
        ended=_end(done.exit.code, number),
        stopped=done.stopped,
        signal=number,
        output_bytes=len(done.stdout) + len(done.stderr),
        uid=sandbox.uid,
        taken=taken,
        memory_bytes_peak=sandbox.stats().memory_bytes_peak,
    )


def _line(out: bytes, err: bytes) -> dict[str, str]:
    """The last line of its output, or what it complained of."""
    lines = out.strip().splitlines()
    try:
        return msgspec.json.decode(lines[-1], type=dict[str, str]) if lines else {}
    except msgspec.MsgspecError:
        return {"broken": ascii((out + err)[-300:])}


def _end(code: int | None, number: int) -> str:
    if code is not None:
        return f"exit {code}"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
