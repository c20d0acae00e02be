"""From an operator's `command` to the sandbox that it runs in: its program, its code, its mounts.

The code is found from the command (a Python module with all that it needs, a Node package with its
node_modules, a file) or named by the operator; it is mounted read-only, and nothing else of the
host is there but the system's libraries.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.tools.mcp import code
from ring0.tools.mcp.code import Digests
from ring0.tools.mcp.pins import Unit
from ring0.tools.mcp.settings import Settings
from ring0.tools.reach import with_way_out
from ring0.tools.sandbox import Mount, SandboxLimits, SandboxSpec

_SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_NOT_A_PLACE: Final = ("/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/work")  # noqa: S108
"""Where a sandbox has folders of its own: what lies there outside is mounted elsewhere inside."""
_ELSEWHERE: Final = "/opt/mcp"
_PYTHON: Final = re.compile(r"python(3(\.\d+)?)?")
_BYTE_CODE: Final = "/tmp/byte-code"  # noqa: S108  # of the sandbox
_FRESH: Final = (f"-Xpycache_prefix={_BYTE_CODE}",)
"""Byte code is no part of a pin, so none that lies on the host is run. (An argument, too: `-I`
would not look at the environment. It costs a start the time to compile.)"""
_NODE: Final = re.compile(r"node(js)?")
_LOCKS: Final = ("package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock")
_SHEBANG_SIZE_BYTES: Final = 256
WORK: Final = "/work"


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A server's program as its sandbox gets it."""

    argv: tuple[str, ...]
    path: str
    """PATH inside."""
    mounts: tuple[Mount, ...]
    trees: tuple[tuple[str, Path], ...]
    """What is pinned as a whole: name and place on the host."""
    site: Path | None = None
    """The site-packages that it imports from."""
    module: str = ""
    """The module that Python runs; empty for a script."""


def find(instance: str, settings: Settings, folder: Path) -> Program:
    """Raises ManifestInvalid where the program or its code can't be told."""
    argv = list(settings.command)
    binary = _program(instance, argv[0], folder)
    interpreter = _interpreter(binary)
    if interpreter is not None:
        argv[:1] = [*interpreter, str(binary)]
        binary = _program(instance, argv[0], folder)
    argv[0] = str(binary)
    trees: list[tuple[str, Path]] = []
    shown: list[Path] = []
    site, module = None, ""
    if _PYTHON.fullmatch(binary.name):
        site, module = _site(binary), _module(argv)
        for prefix in _prefixes(binary):
            if not _is_system(prefix):
                _check_prefix(instance, prefix)
                shown.append(prefix)
        if not module and not settings.code:
            trees.append(_script(instance, argv, folder))
    elif _NODE.fullmatch(binary.name):
        if not settings.code:
            trees += _package(instance, argv, folder)
    elif not settings.code and not _is_system(binary):
        trees.append((f"program:{binary.name}", binary))
    for name in settings.code:
        path = _named(instance, name, folder)
        code.check_no_secrets(path)
        trees.append((f"code:{name}", path))
    shown += [path for _, path in trees if path.name not in _LOCKS]
    if not _is_system(binary) and not any(binary.is_relative_to(path) for path in shown):
        shown.append(binary)
    trees.append((f"program:{binary.name}", binary.resolve()))
    mounts, places = _mounts(shown)
    first, *rest = (_inside(part, folder, places) for part in argv)
    return Program(
        argv=(first, *(_FRESH if _PYTHON.fullmatch(binary.name) else ()), *rest),
        path=f"{_place(binary.parent, places)}:{_SYSTEM_PATH}",
        mounts=mounts,
        trees=tuple(dict.fromkeys(trees)),
        site=site,
        module="" if settings.code else module,
    )


def units(instance: str, program: Program, digests: Digests) -> tuple[Unit, ...]:
    """All the code of a server, digested. Blocks. Raises ManifestInvalid."""
    found = [digests.tree(name, path) for name, path in program.trees]
    if program.site is not None:
        found.append(code.startup_files(program.site, digests))
        if program.module:
            packages = code.distributions(program.site, program.module, digests)
            if not packages:
                raise ManifestInvalid(
                    f"[tools.{instance}] runs the module {program.module[:80]!r}, which no"
                    f" package in {program.site} holds.",
                    why="What can't be told apart can't be pinned.",
                    todo="Install it there, or name its files in `code`.",
                )
            found += packages
        else:
            found.append(code.records(program.site, digests))
    return tuple(sorted(found, key=lambda unit: unit.name))


def spec(settings: Settings, program: Program) -> SandboxSpec:
    """The sandbox of one start of the server."""
    environment = {
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        **settings.env,
        "PATH": program.path,
        "PYTHONPYCACHEPREFIX": _BYTE_CODE,
    }
    if program.module:
        # `-m` would look for modules in the workspace first, which the agent writes.
        environment["PYTHONSAFEPATH"] = "1"
    wanted = SandboxSpec(
        argv=program.argv,
        env=environment,
        cwd=WORK if settings.workspace else "/tmp",  # noqa: S108  # of the sandbox
        mounts=program.mounts,
        limits=SandboxLimits(
            memory_bytes=settings.limits.memory_mb * limits.MIB,
            tmp_bytes=settings.limits.tmp_mb * limits.MIB,
            processes=settings.limits.processes,
        ),
        workspace=settings.workspace,
        tier=settings.tier,
    )
    return with_way_out(wanted, settings.egress) if settings.egress else wanted


# --- the program --------------------------------------------------------------------------------


