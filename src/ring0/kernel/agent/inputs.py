"""What a manifest copies into a run's workspace at the start: host files, labelled untrusted."""

from __future__ import annotations

from pathlib import Path

from ring0 import limits
from ring0.errors import CallInvalid, ManifestInvalid
from ring0.kernel.agent import hostfiles
from ring0.store import address
from ring0.tools.workspace import canonical_path
from ring0.types import AgentManifest, FileDelta, Integrity, Label

_COPY = hostfiles.Taken(
    key="[workspace] copy",
    files_max=limits.WORKSPACE_FILES_MAX,
    file_size_bytes_max=limits.WORKSPACE_FILE_SIZE_BYTES_MAX,
    size_bytes_max=limits.WORKSPACE_SIZE_BYTES_MAX,
)


def copied(
    manifest: AgentManifest, key: bytes, blobs: dict[str, bytes], store_folder: Path
) -> tuple[FileDelta, ...]:
    """The files of `[workspace] copy`; their contents go into `blobs`. `store_folder`: of the
    snapshots, in ring0's data folder, of which nothing is copied. Raises ManifestInvalid."""
    deltas: list[FileDelta] = []
    found = hostfiles.read(manifest.folder, manifest.imports, _COPY, store_folder)
    for inside, content in found.items():
        where = address(key, content)
        blobs[where] = content
        label = Label(integrity=Integrity.UNTRUSTED, sources=(inside,))
        try:
            path = canonical_path(inside)
        except CallInvalid as error:
            raise ManifestInvalid(
                f"[workspace] copy: {error.what}", why=error.why, todo="Rename the file."
            ) from None
        deltas.append(FileDelta(path=path, blob=where, size_bytes=len(content), label=label))
    return tuple(deltas)


def given(
    files: tuple[tuple[str, bytes, Label], ...], key: bytes, blobs: dict[str, bytes]
) -> tuple[FileDelta, ...]:
    """Files that come with a run, in place of copied ones of the same path."""
    deltas = []
    for path, content, label in files:
        where = address(key, content)
        blobs[where] = content
        deltas.append(FileDelta(path=path, blob=where, size_bytes=len(content), label=label))
    return tuple(deltas)
