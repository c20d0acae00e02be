"""The clients' libraries: one environment each, of locked versions, beneath .venv-compat/."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from compat.clients import Client


def install(root: Path, environment: str) -> None:
    """Makes it, where it is missing or was made of other versions."""
    folder = root / ".venv-compat" / environment
    locked = root / "requirements" / "compat" / f"{environment}.txt"
    ready, digest = folder / "ready", hashlib.sha256(locked.read_bytes()).hexdigest()
    if ready.is_file() and ready.read_text("utf-8") == digest:
        return
    print(f"Setting up .venv-compat/{environment} …", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = ["-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    wheels = ["--require-hashes", "--only-binary", ":all:", "-r"]
    subprocess.run([folder / "bin" / "python", *pip, *wheels, locked], check=True)
    ready.write_text(digest, "utf-8")


def version(root: Path, client: Client) -> str:
    """Of its package, as it is locked."""
    text = (root / "requirements" / "compat" / f"{client.environment}.txt").read_text("utf-8")
    found = re.search(rf"^{re.escape(client.package)}==(\S+)", text, re.MULTILINE)
    return found[1] if found else "?"
