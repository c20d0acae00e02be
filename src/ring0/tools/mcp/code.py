"""Digests of a server's code: of every file, by content. What is compared before each start.

A file that has not been touched since it was read (same inode, size and times) is not read again.
Byte code that Python makes itself is left out.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.tools.mcp.pins import Unit
from ring0.tools.secretfiles import SECRET_FILES

LEFT_OUT: Final = frozenset({"__pycache__", ".git"})
PACKAGES: Final = frozenset({"node_modules", "site-packages", "dist-packages"})
"""Trees of published packages: what is called like a secret there is an example."""
_CHUNK_SIZE_BYTES: Final = limits.MIB
_NORMAL: Final = re.compile(r"[-_.]+")

_Stamp = tuple[int, int, int, int, int]


class Digests:
    """Digests of files, remembered for as long as a file is untouched. Blocks: for a thread."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Stamp, str]] = {}

    def tree(self, name: str, root: Path, version: str = "") -> Unit:
        """A file, or all files beneath a folder: paths, kinds and contents. Raises
        ManifestInvalid."""
        if root.is_file():
            return self.files(name, [(root.name, root)], version)
        if not root.is_dir():
            raise ManifestInvalid(
                f"{str(root)[:200]} is part of an MCP server's code, and is not there.",
                todo="Correct `command` or `code`, or install the server again.",
            )
        return self.files(name, _walk(root), version)

    def files(self, name: str, files: Iterable[tuple[str, Path]], version: str = "") -> Unit:
        """Named files as one unit."""
        whole, count, size_bytes = hashlib.sha256(), 0, 0
        for inside, path in files:
            kind, digest, size = self._entry(path)
            count, size_bytes = count + 1, size_bytes + size
            if count > limits.MCP_CODE_FILES_MAX or size_bytes > limits.MCP_CODE_SIZE_BYTES_MAX:
                raise ManifestInvalid(
                    f"The code of an MCP server is too much: {name}.",
                    why=f"At most {limits.MCP_CODE_FILES_MAX} files and"
                    f" {limits.MCP_CODE_SIZE_BYTES_MAX} bytes are looked through.",
                    todo="Give the server a folder of its own and name it in `code`.",
                )
            for part in (os.fsencode(inside), kind.encode(), digest.encode()):
                whole.update(len(part).to_bytes(8, "big") + part)
        return Unit(name=name, version=version, files=count, digest=whole.hexdigest())

    def _entry(self, path: Path) -> tuple[str, str, int]:
        try:
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                return "link", hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest(), 0
            if not stat.S_ISREG(status.st_mode):
                return "other", "", 0
            kind = "program" if status.st_mode & 0o111 else "file"
            return kind, self._content(path, status), status.st_size
        except FileNotFoundError:
            return "missing", "", 0
        except OSError as error:
            raise ManifestInvalid(
                f"{str(path)[:200]} is part of an MCP server's code and can't be read.",
                why=error.strerror or "",
                todo="Let this user read it.",
            ) from None

    def _content(self, path: Path, status: os.stat_result) -> str:
        stamp = _stamp(status)
        known = self._known.get(str(path))
        if known is not None and known[0] == stamp:
            return known[1]
        digest = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_SIZE_BYTES):
                digest.update(chunk)
            after = _stamp(os.fstat(file.fileno()))
        if after == stamp:
            self._known[str(path)] = stamp, digest.hexdigest()
        return digest.hexdigest()


def _stamp(status: os.stat_result) -> _Stamp:
    # ctime: whoever sets the other times back can't set this one.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - LEFT_OUT)
        for name in [f for f in folders if os.path.islink(os.path.join(folder, f))] + sorted(names):
            path = Path(folder, name)
            yield os.path.relpath(path, root), path


def check_no_secrets(root: Path) -> None:
    """Raises ManifestInvalid where a tree that a sandbox is to see holds what is kept secret."""
    if not root.is_dir():
        return
    for number, (folder, folders, names) in enumerate(os.walk(root)):
        if found := SECRET_FILES & {*folders, *names}:
            raise ManifestInvalid(
                f"{Path(folder, min(found))} would be shown to an MCP server.",
                why="What holds secrets is never shown to a sandbox, also not as part of a folder.",
                todo="Move it, or name the server's files one by one in `code`.",
            )
        if number > limits.MOUNT_FOLDERS_MAX:
            raise ManifestInvalid(
                f"{root} has more than {limits.MOUNT_FOLDERS_MAX} folders.",
                todo="Name less in `code`.",
            )
        folders[:] = [name for name in folders if name not in PACKAGES]


def distributions(site: Path, module: str, digests: Digests) -> list[Unit]:
    """The Python package that holds `module`, and all that it needs, each as a unit; empty where
    no installed package holds it."""
    from importlib.metadata import Distribution
    from importlib.metadata import distributions as installed

    by_name: dict[str, Distribution] = {}
    for found in installed(path=[str(site)]):
        by_name.setdefault(_normal(found.metadata["Name"] or ""), found)
    top = module.partition(".")[0]
    first = next((name for name, d in by_name.items() if _holds(d, top)), None)
    if first is None:
        return []
    wanted, units = [first], []
    for name in wanted:  # It grows as it is gone through.
        for needed in _needed(by_name[name]):
            if needed in by_name and needed not in wanted:
                wanted.append(needed)
    for name in sorted(wanted):
        distribution = by_name[name]
        files = sorted(
            (str(file), Path(os.path.normpath(str(distribution.locate_file(file)))))
            for file in distribution.files or ()
            if not set(file.parts) & LEFT_OUT
        )
        units.append(digests.files(f"python:{name}", files, distribution.version))
    return units


def startup_files(site: Path, digests: Digests) -> Unit:
    """What Python runs of a site-packages folder before any program: `.pth`, `sitecustomize`."""
    names = [
        name
        for name in sorted(os.listdir(site))
        if name.endswith(".pth") or name in ("sitecustomize.py", "usercustomize.py")
    ]
    return digests.files("python:startup", [(name, site / name) for name in names])


def records(site: Path, digests: Digests) -> Unit:
    """Which packages are installed, by the lists that their installer wrote."""
    lists = sorted(site.glob("*.dist-info/RECORD"))
    return digests.files("python:installed", [(str(p.relative_to(site)), p) for p in lists])


def _holds(distribution: object, top: str) -> bool:
    files = getattr(distribution, "files", None) or ()
    return any(file.parts[0] in (top, f"{top}.py") for file in files)


def _needed(distribution: object) -> Iterator[str]:
    for requirement in getattr(distribution, "requires", None) or ():
        # Extras are left out: with them, tools for developers would come in by the dozen.
        if "extra ==" in requirement:
            continue
        if (match := re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)) is not None:
            yield _normal(match.group())


def _normal(name: str) -> str:
    return _NORMAL.sub("-", name).lower()
