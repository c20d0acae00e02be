"""All SQL of the embedded store. The story of the data:

`event` is the journal: the exact bytes of each entry, its place in the Merkle log (`idx`, from 0
without a gap), its RFC 6962 leaf hash, and its name (run, seq). It is only ever appended to.
`blob` holds large or erasable values, by keyed digest (in the order in which they came: their
keys have none, and a tree of values would be written all over): as they are, as the list of their
parts (store/lists.py), or, of one that was archived, the run in whose file it lies; `run_key` the
keys, one a run. `archive` is a projection: which file holds the values of an ended run.
`tree` is one row: the size and the peaks of the Merkle tree, moved forward in each transaction.
The rest are projections, rebuilt from `event` by store/project.py: a row is the JSON of a struct
of types.py, and the columns beside it are what guards and lists ask for.
`record` is what is remembered, with the scope that every search must name, and beside each row what
its blob says of itself; `current`, `keyed`, `child` and `recalled` say which of them hold, are the
same, came of which; `window` where compaction stands. `record_terms` and `vector` (of the models in
`embedding`) are derived from records and are no projections: no event tells of them, and whatever
is missing there is made again. `scope_key` holds the secrets under which records are compared.
What is deleted is written over (PRAGMAS); wiping.py does the rest.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x52494E47  # "RING"
SCHEMA_VERSION: Final = 7
VALUE, LIST, ARCHIVED = 0, 1, 2
"""Forms of a blob."""

SCHEMA: Final = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE event (
    idx INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    seq INTEGER NOT NULL,
    leaf BLOB NOT NULL CHECK (length(leaf) = 32),
    body BLOB NOT NULL,
    UNIQUE (run, seq)
) STRICT;
CREATE TRIGGER event_is_kept BEFORE UPDATE ON event BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER event_stays BEFORE DELETE ON event BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TABLE blob (
    address TEXT PRIMARY KEY, form INTEGER NOT NULL, value BLOB NOT NULL
) STRICT;
CREATE TABLE run_key (run TEXT PRIMARY KEY, key BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE tree (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL,
    peaks BLOB NOT NULL, kernel_seq INTEGER NOT NULL) STRICT;
INSERT INTO tree VALUES (1, 0, x'', 0);
CREATE TABLE run (
    key TEXT PRIMARY KEY, state TEXT NOT NULL, parent TEXT NOT NULL, root TEXT NOT NULL,
    started_us INTEGER NOT NULL, wake_us INTEGER NOT NULL, row BLOB NOT NULL
) STRICT;
CREATE INDEX run_by_state ON run (state, started_us);
CREATE INDEX run_by_root ON run (root);
CREATE INDEX run_by_parent ON run (parent, state);
CREATE INDEX run_by_wake ON run (wake_us) WHERE wake_us > 0;
CREATE TABLE call (
    key TEXT PRIMARY KEY, run TEXT NOT NULL, seq INTEGER NOT NULL, state TEXT NOT NULL,
    row BLOB NOT NULL
) STRICT;
CREATE INDEX call_by_run ON call (run, seq);
CREATE TABLE approval (
    key TEXT PRIMARY KEY, run TEXT NOT NULL, state TEXT NOT NULL, asked_us INTEGER NOT NULL,
    row BLOB NOT NULL
) STRICT;
CREATE INDEX approval_by_state ON approval (state, asked_us);
CREATE TABLE standing (key TEXT PRIMARY KEY, given_us INTEGER NOT NULL, row BLOB NOT NULL) STRICT;
CREATE TABLE file (key TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE sandbox (key TEXT PRIMARY KEY, ended INTEGER NOT NULL, row BLOB NOT NULL) STRICT;
CREATE INDEX sandbox_alive ON sandbox (ended) WHERE ended = 0;
CREATE TABLE lock (
    key TEXT PRIMARY KEY, tenant TEXT NOT NULL, resource TEXT NOT NULL, run TEXT NOT NULL,
    row BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX lock_by_run ON lock (run);
CREATE INDEX lock_by_resource ON lock (tenant, resource);
CREATE TABLE message (
    key TEXT PRIMARY KEY, receiver TEXT NOT NULL, taken INTEGER NOT NULL, row BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX message_waiting ON message (receiver) WHERE taken = 0;
CREATE TABLE cap (key TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE tenant (key TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE cron (key TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE hook (key TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE login (key TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE setting (key TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE quarantine (key TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE archive (key TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE kill (key TEXT PRIMARY KEY, generation INTEGER NOT NULL, row BLOB NOT NULL) STRICT;
CREATE TABLE record (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL, principal TEXT NOT NULL, agent TEXT NOT NULL,
    act TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
    role TEXT NOT NULL, session TEXT NOT NULL, document TEXT NOT NULL,
    subject TEXT NOT NULL, predicate TEXT NOT NULL, fingerprint TEXT NOT NULL,
    at_us INTEGER NOT NULL, happened_us INTEGER NOT NULL, superseded_us INTEGER NOT NULL,
    valid_from_us INTEGER NOT NULL, valid_to_us INTEGER NOT NULL, integrity INTEGER NOT NULL,
    blob TEXT NOT NULL, row BLOB NOT NULL
) STRICT;
CREATE INDEX record_by_owner ON record (tenant, principal, agent);
CREATE INDEX record_of_people ON record (tenant, principal, agent) WHERE kind = 'directive';
CREATE INDEX record_by_act ON record (act);
CREATE INDEX record_by_blob ON record (blob);
CREATE INDEX record_by_session ON record (session, agent);
CREATE INDEX record_by_document ON record (document) WHERE document <> '';
CREATE INDEX record_by_subject ON record (subject) WHERE subject <> '';
CREATE INDEX record_by_fingerprint ON record (fingerprint) WHERE fingerprint <> '';
CREATE TABLE record_terms (
    number INTEGER PRIMARY KEY, length INTEGER NOT NULL, terms BLOB NOT NULL
) STRICT;
CREATE TABLE embedding (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE vector (
    model INTEGER NOT NULL, number INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (model, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE scope_key (
    tenant TEXT NOT NULL, principal TEXT NOT NULL, agent TEXT NOT NULL, key BLOB NOT NULL,
    PRIMARY KEY (tenant, principal, agent)
) STRICT, WITHOUT ROWID;
CREATE TABLE current (key TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE keyed (key TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE child (key TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE recalled (
    key TEXT PRIMARY KEY, run TEXT NOT NULL, record TEXT NOT NULL, seq INTEGER NOT NULL,
    row BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX recalled_by_record ON recalled (record);
CREATE INDEX recalled_by_run ON recalled (run, seq);
CREATE TABLE window (key TEXT PRIMARY KEY, row BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""

PRAGMAS: Final = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA trusted_schema = OFF;
PRAGMA wal_autocheckpoint = 2000;
PRAGMA cache_size = -16000;
PRAGMA temp_store = MEMORY;
PRAGMA secure_delete = ON;
"""
"""What is deleted is written over with zeroes, from the file's first page on: so no page that is
used again brings back what it held."""
WHOSE: Final = """
SELECT (SELECT application_id FROM pragma_application_id),
    (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)
"""
SCHEMA_OBJECTS: Final = "SELECT type, name, sql FROM main.sqlite_schema"

