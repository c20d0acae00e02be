"""Whatever changes: a plan changes nothing and tells each row, and undo restores them exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import postgres_world
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres_world import Shop, counts

from ring0 import errors

SCHEMA = (
    "CREATE TABLE node(id int PRIMARY KEY, up int REFERENCES node ON DELETE CASCADE"
    " ON UPDATE CASCADE, v int UNIQUE, w text DEFAULT 'w')",
    "CREATE TABLE leaf(a int, b text, node int REFERENCES node ON DELETE SET NULL"
    " ON UPDATE CASCADE, PRIMARY KEY (b, a))",
    "CREATE TABLE part(id int PRIMARY KEY, x int) PARTITION BY RANGE (id)",
    "CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (MINVALUE) TO (5)",
    "CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (5) TO (MAXVALUE)",
    """CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS
       $$ BEGIN IF TG_OP <> 'INSERT' THEN DELETE FROM part WHERE id = OLD.a; END IF;
          IF TG_OP <> 'DELETE' AND NEW.a < 9 THEN
             INSERT INTO part VALUES (NEW.a, 1) ON CONFLICT (id) DO UPDATE SET x = part.x + 1;
          END IF; RETURN NULL; END $$""",
    "CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON leaf"
    " FOR EACH ROW EXECUTE FUNCTION follow()",
    "INSERT INTO node SELECT i, nullif(i / 2, 0), i * 10 FROM generate_series(1, 9) i",
    "INSERT INTO leaf SELECT i, 'b' || i % 3, 1 + i % 9 FROM generate_series(1, 12) i",
    "INSERT INTO part SELECT i, i FROM generate_series(1, 9) i ON CONFLICT DO NOTHING",
)
KEYS = {"node": "id", "leaf": "b || '/' || a", "part": "id"}

number = st.integers(0, 12)
table = st.sampled_from(["node", "leaf", "part"])
column = {"node": ["id", "up", "v"], "leaf": ["a", "node"], "part": ["id", "x"]}
key = {"node": "id", "leaf": "a", "part": "id"}


@st.composite
def where(draw: Any, name: str) -> str:
    left = draw(st.sampled_from(column[name]))
    operator = draw(st.sampled_from(["=", "<", ">", "IS DISTINCT FROM"]))
    return f"{name}.{left} {operator} {draw(number)}"


@st.composite
def statement(draw: Any) -> str:
    name = draw(table)
    kind = draw(st.sampled_from(["delete", "update", "insert", "upsert", "with"]))
    condition = draw(where(name))
    if kind == "delete":
        return f"DELETE FROM {name} WHERE {condition}"
    if kind == "update":
        target = draw(st.sampled_from(column[name]))
        value = draw(st.sampled_from([f"{target} + 20", f"{target}", f"{draw(number)}", "NULL"]))
        return f"UPDATE {name} SET {target} = {value} WHERE {condition}"
    if kind == "with":
        other = draw(table)
        return (
            f"WITH gone AS (DELETE FROM {name} WHERE {condition} RETURNING {key[name]} AS k)"
            f" UPDATE {other} SET {column[other][-1]} = gone.k + 50 FROM gone"
            f" WHERE {other}.{key[other]} = gone.k + 1"
        )
    rows = {
        "node": "SELECT i, nullif(i % 9, 0), i + 100, 'n'"
        f" FROM generate_series({draw(number)}, 13) i",
        "leaf": f"SELECT i, 'b1', 1 FROM generate_series({draw(number)}, 14) i",
        "part": f"SELECT i, i FROM generate_series({draw(number)}, 14) i",
    }[name]
    conflict = {"node": "(id)", "leaf": "(b, a)", "part": "(id)"}[name]
    target = column[name][-1]
    tail = f" ON CONFLICT {conflict} DO UPDATE SET {target} = excluded.{target} + 1"
    return f"INSERT INTO {name} {rows}" + (tail if kind == "upsert" else "")


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    postgres_world.require()
    with postgres_world.running() as world:
        yield world.fresh(*SCHEMA)


def content(shop: Shop) -> dict[str, dict[str, str]]:
    return {
        name: {str(k): row for k, row in shop.rows(f"SELECT {k}, t::text FROM {name} t")}
        for name, k in KEYS.items()
    }


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=statement())
def test_a_plan_tells_all_an_execution_does_it_and_undo_restores(shop: Shop, text: str) -> None:
    before = content(shop)
    try:
        plan = shop.plan(text)
    except errors.CallInvalid:
        assert content(shop) == before
        return
    assert content(shop) == before, "a plan changes nothing"
    done = shop.execute(text, plan.digest)
    after = content(shop)
    told = counts(plan.changes)
    for name in KEYS:
        inserted, updated, deleted = told.get(name, (0, 0, 0))
        new = after[name].keys() - before[name].keys()
        gone = before[name].keys() - after[name].keys()
        changed = {
            k for k in after[name].keys() & before[name] if after[name][k] != before[name][k]
        }
        assert len(new) - len(gone) == inserted - deleted
        assert len(new) + len(changed) <= inserted + updated
        assert len(gone) + len(changed) <= updated + deleted
    if plan.reversible:
        shop.undo(done.images)
        assert content(shop) == before
    else:
        assert plan.why_irreversible
        shop.run(
            "TRUNCATE node, leaf, part",
            *(part for part in SCHEMA if part.startswith("INSERT")),
        )
