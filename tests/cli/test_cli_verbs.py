"""Each verb as a process that is started from nothing, as a person starts it. Most other tests of
the command line have theirs forked (forked.py): what they see is what a person sees.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import typer
from cli_world import RING0, WAIT_S, World

from ring0.cli.app import app

VERBS = (
    ("ps", "--all"),
    ("show", "last"),
    ("logs", "last"),
    ("report", "r-nothere"),
    ("top", "--once"),
    ("approvals",),
    ("approve", "a-1"),
    ("deny", "a-1"),
    ("revoke", "s-1"),
    ("settle", "0/1", "happened"),
    ("recover",),
    ("follow", "last"),
    ("kill", "--all"),
    ("pause", "last"),
    ("resume", "last"),
    ("send", "last", "hello"),
    ("budget", "last"),
    ("replay", "last"),
    ("test", "none.r0"),
    ("fork", "last"),
    ("diff", "last", "last"),
    ("whatif", "last", "0/1"),
    ("bisect", "last", "--good", "HEAD"),
    ("undo", "last", "--dry-run"),
    ("login",),
    ("logout",),
    ("whoami",),
    ("reload",),
    ("doctor",),
    ("bench", "none"),
    ("openapi",),
    ("init", "agent.py"),
    ("cron", "list"),
    ("hook", "list"),
    ("memory", "search", "x"),
    ("workspace", "diff", "last"),
    ("export", "run", "nothing"),
    ("audit", "verify"),
    ("storage",),
    ("archive", "--list"),
    ("unarchive", "last"),
    ("vacuum",),
    ("quota", "local", "much"),
    ("backup", "."),
    ("restore", "nowhere"),
    ("policy", "explain", "last", "0/1"),
    ("labels", "last", "0/1"),
    ("quarantine", "nothing"),
    ("tools", "list"),
    ("secret", "list"),
    ("token", "list", "last"),
    ("identity", "jwks"),
    ("sandbox", "exec", "--", "echo", "here"),
)
ELSEWHERE = {"run", "serve", "demo", "mcp"}
"""Started from nothing by test_cli_terminal, test_cli_serve, test_demo, test_cli_shim."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A data folder with one run on record."""
    folder = tmp_path_factory.mktemp("verbs")
    folder.chmod(0o755)  # A sandbox has a uid of its own.
    made = World(folder)
    assert made.ring0("run", "agent.py:plain", "hi").code == 0
    return made


@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
def test_a_verb_says_the_same_as_a_process_that_is_started_from_nothing(
    ran: World, arguments: tuple[str, ...]
) -> None:
    forked = ran.ring0(*arguments)
    whole = subprocess.run(
        [RING0, *arguments],
        cwd=ran.folder,
        env=ran.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert whole.returncode == forked.code, whole.stderr
    assert "Traceback" not in whole.stderr and whole.stdout + whole.stderr
    assert (told(whole.stdout), told(whole.stderr)) == (told(forked.out), told(forked.err))


def told(text: str) -> str:
    """What stays the same from one moment to the next."""
    return re.sub(r"[\d.,]+( ?m?s\b)?|\s+", " ", text)


def test_no_verb_is_left_out() -> None:
    names = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert {verb for verb, *_ in VERBS} | ELSEWHERE == names


def test_a_forked_command_has_its_own_folder_variables_and_streams(
    ran: World, tmp_path: Path
) -> None:
    """And nothing of the one before it."""
    other = World(tmp_path)
    assert "nothing has run here yet" in other.ring0("show", "last").err
    assert ran.ring0("show", "last").code == 0
    assert other.ring0("--version").err == "" == ran.ring0("nonsense").out