ADD_EVENT: Final = "INSERT INTO event (idx, run, seq, leaf, body) VALUES (?, ?, ?, ?, ?)"
ADD_BLOB: Final = "INSERT INTO blob VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
"""A value that is there stays as it is, and one that was archived stays in its archive."""
RETURN_BLOB: Final = f"""
INSERT INTO blob VALUES (?, ?, ?) ON CONFLICT (address) DO UPDATE
SET form = excluded.form, value = excluded.value WHERE form = {ARCHIVED}
"""
RUNS_KEYED: Final = "SELECT run FROM run_key WHERE key = ?"
MESSAGES_KEYED: Final = """
SELECT row FROM message WHERE json_extract(CAST(row AS TEXT), '$.key_of') = ?
"""
ERASE_BLOB: Final = "DELETE FROM blob WHERE address = ?"
FORGET_KEY: Final = "DELETE FROM run_key WHERE run = ?"
ARCHIVE_BLOB: Final = f"UPDATE blob SET form = {ARCHIVED}, value = ? WHERE address = ?"
FREE_PAGES: Final = "PRAGMA freelist_count"
GIVE_BACK_PAGES: Final = "PRAGMA incremental_vacuum({pages:d})"
ADD_KEY: Final = "INSERT INTO run_key VALUES (?, ?) ON CONFLICT DO NOTHING"
MOVE_TREE: Final = "UPDATE tree SET size = ?, peaks = ?, kernel_seq = ? WHERE one = 1"
TREE: Final = "SELECT size, peaks, kernel_seq FROM tree"
LEAVES: Final = "SELECT leaf FROM event ORDER BY idx"
LOG: Final = "SELECT idx, leaf, body FROM event ORDER BY idx"
LEAVES_BETWEEN: Final = "SELECT leaf FROM event WHERE idx >= ? AND idx < ? ORDER BY idx"
EVENT_COUNT: Final = "SELECT count(*), max(idx) FROM event"
LAST_EVENT: Final = "SELECT body FROM event ORDER BY idx DESC LIMIT 1"

