"""The samples of eclipse-biscuit/biscuit: the library that our tokens rest on judges them alike."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import biscuit_auth as biscuit
import pytest

DATA = Path(os.environ.get("RING0_DATA") or Path(__file__).parents[3] / "shared" / "data")
FOLDER = DATA / "vectors" / "biscuit"
SAMPLES = FOLDER / "samples.json"
FAULTS = (
    biscuit.BiscuitValidationError,
    biscuit.BiscuitSerializationError,
    biscuit.DataLogError,
    ValueError,
)


def extern_test(left: Any, right: Any = None) -> Any:
    """The function that sample 35 calls."""
    if right is None:
        return left
    return "equal strings" if left == right else "different strings"


def cases() -> list[Any]:
    if not SAMPLES.exists():
        return []
    samples = json.loads(SAMPLES.read_text())
    return [
        pytest.param(samples, case, said, id=f"{case['filename']}-{name}")
        for case in samples["testcases"]
        for name, said in case["validations"].items()
    ]


def judged(samples: Any, case: Any, said: Any) -> tuple[str, Any]:
    raw = (FOLDER / case["filename"]).read_bytes()
    try:
        root = biscuit.PublicKey("ed25519/" + samples["root_public_key"])
        token = biscuit.Biscuit.from_bytes(raw, root)
    except FAULTS:
        return "format", None
    assert token.revocation_ids == said["revocation_ids"]
    builder: Any = biscuit.AuthorizerBuilder(said["authorizer_code"])
    builder.register_extern_func("test", extern_test)
    bounds = builder.limits()
    bounds.max_time = timedelta(milliseconds=500)
    builder.set_limits(bounds)
    try:
        return "ok", builder.build(token).authorize()
    except biscuit.AuthorizationError as error:
        return "refused", str(error)
    except FAULTS as error:
        return "refused", str(error)


CASES = cases()


@pytest.mark.skipif(not CASES, reason=f"no vectors in {FOLDER}: set RING0_DATA to the folder")
def test_all_fifty_samples_are_there() -> None:
    assert len(CASES) == 50


@pytest.mark.parametrize(("samples", "case", "said"), CASES)
def test_a_sample_is_judged_as_its_authors_say(samples: Any, case: Any, said: Any) -> None:
    how, what = judged(samples, case, said)
    result = said["result"]
    if "Ok" in result:
        assert (how, what) == ("ok", result["Ok"])
        return
    (kind,) = result["Err"]
    assert how == ("format" if kind == "Format" else "refused")
    if kind == "FailedLogic" and "Unauthorized" in result["Err"][kind]:
        for check in result["Err"][kind]["Unauthorized"]["checks"]:
            (one,) = check.values()
            assert one["rule"] in what
