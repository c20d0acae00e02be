"""Lets these tests import `cli_world`, in every import mode of pytest."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cli_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    tmp_path.chmod(0o755)  # A sandbox has a uid of its own.
    made = World(tmp_path)
    yield made
    made.close()
