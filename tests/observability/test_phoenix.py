"""A backend of OTLP that is not ours stores each span once. Opt-in: `make phoenix` installs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]
PHOENIX = Path(os.environ.get("RING0_PHOENIX", HERE / ".venv-phoenix" / "bin" / "phoenix"))


@pytest.mark.slow
@pytest.mark.skipif(not PHOENIX.exists(), reason="`make phoenix` installs it")
def test_phoenix_finds_as_many_spans_as_were_sent_and_no_more_when_they_come_again() -> None:
    script = HERE / "scripts" / "phoenix.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "N of N by query" in done.stdout
