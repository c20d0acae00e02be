"""Where the details of a fault of ring0 go: a person is shown one line that names the file."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Final

FAULT_EXIT: Final = 70
FAULT_FILE: Final = "fault.txt"


def keep_fault(home: Path, fault: BaseException) -> Path:
    """Writes the traceback into the data folder. Raises OSError."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home / FAULT_FILE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
        file.write("".join(traceback.format_exception(fault)))
    return path
