"""A repository that somebody sent, searched by `ring0 bisect`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ring0.kernel.replaying.searching import Repository
from ring0.runtime import Runtime

SIGNED = "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----\n\n"


def git(folder: Path, *words: str, given: str = "") -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], input=given, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


async def test_a_repositorys_own_program_is_not_started_to_read_a_commit(tmp_path: Path) -> None:
    """Its configuration may name one that checks signatures, and ask for it at each look."""
    mark, program = tmp_path / "started", tmp_path / "gpg.sh"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    folder = tmp_path / "sent"
    folder.mkdir()
    git(folder, "init", "-q")
    for name, value in (
        ("user.email", "a@b"),
        ("user.name", "a"),
        ("log.showSignature", "true"),
        ("gpg.program", str(program)),
    ):
        git(folder, "config", name, value)
    git(folder, "commit", "-q", "--allow-empty", "--no-gpg-sign", "-m", "one")
    head, _, message = git(folder, "cat-file", "commit", "HEAD").partition("\n\n")
    signed = git(
        folder, "hash-object", "-t", "commit", "-w", "--stdin", given=head + SIGNED + message
    )
    repository = await Repository.around(folder, Runtime())
    assert (await repository.told(signed)).strip() == "one"
    assert not mark.exists()
    git(folder, "log", "-1", "--format=%s", signed)
    assert mark.exists(), "and it would have been started"
