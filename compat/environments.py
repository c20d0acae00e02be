"""The clients' libraries: one environment each, of locked versions, beneath `place`."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from compat.clients import Client


def place(root: Path) -> Path:
    """`.venv-compat` in the checkout. Beneath /tmp, of which each sandbox has its own, nothing is
    shown: then a folder in /var/tmp. Raises PermissionError where that is not ours alone."""
    if not root.is_relative_to("/tmp"):
        return root / ".venv-compat"
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    folder = Path(f"/var/tmp/ring0-compat-{os.getuid()}-{name}")
    folder.mkdir(mode=0o755, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not ours alone: remove it")
    return folder


def install(root: Path, environment: str) -> None:
    """Makes it, where it is missing or was made of other versions."""
    folder = place(root) / environment
    locked = root / "requirements" / "compat" / f"{environment}.txt"
    ready, digest = folder / "ready", hashlib.sha256(locked.read_bytes()).hexdigest()
    if ready.is_file() and ready.read_text("utf-8") == digest:
        return
    print(f"Setting up {folder} …", file=sys.stderr, flush=True)
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
