"""What the tests of tiers and limits share: a kernel of its own, as root or as nobody."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sandbox_world import AS_ROOT, HERE, MIB, REPO, uids

__all__ = ["MIB", "PYTHON", "REPO", "USER", "Answers", "run_kernel"]

Answers = dict[str, Any]
USER = 65534
PYTHON = "/usr/bin/python3"
"""One that every user may run; the one of the tests may lie in a home."""


def run_kernel(tier: str, who: str, programs: dict[str, tuple[str, dict[str, Any]]]) -> Answers:
    """What becomes of each program (Python source, and its limits) in a sandbox of exactly that
    tier, whose kernel is `root` or `nobody`. Skips where that can't be had."""
    if not AS_ROOT:
        pytest.skip("the kernel of these tests is once root, once nobody")
    if not Path(PYTHON).exists():
        pytest.skip("there is no Python that every user may run")
    first = next(uids)
    for _ in range(2 * len(programs)):
        next(uids)
    asked = {"tier": tier, "uid": first, "programs": programs}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        python, prefix, path = sys.executable, (), str(REPO / "src")
        if who == "nobody":
            python, prefix = as_nobody()
            shutil.copytree(REPO / "src/ring0", Path(folder, "ring0"))
            shutil.copytree(Path(msgspec.__file__).parent, Path(folder, "msgspec"))
            path = folder
        script = (HERE / "tier_kernel.py").read_text()
        done = subprocess.run(
            [*prefix, python, "-c", script],
            input=json.dumps(asked), capture_output=True, text=True,
            env={"PYTHONPATH": path, "SECRET": "canary-in-env"}, timeout=170, cwd="/", check=False,
        )  # fmt: skip
    assert done.stdout, done.stderr[-3000:]
    answers: Answers = json.loads(done.stdout)
    some = next(iter(programs))
    if answers[some].get("code") == "sandbox_unavailable":
        pytest.skip(f"the tier {tier} is not on this machine: {answers[some].get('why')}")
    assert answers[some].get("tier") == tier, answers[some]
    ours = range(first, first + 2 * len(programs))
    processes = (pid for pid in os.listdir("/proc") if pid.isdigit())
    folders = Path(tempfile.gettempdir()).glob("ring0-work-*")
    return {
        **answers,
        "alive": [pid for pid in processes if _owner(f"/proc/{pid}") in ours],
        "folders": [str(folder) for folder in folders if _owner(str(folder)) in ours],
    }


def as_nobody() -> tuple[str, tuple[str, ...]]:
    """A Python that nobody may run, and how to become nobody."""
    ours = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = shutil.which(ours, path="/usr/bin:/usr/local/bin")
    if found is None or shutil.which("setpriv") is None:
        pytest.skip(f"there is no {ours} of the system, or no setpriv, for uid {USER} to use")
    return found, ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")


def _owner(path: str) -> int:
    try:
        return os.stat(path).st_uid
    except OSError:
        return -1