def _program(instance: str, name: str, folder: Path) -> Path:
    path = f"{Path(sys.executable).parent}:{_SYSTEM_PATH}"
    if "/" in name:
        found = Path(os.path.normpath(folder / os.path.expanduser(name)))
        if found.is_file() and os.access(found, os.X_OK):
            return found
    elif (there := shutil.which(name, path=path)) is not None:
        return Path(there)
    raise ManifestInvalid(
        f"[tools.{instance}] runs {name[:80]!r}, and there is no such program.",
        why="A path begins at agent.toml's folder." if "/" in name else f"PATH is {path}.",
        todo="Install it, or correct `command`.",
    )


def _interpreter(binary: Path) -> list[str] | None:
    """What `#!` names; None for a program of its own."""
    with open(binary, "rb") as file:
        first = file.read(_SHEBANG_SIZE_BYTES).partition(b"\n")[0]
    if not first.startswith(b"#!"):
        return None
    words = os.fsdecode(first[2:]).split()
    if words[:1] == ["/usr/bin/env"]:
        words = words[2:] if words[1:2] == ["-S"] else words[1:]
    return words or None


def _module(argv: list[str]) -> str:
    """What comes after `-m`; empty for a script."""
    for number, word in enumerate(argv[1:], start=1):
        if word == "-m":
            return argv[number + 1] if len(argv) > number + 1 else ""
        if not word.startswith("-"):
            return ""
    return ""


def _site(binary: Path) -> Path | None:
    for prefix in _prefixes(binary):
        for found in sorted(prefix.glob("lib/python3*/site-packages")):
            return found
    return None


def _prefixes(binary: Path) -> Iterator[Path]:
    """The environment of an interpreter and its base: every link on the way from one to the
    other."""
    hop = binary
    for _ in range(16):
        if hop.parent.name == "bin":
            yield hop.parent.parent
        if not hop.is_symlink():
            return
        hop = Path(os.path.normpath(hop.parent / os.readlink(hop)))


def _check_prefix(instance: str, prefix: Path) -> None:
    """Is it Python's own folder, which may be shown? Raises ManifestInvalid."""
    if not any(prefix.glob("lib/python3*")):
        raise ManifestInvalid(
            f"[tools.{instance}] runs a Python in {prefix}, which is no environment of Python's.",
            why="All of that folder would be shown to the server.",
            todo="Make an environment for it: `python3 -m venv FOLDER`.",
        )
    code.check_no_secrets(prefix)


def _script(instance: str, argv: list[str], folder: Path) -> tuple[str, Path]:
    """The script that an interpreter runs."""
    word = next((word for word in argv[1:] if not word.startswith("-")), "")
    path = Path(os.path.normpath(folder / word))
    if not word or not path.is_file():
        raise ManifestInvalid(
            f"[tools.{instance}]: ring0 can't tell which code {' '.join(argv)[:120]!r} runs.",
            why="Code that is given on the command line, or by other means, can't be pinned.",
            todo="Name a script or a module (`-m`), and further files in `code`.",
        )
    return f"script:{path.name}", path


def _package(instance: str, argv: list[str], folder: Path) -> list[tuple[str, Path]]:
    """The tree of a Node program, with the lock that it was installed by."""
    _, script = _script(instance, argv, folder)
    for above in script.parents:
        lock = next((above / name for name in _LOCKS if (above / name).is_file()), None)
        if lock is not None:
            modules = above / "node_modules"
            inside = script.is_relative_to(modules)
            if not inside:
                code.check_no_secrets(above)
            return [
                (f"node:{lock.name}", lock),
                ("node:node_modules", modules) if inside else (f"node:{above.name}", above),
            ]
        if above == folder:
            break
    if any(part in code.PACKAGES for part in script.parts):
        raise ManifestInvalid(
            f"[tools.{instance}] runs {str(script)[:200]}, and no lock file lies beside its"
            " node_modules.",
            why="Without one, nobody can say what was installed.",
            todo="Install it with `npm ci`, from a package-lock.json.",
        )
    return [(f"script:{script.name}", script)]


def _named(instance: str, name: str, folder: Path) -> Path:
    path = Path(os.path.normpath(folder / os.path.expanduser(name)))
    if not path.exists():
        raise ManifestInvalid(
            f"[tools.{instance}] names {name[:120]!r} in `code`, and {path} is not there.",
            todo="Correct it, or take it out.",
        )
    return path


# --- the places inside ----------------------------------------------------------------------------


def _mounts(shown: list[Path]) -> tuple[tuple[Mount, ...], dict[Path, str]]:
    """Each once, none beneath another; where the sandbox has folders of its own, elsewhere."""
    places: dict[Path, str] = {}
    for path in sorted(dict.fromkeys(shown), key=lambda path: len(path.parts)):
        if any(path.is_relative_to(other) for other in places):
            continue
        odd = any(path.is_relative_to(place) for place in _NOT_A_PLACE)
        places[path] = f"{_ELSEWHERE}/{len(places)}/{path.name}" if odd else str(path)
    return tuple(Mount(str(path), place) for path, place in places.items()), places


def _place(path: Path, places: dict[Path, str]) -> str:
    for outside, inside in places.items():
        if path.is_relative_to(outside):
            return os.path.normpath(os.path.join(inside, path.relative_to(outside)))
    return str(path)


def _inside(part: str, folder: Path, places: dict[Path, str]) -> str:
    """An argument that names a file of the program, by its name inside."""
    if part.startswith("-") or "\0" in part:
        return part
    path = Path(os.path.normpath(folder / part))
    ours = any(path.is_relative_to(outside) for outside in places) and path.exists()
    return _place(path, places) if ours else part


def _is_system(path: Path) -> bool:
    return any(path.is_relative_to(place) for place in _SYSTEM)
