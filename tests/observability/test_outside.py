"""Journals that somebody changed, before a verifier that isn't ours: some of `ring0 bench tamper`.

Opt-in: it needs Go, which `make proof` installs into an environment of its own.
"""

from __future__ import annotations

import pytest
from bench import outside, tamper
from bench.tamperings import KINDS


def test_gos_own_verifier_finds_each_kind_of_tampering_and_nothing_after_the_last_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if outside.build() is None:
        pytest.skip("no Go here: `make proof`")
    monkeypatch.setattr(tamper, "TRIALS", 4 * len(KINDS))
    monkeypatch.setattr(tamper, "CONTROLS", 8)
    rows = {row["name"]: (row["value"], row["n"]) for row in tamper.run()}
    assert rows["found by x/mod/sumdb"] == (64, 64)
    assert rows["found by ring0 audit verify, log"] == (64, 64)
    assert rows["found without any checkpoint"] == (0, 64)
    assert rows["control, after the last checkpoint: found by x/mod/sumdb"] == (0, 8)