GET: Final = {
    table: f"SELECT row FROM {table} WHERE key = ?"
    for table in (
        *("run", "call", "approval", "file", "sandbox", "kill"),
        *("lock", "message", "cap", "tenant", "cron", "hook"),
        *("login", "setting", "standing", "quarantine", "archive"),
        *("record", "current", "keyed", "child", "recalled", "window"),
    )
}
PUT: Final = {
    "run": "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
    " state = excluded.state, wake_us = excluded.wake_us, row = excluded.row",
    "call": "INSERT INTO call VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
    " state = excluded.state, row = excluded.row",
    "approval": "INSERT INTO approval VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
    " state = excluded.state, row = excluded.row",
    "standing": "INSERT INTO standing VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
    " row = excluded.row",
    "file": "INSERT INTO file VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET row = excluded.row",
    "sandbox": "INSERT INTO sandbox VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
    " ended = excluded.ended, row = excluded.row",
    "kill": "INSERT INTO kill VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
    " generation = excluded.generation, row = excluded.row",
    "lock": "INSERT INTO lock VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
    " run = excluded.run, row = excluded.row",
    "message": "INSERT INTO message VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
    " taken = excluded.taken, row = excluded.row",
    "cap": "INSERT INTO cap VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET row = excluded.row",
    "tenant": "INSERT INTO tenant VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET row = excluded.row",
    "cron": "INSERT INTO cron VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET row = excluded.row",
    "hook": "INSERT INTO hook VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET row = excluded.row",
    "login": "INSERT INTO login VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET row = excluded.row",
    "setting": "INSERT INTO setting VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET"
    " row = excluded.row",
    "quarantine": "INSERT INTO quarantine VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET"
    " row = excluded.row",
    "archive": "INSERT INTO archive VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET"
    " row = excluded.row",
    "current": "INSERT INTO current VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET"
    " row = excluded.row",
    "keyed": "INSERT INTO keyed VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET row = excluded.row",
    "child": "INSERT INTO child VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET row = excluded.row",
    "recalled": "INSERT INTO recalled VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
    " row = excluded.row",
    "window": "INSERT INTO window VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET row = excluded.row",
}
REMOVE: Final = {
    table: f"DELETE FROM {table} WHERE key = ?"
    for table in (
        *("file", "lock", "cron", "hook", "login", "quarantine", "archive"),
        *("current", "keyed", "child", "window"),
    )
}
"""From these a row can be taken away."""
COLUMNS: Final = {
    "run": ("state", "parent", "root", "started_us", "wake_us"),
    "call": ("run", "seq", "state"),
    "approval": ("run", "state", "asked_us"),
    "standing": ("given_us",),
    "file": (),
    "sandbox": ("ended",),
    "kill": ("generation",),
    "lock": ("tenant", "resource", "run"),
    "message": ("receiver", "taken"),
    "cap": (),
    "tenant": (),
    "cron": (),
    "hook": (),
    "login": (),
    "setting": (),
    "quarantine": (),
    "archive": (),
    "record": (
        *("tenant", "principal", "agent", "act", "seq", "kind", "state"),
        *("role", "session", "document", "subject", "predicate", "fingerprint"),
        *("at_us", "happened_us", "superseded_us", "valid_from_us", "valid_to_us"),
        *("integrity", "blob"),
    ),
    "current": (),
    "keyed": (),
    "child": (),
    "recalled": ("run", "record", "seq"),
    "window": (),
}
"""What lies beside each row, as a copy of what the row says."""
ALL_ROWS: Final = {
    table: f"SELECT {', '.join(('key', 'row', *columns))} FROM {table}"
    for table, columns in COLUMNS.items()
}

