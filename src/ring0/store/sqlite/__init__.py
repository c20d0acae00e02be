"""The embedded store: one SQLite file, no server."""

from ring0.store.sqlite.opening import HEAD, JOURNAL, RESERVE, create_tables, open_store
from ring0.store.sqlite.store import SqliteStore

__all__ = ["HEAD", "JOURNAL", "RESERVE", "SqliteStore", "create_tables", "open_store"]
