"""Cedar's own tests, held against `cedarpy` called as policy.py calls it: with handles."""

import json
import os
import re
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from cedarpy import Entities, PolicySet, Schema

DATA = Path(os.environ.get("RING0_DATA") or Path(__file__).parents[3] / "shared" / "data")
VECTORS = DATA / "vectors" / "cedar"
HAND_WRITTEN = 74
CORPUS = 1_040
NUMBERED = re.compile(r"policy\d+")


@pytest.fixture(scope="module", autouse=True)
def vectors():
    if not VECTORS.is_dir():
        pytest.skip(f"no vectors in {VECTORS}: set RING0_DATA to the folder that has them")


def place(named: str) -> Path:
    return VECTORS / named.replace("corpus-tests/", "corpus/")


def files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((VECTORS / folder).rglob("*.json"))]
    return [path for path in found if not path.name.endswith(".entities.json")]


def decided(path: Path, *, entities_know_the_schema: bool = True) -> list[tuple[Any, Any]]:
    """For each request of a file: what came out, and what should have."""
    case = json.loads(path.read_text())
    text = place(case["policies"]).read_text()
    policies = PolicySet.from_str(text)
    schema = Schema.from_str(place(case["schema"]).read_text())
    entities = Entities.from_json_str(
        place(case["entities"]).read_text(), schema if entities_know_the_schema else None
    )
    found: list[tuple[Any, Any]] = [
        (bool(cedarpy.validate_policies(text, schema)), case["shouldValidate"])
    ]
    for asked in case["requests"]:
        request = {name: asked[name] for name in ("principal", "action", "resource")}
        request["context"] = json.dumps(asked["context"])
        known = schema if entities_know_the_schema else None
        result = cedarpy.is_authorized(request, policies, entities, known)
        errors = {name for line in result.diagnostics.errors for name in NUMBERED.findall(line)}
        got = (result.decision.value.lower(), sorted(result.diagnostics.reasons), errors)
        found.append((got, (asked["decision"], sorted(asked["reason"]), set(asked["errors"]))))
    return found


@pytest.mark.parametrize(("folder", "requests"), [("tests", HAND_WRITTEN), ("corpus", CORPUS)])
def test_every_request_of_cedars_own_tests_comes_out_as_it_should(folder, requests):
    count = 0
    for path in files(folder):
        validated, *results = decided(path)
        assert validated[0] == validated[1], path.name
        for got, wanted in results:
            assert got == wanted, path.name
        count += len(results)
    assert count == requests


def test_without_a_schema_a_reference_in_an_entity_is_a_record_and_decisions_change():
    wrong = [
        path.name
        for path in files("tests")
        for got, wanted in decided(path, entities_know_the_schema=False)[1:]
        if got[0] != wanted[0]
    ]
    assert len(wrong) == 8
