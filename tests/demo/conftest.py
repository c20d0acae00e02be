"""The demo's tests share demo_runs.py, which is no package's."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
