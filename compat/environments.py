"""The clients' libraries: one environment each, of locked versions, beneath .venv-compat/."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from compat.clients import Client


def install(root: Path, environment: str) -> None:
    """Makes it, where it is missing or its lock file is newer."""
    folder = root / ".venv-compat" / environment
    locked = root / "requirements" / "compat" / f"{environment}.txt"
    ready = folder / "ready"
    if ready.exists() and ready.stat().st_mtime >= locked.stat().st_mtime:
        return
    print(f"Setting up .venv-compat/{environment} …", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheels = ["install", "--require-hashes", "--only-binary", ":all:"]
    subprocess.run([*pip, *wheels, "-r", locked], check=True)
    ready.touch()


def version(root: Path, client: Client) -> str:
    """Of its package, as it is locked."""
    text = (root / "requirements" / "compat" / f"{client.environment}.txt").read_text("utf-8")
    found = re.search(rf"^{re.escape(client.package)}==(\S+)", text, re.MULTILINE)
    return found[1] if found else "?"
