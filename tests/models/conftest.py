"""Lets these tests import `model_servers`, `kernel_world` and the doors' helpers."""

import sys
from pathlib import Path

_TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(_TESTS / name) for name in ("models", "gateway", "kernel")]
