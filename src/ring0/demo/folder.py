"""The demo's own data folder: where it is, that it is the demo's, and how it is emptied.

`--approve-as` works nowhere else, so a folder that is not marked as the demo's is never touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ring0.errors import InvalidInput
from ring0.kernel.agent.manifests import home_folder
from ring0.kernel.folder import lock_folder

MARK: Final = "this-is-the-demo.txt"
_MARKED: Final = "Made by `ring0 demo`, which alone may use it, and may empty it.\n"


def demo_folder(environment: Mapping[str, str]) -> Path:
    """RING0_DEMO_HOME, or `ring0-demo` in the XDG data folder."""
    if named := environment.get("RING0_DEMO_HOME"):
        return Path(named).expanduser().resolve()
    data = environment.get("XDG_DATA_HOME")
    base = Path(data) if data else Path(os.path.expanduser("~")) / ".local" / "share"
    return base.resolve() / "ring0-demo"


def claim(home: Path, environment: Mapping[str, str], *, fresh: bool) -> None:
    """Makes the folder, or finds it as the demo's. Raises InvalidInput, KernelBusy."""
    if home == home_folder(environment):
        raise InvalidInput(
            f"{home} is ring0's own data folder.",
            why="The demo keeps to a folder of its own.",
            todo="Set RING0_DEMO_HOME to another one, or leave it unset.",
        )
    try:
        if home.is_dir() and any(home.iterdir()) and not (home / MARK).is_file():
            raise InvalidInput(
                f"{home} holds something, and it is not the demo's.",
                why=f"It has no {MARK}.",
                todo="Set RING0_DEMO_HOME to a new folder.",
            )
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (home / MARK).write_text(_MARKED)
        if fresh:
            lock = lock_folder(home)
            try:
                _empty(home)
            finally:
                os.close(lock)
    except OSError as error:
        raise InvalidInput(
            f"{home} can't be used: {error.strerror}.",
            todo="Set RING0_DEMO_HOME to a folder that you may write to.",
        ) from None


def _empty(home: Path) -> None:
    for path in home.iterdir():
        if path.name == MARK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
