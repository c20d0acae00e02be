"""What a command costs before it does anything: a person waits for it each time."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ring0.cli.place import work
from ring0.errors import Interrupted

HEAVY = (
    "aiohttp",
    "cedarpy",
    "cryptography",
    "mcp",
    "numpy",
    "psycopg",
    "pydantic",
    "ring0.kernel.kernel",
)


def loaded(*arguments: str) -> set[str]:
    """The modules of a `ring0` that has done this."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ring0", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("run", "--help")])
def test_what_needs_no_kernel_loads_neither_it_nor_a_heavy_library(
    arguments: tuple[str, ...],
) -> None:
    modules = loaded(*arguments)
    assert "ring0.cli.app" in modules  # it was looked at
    assert not modules & set(HEAVY)


@pytest.mark.parametrize("verb", ["ps", "show", "approvals"])
def test_a_verb_that_only_reads_loads_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("RING0_HOME", str(tmp_path / "home"))
    modules = loaded(verb)
    assert "ring0.cli.looking" in modules
    assert not modules & set(HEAVY)


def test_ctrl_c_when_the_loop_is_closed_already_is_no_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    close = asyncio.Runner.close

    def interrupted(runner: asyncio.Runner) -> None:
        close(runner)
        signal.raise_signal(signal.SIGINT)

    async def body() -> None:
        pass

    monkeypatch.setattr(asyncio.Runner, "close", interrupted)
    with pytest.raises(Interrupted):
        work(body)
