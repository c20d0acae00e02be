"""The verifier that isn't ours: built from Go's own copy of golang.org/x/mod, with Go from a wheel.

`make proof` sets its environment up; nothing of Go's is kept in the project.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv-proof"
PACKAGES = ("sumdb/note", "sumdb/tlog")
BUILD_S_MAX = 300


def build() -> Path | None:
    """The program; None where there is no Go. Raises CalledProcessError."""
    go = ENVIRONMENT / "bin" / "go"
    if not go.is_file():
        return None
    folder = ENVIRONMENT / "verifier"
    program = folder / "verifier"
    environment = {
        "PATH": os.defpath,
        "HOME": str(folder),
        "GOCACHE": str(folder / "cache"),
        "GOPATH": str(folder / "path"),
        "GOPROXY": "off",
        "GOFLAGS": "-mod=mod",
        "GOTOOLCHAIN": "local",
        "GOTELEMETRY": "off",
        "CGO_ENABLED": "0",
    }
    home = subprocess.run(
        [go, "env", "GOROOT"], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    theirs = Path(home) / "src" / "cmd" / "vendor" / "golang.org" / "x" / "mod"
    for package in PACKAGES:
        shutil.copytree(theirs / package, folder / "mod" / package, dirs_exist_ok=True)
    (folder / "mod" / "go.mod").write_text("module golang.org/x/mod\n\ngo 1.22\n")
    shutil.copy(ROOT / "bench" / "tamper_verifier" / "main.go", folder / "main.go")
    (folder / "go.mod").write_text(
        "module verifier\n\ngo 1.22\n\nrequire golang.org/x/mod v0.0.0\n\n"
        "replace golang.org/x/mod => ./mod\n"
    )
    subprocess.run(
        [go, "build", "-o", program, "."],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        timeout=BUILD_S_MAX,
    )
    return program


def answers(program: Path, questions: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One of each: `ok`, or `found` and why."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        for question in questions:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            yield process.stdout.readline().decode().rstrip("\n")
        process.stdin.close()
