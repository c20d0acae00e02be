"""The Python that a person means by `python agent.py`: the one that their shell finds, with what is
installed beside it. Tells which folders of the host it is; nothing is mounted or started here.

Found by looking, not by asking it: nothing of it is run outside of a sandbox.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.tools.sandbox.mounts import PYTHONS_OWN, is_systems
from ring0.types import AgentManifest, Frozen

_MARK: Final = "pyvenv.cfg"
_PYTHON: Final = re.compile(r"python[0-9.]*")
_LIBRARY: Final = re.compile(r"python3\.[0-9]+t?")
_SCRIPT: Final = ".py"


class Environment(Frozen, frozen=True, kw_only=True):
    """One program of one Python environment."""

    program: str
    """Absolute, by the name under which it was found: by that it knows which environment it is."""
    read: tuple[str, ...]
    """What of the host it needs, read-only: the folders of the environment and of the Python that
    it was made from, as far as a sandbox has not got them anyway."""


def with_environment(manifest: AgentManifest, here: Path, search: str) -> AgentManifest:
    """The manifest, where its command is a program of an environment: by its absolute path, with
    what that needs under `[sandbox] read` (so it is on record with the run).

    here: the folder at which a relative program begins. search: the PATH of whoever asks. Raises
    ManifestInvalid.
    """
    found = environment_of(manifest.command[0], here, search) if manifest.command else None
    if found is None:
        return manifest
    named = manifest.sandbox.read
    more = tuple(path for path in found.read if path not in named)
    return replace(
        manifest,
        command=(found.program, *manifest.command[1:]),
        sandbox=replace(manifest.sandbox, read=(*named, *more)),
    )


def environment_of(program: str, here: Path, search: str) -> Environment | None:
    """None: it is no program of a Python environment. Raises ManifestInvalid for one that reaches
    outside of itself."""
    path = _absolute(program, here, search)
    if path is None or not is_environment(path.parent.parent) or path.parent.name != "bin":
        return None
    if is_systems(str(path)):
        # What the system has is there as it is. Only `python` may be another there: ring0's own.
        return Environment(program=str(path), read=()) if is_python(path.name) else None
    shown: dict[str, None] = {}
    for folder in _folders(path):
        for shape in dict.fromkeys((folder, Path(os.path.realpath(folder)))):
            shown.update(dict.fromkeys(_own(shape)))
    return Environment(program=str(path), read=tuple(one for one in shown if not is_systems(one)))


def is_python(program: str) -> bool:
    return _PYTHON.fullmatch(os.path.basename(program)) is not None


def is_environment(folder: Path) -> bool:
    """Is it a virtual environment, or an installed Python (its library's mark is `os.py`)?"""
    try:
        if (folder / _MARK).is_file():
            return True
        names = os.listdir(folder / "lib")
    except OSError:
        return False
    return any(
        _LIBRARY.fullmatch(one) and (folder / "lib" / one / "os.py").is_file() for one in names
    )


def _absolute(program: str, here: Path, search: str) -> Path | None:
    if "/" in program:
        path = Path(os.path.normpath(here / program))
        return path if path.is_file() and os.access(path, os.X_OK) else None
    found = shutil.which(program, path=search) if search else None
    return Path(os.path.normpath(here / found)) if found else None


def _folders(program: Path) -> Iterator[Path]:
    """The environment, the Python that it was made from, and each on the way there."""
    seen: set[Path] = set()
    waiting = [program, program.with_name("python3"), program.with_name("python")]
    while waiting and len(seen) < limits.PYTHON_HOPS_MAX:
        hop = waiting.pop(0)
        folder = hop.parent.parent
        if hop in seen or not os.path.lexists(hop):
            continue
        seen.add(hop)
        if hop.parent.name == "bin" and is_environment(folder):
            yield folder
            waiting += [base / "python3" for base in _made_from(folder)]
        if hop.is_symlink():
            waiting.append(Path(os.path.normpath(hop.parent / os.readlink(hop))))


def _made_from(environment: Path) -> Iterator[Path]:
    """`home` of a pyvenv.cfg: the folder of the Python that made it."""
    try:
        text = (environment / _MARK).read_text("utf-8")[: limits.PYVENV_CHARS_MAX]
    except (OSError, UnicodeDecodeError):
        return
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and key.strip().lower() == "home" and value.strip().startswith("/"):
            yield Path(os.path.normpath(value.strip()))


def _own(folder: Path) -> Iterator[str]:
    """What in it is Python's own: beside it may lie a whole project. Raises ManifestInvalid."""
    within = os.path.realpath(folder) + "/"
    for name in PYTHONS_OWN:
        path = folder / name
        if not path.exists():
            continue
        if not os.path.realpath(path).startswith(within):
            # Whoever wrote it (a checkout may bring its own) would choose what is shown.
            raise ManifestInvalid(
                f"The Python environment {folder} can't be shown to a sandbox.",
                why=f"Its {name!r} is a link out of it.",
                todo="Make it anew with `python -m venv`, or name another one's program.",
            )
        yield str(path)


def imported(command: tuple[str, ...], files: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """What Python may import by itself for `python SCRIPT` (`files`: those of the command line) and
    for `python -m MODULE`: what else lies beside it, by its path in `folder`."""
    script = next((name for name in files if name.endswith(_SCRIPT)), "")
    if not script and "-m" not in command:
        return ()
    place = Path(script).parent
    return tuple(
        path for name in beside(folder / place) if (path := str(place / name)) not in files
    )


def beside(folder: Path) -> tuple[str, ...]:
    """The names of the Python files and packages in a folder."""
    from ring0.kernel.agent.agents import LEFT_OUT, NEVER_READ

    return tuple(
        path.name
        for path in sorted(folder.iterdir())
        if path.name not in LEFT_OUT | NEVER_READ
        and not path.is_symlink()
        and ((path.suffix == _SCRIPT and path.is_file()) or (path / "__init__.py").is_file())
    )
