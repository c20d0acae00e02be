"""Lets these tests import what lies beside them and in `tests`, in every import mode of pytest."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
SUITES = ("guards", "histories", "memory", "rows", "scheduling", "writing")
pytest.register_assert_rewrite(*(f"conformance_{s}" for s in SUITES))
