"""What a manifest copies into a run's workspace at the start: host files, labelled untrusted."""

from __future__ import annotations

import os
from pathlib import Path

from ring0 import limits
from ring0.errors import CallInvalid, ManifestInvalid
from ring0.kernel.agents import LEFT_OUT, NEVER_READ
from ring0.store import address
from ring0.tools.workspace import canonical_path
from ring0.types import AgentManifest, FileDelta, Integrity, Label


def copied(manifest: AgentManifest, key: bytes, blobs: dict[str, bytes]) -> tuple[FileDelta, ...]:
    """The files of `[workspace] copy`; their contents go into `blobs`. Raises ManifestInvalid."""
    folder = Path(manifest.folder)
    deltas: list[FileDelta] = []
    total = 0
    for name in manifest.imports:
        for path in _files(folder, name):
            inside = str(path.relative_to(folder))
            content = path.read_bytes()
            total += len(content)
            if (
                len(content) > limits.WORKSPACE_FILE_SIZE_BYTES_MAX
                or total > limits.WORKSPACE_SIZE_BYTES_MAX
                or len(deltas) >= limits.WORKSPACE_FILES_MAX
            ):
                raise ManifestInvalid(
                    f"[workspace] copy: {inside} is too much.",
                    why=f"A workspace holds {limits.WORKSPACE_FILES_MAX} files of at most"
                    f" {limits.WORKSPACE_FILE_SIZE_BYTES_MAX} bytes,"
                    f" {limits.WORKSPACE_SIZE_BYTES_MAX} in all.",
                    todo="Name less.",
                )
            where = address(key, content)
            blobs[where] = content
            label = Label(integrity=Integrity.UNTRUSTED, sources=(inside,))
            try:
                deltas.append(
                    FileDelta(
                        path=canonical_path(inside),
                        blob=where,
                        size_bytes=len(content),
                        label=label,
                    )
                )
            except CallInvalid as error:
                raise ManifestInvalid(
                    f"[workspace] copy: {error.what}", why=error.why, todo="Rename the file."
                ) from None
    return tuple(deltas)


def _files(folder: Path, name: str) -> list[Path]:
    start = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or NEVER_READ & set(Path(name).parts):
        raise ManifestInvalid(
            f"[workspace] copy names {name!r}.",
            why="It copies what lies beneath the manifest's folder, and never"
            " files that hold secrets.",
            todo="Move it, or leave it out.",
        )
    if start.is_file() and not start.is_symlink():
        return [start]
    if not start.is_dir() or start.is_symlink():
        raise ManifestInvalid(
            f"[workspace] copy names {name!r}, and {start} is not there.",
            todo="Correct the path; a link is not followed.",
        )
    found = []
    for root, folders, files in os.walk(start):
        folders[:] = sorted(f for f in folders if f not in LEFT_OUT | NEVER_READ)
        found += [
            Path(root) / file
            for file in sorted(files)
            if file not in NEVER_READ and not (Path(root) / file).is_symlink()
        ]
    return found
