"""Lets these tests import what lies beside them, in every import mode of pytest."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
