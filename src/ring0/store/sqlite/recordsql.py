"""The SQL of what is remembered, and of what is derived from it. The tables are in sql.py."""

from __future__ import annotations

from typing import Final

from ring0.store.sqlite.sql import COLUMNS, VALUE

ADD: Final = f"""
INSERT INTO record (key, row, {", ".join(COLUMNS["record"])})
VALUES (?, ?{", ?" * len(COLUMNS["record"])})
"""
MOVE: Final = """
UPDATE record SET row = ?, state = ?, superseded_us = ?, valid_to_us = ? WHERE key = ?
"""
"""All that can change of a row."""
REMOVE: Final = (
    "DELETE FROM record_terms WHERE number = (SELECT number FROM record WHERE key = ?)",
    """DELETE FROM vector WHERE number = (SELECT number FROM record WHERE key = ?)
    AND model IN (SELECT id FROM embedding)""",
    "DELETE FROM record WHERE key = ?",
)
REMOVE_BLOB: Final = """
DELETE FROM blob WHERE address = ?1 AND NOT EXISTS (SELECT 1 FROM record WHERE blob = ?1)
"""
REMOVE_ACT_KEY: Final = """
DELETE FROM run_key WHERE run = ?1 AND NOT EXISTS (SELECT 1 FROM record WHERE act = ?1)
"""
REMOVE_SCOPE_KEY: Final = """
DELETE FROM scope_key WHERE tenant = ?1 AND principal = ?2 AND agent = ?3 AND NOT EXISTS (
    SELECT 1 FROM record WHERE tenant = ?1 AND principal = ?2 AND agent = ?3
)
"""
ADD_SCOPE_KEY: Final = "INSERT INTO scope_key VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
SCOPE_KEY: Final = "SELECT key FROM scope_key WHERE tenant = ? AND principal = ? AND agent = ?"

# A `+` before a column: not by its index, another one leads to fewer rows.
_READ: Final = f"""
SELECT record.number, record.row, blob.value FROM record
JOIN blob ON blob.address = record.blob AND blob.form = {VALUE}
"""
ONE: Final = _READ + "WHERE record.key = ?"
LIST: Final = _READ + "WHERE {where} ORDER BY record.number DESC LIMIT ?"
"""`where`: equalities of columns, and placeholders; nothing from outside is put into it."""
FAILURES: Final = (
    _READ
    + """WHERE record.fingerprint = ? AND record.fingerprint <> ''
AND +tenant = ? AND +principal = ? AND +agent = ?
ORDER BY record.number DESC LIMIT ?"""
)
NUMBER: Final = "SELECT number FROM record WHERE key = ?"
NEWEST: Final = "SELECT coalesce(max(number), 0) FROM record"
SEEN: Final = """
SELECT record FROM recalled WHERE run = ? AND seq <= ? ORDER BY seq DESC, record LIMIT ?
"""
RECALLED: Final = "SELECT record FROM recalled WHERE run = ? ORDER BY seq, record"
RECALLERS: Final = "SELECT run FROM recalled WHERE record = ? ORDER BY run"
CHILDREN: Final = """
SELECT substr(child.key, length(?1) + 2) FROM child
WHERE child.key >= ?1 || char(10) AND child.key < ?1 || char(11)
"""
WRITTEN_AFTER: Final = """
SELECT record.key FROM recalled JOIN record ON record.act = recalled.run
WHERE recalled.record = ? AND record.seq >= recalled.seq
"""
SCOPES: Final = """
SELECT tenant, principal, agent, count(*), coalesce(sum(length(value)), 0), max(at_us)
FROM record JOIN blob ON blob.address = record.blob
GROUP BY tenant, principal, agent ORDER BY tenant, principal, agent
"""
LOAD: Final = """
SELECT record.number, record.key, kind, role, session, act, at_us, happened_us, state,
    superseded_us, valid_from_us, valid_to_us, integrity, record_terms.terms,
    coalesce(record_terms.length, 0), vector.value, NULL
FROM record
LEFT JOIN record_terms ON record_terms.number = record.number
LEFT JOIN vector ON vector.model = ? AND vector.number = record.number
WHERE tenant = ? AND principal = ? AND agent = ? AND record.number > ?
ORDER BY record.number LIMIT ?
"""
TEXT: Final = _READ + "WHERE record.number = ?"
MODEL: Final = "SELECT id FROM embedding WHERE name = ?"
ADD_MODEL: Final = "INSERT INTO embedding (name) VALUES (?) ON CONFLICT DO NOTHING"
UNINDEXED: Final = """
SELECT record.number FROM record WHERE record.number > ?1 AND record.number <= ?2 AND (
    NOT EXISTS (SELECT 1 FROM record_terms WHERE record_terms.number = record.number)
    OR (?3 >= 0 AND NOT EXISTS (
        SELECT 1 FROM vector WHERE vector.model = ?3 AND vector.number = record.number
    ))
) ORDER BY record.number LIMIT ?4
"""
PREVIOUS: Final = (
    _READ
    + """JOIN record AS mine ON mine.session = record.session AND mine.agent = record.agent
AND mine.tenant = +record.tenant AND mine.principal = +record.principal
WHERE mine.number = ? AND record.number < mine.number ORDER BY record.number DESC LIMIT 1"""
)
ROLE: Final = "SELECT role FROM record WHERE number = ?"
OF_ACT: Final = "SELECT key FROM record WHERE act = ? ORDER BY number"
ADD_TERMS: Final = """
INSERT INTO record_terms SELECT number, ?2, ?3 FROM record WHERE number = ?1
ON CONFLICT (number) DO UPDATE SET length = excluded.length, terms = excluded.terms
"""
ADD_VECTOR: Final = """
INSERT INTO vector SELECT ?1, number, ?3 FROM record WHERE number = ?2
ON CONFLICT (model, number) DO UPDATE SET value = excluded.value
"""
VECTOR_MODELS: Final = """
SELECT name, (SELECT count(*) FROM vector WHERE model = id) FROM embedding
"""
DROP_VECTORS: Final = """
DELETE FROM vector WHERE (model, number) IN (
    SELECT model, number FROM vector WHERE model <> ? LIMIT ?
)
"""
DROP_MODELS: Final = """
DELETE FROM embedding WHERE name <> ? AND NOT EXISTS (SELECT 1 FROM vector WHERE model = id)
"""
ALL_TERMS: Final = """
SELECT record_terms.number, record.key, record.row, blob.value, record_terms.length,
    record_terms.terms
FROM record_terms LEFT JOIN record ON record.number = record_terms.number
LEFT JOIN blob ON blob.address = record.blob
"""
STRAY_VECTORS: Final = """
SELECT vector.number FROM vector LEFT JOIN record ON record.number = vector.number
WHERE record.number IS NULL OR model NOT IN (SELECT id FROM embedding)
"""
SCOPE_KEYS: Final = "SELECT tenant, principal, agent FROM scope_key"
