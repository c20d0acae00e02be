"""What the sandbox tests share: making one, running a program in it, a kernel to be killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from ring0.runtime import Runtime
from ring0.tools.sandbox import Exit, Sandbox, SandboxSpec, launch

HERE = Path(__file__).parent
REPO = HERE.parent.parent
QUESTIONS = (HERE / "sandbox_questions.py").read_text()
RUNTIME = Runtime()
MIB = 1024 * 1024
AS_ROOT = os.geteuid() == 0
uids = itertools.count(2_000_000_000 + os.getpid() % 100_000 * 1_000)
"""Not those of another test run on this machine."""

PATHS = ["/root/.bashrc", "/root", "/home", "/etc/shadow", "/etc/passwd", "/var/lib", "/sys/kernel",
         str(REPO / "pyproject.toml"), str(REPO / ".git"), "/proc/1", "/proc/sys", "/proc/cmdline",
         "/proc/sysrq-trigger", "/proc/kcore", "/dev/mem", "/usr/bin/env"]  # fmt: skip
SHOWN = {"/etc/passwd", "/proc/1", "/usr/bin/env"}
FOLDERS = [
    "/tmp",
    "/",
    "/etc",
    "/dev",
    "/run",
    "/run/ring0",
    "/usr",
    "/usr/bin",
    "/proc",
    sys.prefix,
]


@contextlib.asynccontextmanager
async def sandbox(*argv: str, go: bool = True, **fields: Any) -> AsyncIterator[Sandbox]:
    made = await launch(SandboxSpec(argv=argv, host_uid=next(uids), **fields), RUNTIME)
    try:
        if go:
            await made.go()
        yield made
    finally:
        await made.kill()
        for listener in (made.tcp, made.unix):
            if listener is not None:
                listener.close()


def python(code: str, *args: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", code, *args)


async def run(*argv: str, **fields: Any) -> tuple[str, Exit]:
    """What a program prints, and how it ends."""
    async with sandbox(*argv, **fields) as made:
        async with asyncio.timeout(20):
            printed = await made.stdout.read(), await made.stderr.read()
            return b"".join(printed).decode(), await made.wait()


def questions() -> tuple[str, ...]:
    return python(QUESTIONS, json.dumps({"paths": PATHS, "folders": FOLDERS}))


def as_kernel(asked: dict[str, Any], *, prefix: tuple[str, ...] = (), python: str = sys.executable,
              path: str = str(REPO / "src")) -> subprocess.Popen[str]:  # fmt: skip
    """A kernel in a process of its own (sandbox_kernel.py)."""
    whole = {"host_uid": next(uids), "go": True, "stay": False, **asked}
    script = (HERE / "sandbox_kernel.py").read_text()
    env = {"PYTHONPATH": path, "SECRET": "canary-in-env"}
    return subprocess.Popen(
        [*prefix, python, "-c", script, json.dumps(whole)], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, text=True, cwd="/", env=env,
    )  # fmt: skip