CHECK_FILE: Final = "PRAGMA main.integrity_check(20)"

KILL_GENERATION: Final = "SELECT coalesce(max(generation), 0) FROM kill"
ASKS_PENDING: Final = """
SELECT count(*) FROM approval JOIN run ON run.key = approval.run
WHERE approval.state = 'pending' AND run.root = ?
"""

STANDINGS: Final = "SELECT row FROM standing ORDER BY given_us, key"
LOCKS: Final = "SELECT row FROM lock WHERE resource <> '' ORDER BY key"
LOCKS_OF_RUN: Final = "SELECT row FROM lock WHERE run = ? AND resource <> '' ORDER BY key"
LOCKS_OF_TENANT: Final = "SELECT row FROM lock WHERE tenant = ? AND resource <> '' ORDER BY key"
LOCKS_ON: Final = "SELECT row FROM lock WHERE tenant = ? AND resource = ?"
MESSAGES: Final = "SELECT row FROM message WHERE receiver = ? ORDER BY key"
MESSAGES_WAITING: Final = "SELECT row FROM message WHERE receiver = ? AND taken = 0 ORDER BY key"
CRONS: Final = "SELECT row FROM cron ORDER BY key"
HOOKS: Final = "SELECT row FROM hook ORDER BY key"
LOGINS: Final = "SELECT row FROM login ORDER BY key"
SETTINGS: Final = "SELECT row FROM setting ORDER BY key"
ARCHIVES: Final = "SELECT row FROM archive ORDER BY key"
FORKED: Final = """
SELECT DISTINCT json_extract(CAST(row AS TEXT), '$.forked') AS forked FROM run
WHERE forked IS NOT NULL AND forked <> ''
"""
ENDED_RUNS: Final = """
SELECT key FROM run WHERE state IN ({states}) AND started_us <= ?
AND key NOT IN (SELECT key FROM archive) ORDER BY started_us, key
"""
TENANTS: Final = "SELECT row FROM tenant ORDER BY key"
QUARANTINES: Final = "SELECT row FROM quarantine ORDER BY key"
RUNS_DUE: Final = "SELECT row FROM run WHERE wake_us > 0 AND wake_us <= ? ORDER BY wake_us LIMIT ?"
NEXT_WAKE: Final = "SELECT coalesce(min(wake_us), 0) FROM run WHERE wake_us > 0"

RUN_KEY: Final = "SELECT key FROM run_key WHERE run = ?"
KEYS: Final = "SELECT run, key FROM run_key"
RUNS_NAMED: Final = "SELECT key FROM run WHERE key >= ? AND key < ? LIMIT 3"
CALLS: Final = "SELECT row FROM call WHERE run = ? ORDER BY seq"
FILES: Final = "SELECT row FROM file WHERE key >= ? AND key < ? ORDER BY key"
SANDBOXES_ALIVE: Final = "SELECT row FROM sandbox WHERE ended = 0"
HAS_BLOB: Final = f"SELECT 1 FROM blob WHERE address = ? AND form <> {ARCHIVED}"
BLOB: Final = "SELECT form, value FROM blob WHERE address = ?"
BLOBS: Final = f"""
SELECT address, value FROM blob WHERE address > ? AND form = {VALUE} ORDER BY address LIMIT ?
"""
EVENTS: Final = "SELECT idx, run, seq, leaf, body FROM event WHERE idx > ? ORDER BY idx LIMIT ?"
EVENTS_OF_RUN: Final = """
SELECT idx, run, seq, leaf, body FROM event WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?
"""
ALL_BLOBS: Final = "SELECT address, form, value FROM blob"
CALL_IN_STATE: Final = "SELECT 1 FROM call WHERE run = ? AND state = ? LIMIT 1"
BLOB_SIZE: Final = f"""
SELECT length(value), CASE form WHEN {LIST} THEN value ELSE x'' END FROM blob
WHERE address = ? AND form <> {ARCHIVED}
"""
LISTS: Final = f"SELECT address, value FROM blob WHERE form = {LIST}"
ALL_EVENTS: Final = "SELECT idx, run, seq, leaf, body FROM event ORDER BY idx"
