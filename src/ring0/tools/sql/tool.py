"""The built-in tool `sql`: one database, read and changed only as its engine says.

`NAME.query` reads; `NAME.execute` changes rows after a dry run that is rolled back, and keeps what
takes the change back. What a statement does is decided by the engine (sqlite/,
postgres/), never by its text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ring0.errors import ManifestInvalid, Ring0Error
from ring0.runtime import Runtime
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.tools.sql import databases as sql_databases
from ring0.tools.sql.databases import Database, Secret, SqlConfig
from ring0.tools.sql.plan import Plan, Rows, RowSample
from ring0.tools.sql.sqlite.moment import Moment
from ring0.tools.sql.watch import Watch, settled
from ring0.types import Effect, Integrity, Label, ToolManifest

_CRITICAL = ("statement", "parameters")


def _schema(marks: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "statement": {"type": "string", "description": "One SQL statement."},
            "parameters": {
                "type": "array",
                "items": {"type": ["string", "number", "null", "boolean"]},
                "description": marks,
            },
        },
        "required": ["statement"],
        "additionalProperties": False,
    }


class _Sql:
    """What both operations have: a database, and the secret that opens it."""

    def __init__(self, database: Database, runtime: Runtime, secret: Secret | None) -> None:
        self._database = database
        self._runtime = runtime
        self._secret = secret

    async def _query(self, args: dict[str, Any]) -> Rows:
        engine, watch = self._database.unlocked(self._secret), Watch(self._runtime)
        work = partial(engine.query, args, watch)
        return await settled(self._runtime, watch, work, effect=False)


class SqlQuery(_Sql):
    """`NAME.query`: rows of a SELECT, where nothing can be written."""

    def __init__(
        self,
        instance: str,
        config: SqlConfig,
        database: Database,
        runtime: Runtime,
        secret: Secret | None,
    ) -> None:
        super().__init__(database, runtime, secret)
        self.manifest = ToolManifest(
            name=f"{instance}.query",
            schema=_schema(database.marks),
            effect=Effect.PURE,
            output=Integrity(config.output),
            description="Read rows from the database with one SQL SELECT.",
            critical=(),
        )

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        return Prepared(driver_bytes=msgspec.json.encode(args, order="sorted"), own=False)

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        rows = await self._query(args)
        value = {"columns": list(rows.columns), "rows": rows.rows, "truncated": rows.truncated}
        return Result(value=value, label=_label(self.manifest, context))


class SqlExecute(_Sql):
    """`NAME.execute`: changes rows; held, dry-run and reversible."""

    def __init__(
        self,
        instance: str,
        config: SqlConfig,
        database: Database,
        runtime: Runtime,
        secret: Secret | None,
    ) -> None:
        super().__init__(database, runtime, secret)
        self.manifest = ToolManifest(
            name=f"{instance}.execute",
            schema=_schema(database.marks),
            effect=Effect.ONCE,
            output=Integrity(config.output),
            description="Change rows of the database with one SQL statement.",
            reversal="reversible",
            critical=_CRITICAL,
            statements=("statement",),
        )

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        try:
            plan = await self._plan(args, context)
        except Ring0Error as error:
            # "bad JSON path: 'the text of a row'": an engine's message can carry what it read.
            error.tells_of_data = True
            raise
        changes = plan.changes
        return Prepared(
            driver_bytes=msgspec.json.encode(args, order="sorted"),
            own=False,
            mutates=plan.kind != "read",
            effect=Effect.PURE if plan.kind == "read" else "",
            changes_schema=plan.kind == "schema",
            forbidden=plan.why if plan.kind == "forbidden" else "",
            rows=(rows := sum(c.inserted + c.updated + c.deleted for c in changes)),
            amounts={"rows": rows},
            tables=tuple(change.table for change in changes),
            lines=_lines(plan),
            digest=plan.digest,
            reversal="reversible" if plan.reversible else f"irreversible: {plan.why_irreversible}",
            touches=sql_databases.touched(self._database, (one.table for one in changes)),
            state=plan.kind,
            copies=plan.copies,
        )

    async def _plan(self, args: dict[str, Any], context: CallContext) -> Plan:
        engine, watch = self._database.unlocked(self._secret), Watch(self._runtime)
        work = partial(engine.plan, args, _moment(context), watch)
        return await settled(self._runtime, watch, work, effect=False)

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        if prepared.state == "read":
            rows = await self._query(args)
            return Result(
                value={"columns": list(rows.columns), "rows": rows.rows},
                label=_label(self.manifest, context),
            )
        engine, watch = self._database.unlocked(self._secret), Watch(self._runtime)
        work = partial(engine.execute, args, prepared.digest, _moment(context), watch)
        done = await settled(self._runtime, watch, work, effect=True)
        value: dict[str, Any] = {
            "changed": {
                change.table: {
                    key: count
                    for key in ("inserted", "updated", "deleted")
                    if (count := getattr(change, key))
                }
                for change in done.changes
            }
        }
        label = Label(integrity=Integrity.SYSTEM)  # Names of tables, and what was counted.
        if done.rows is not None and done.rows.rows:
            value["rows"] = done.rows.rows
            label = _label(self.manifest, context)
        undo = sql_databases.evidence(self._database, done.images)
        return Result(value=value, label=label, undo=undo if done.images else b"")


def touched(evidence: bytes, tables: Iterable[str]) -> tuple[str, ...]:
    """What putting back rows of these tables touches. Raises UndoRefused."""
    database, _ = sql_databases.read_evidence(evidence)
    return sql_databases.touched(database, tables)


async def undo(evidence: bytes, runtime: Runtime, secret: Secret | None = None) -> dict[str, Any]:
    """Puts rows back as they were. Raises UndoRefused where one has changed since."""
    database, images = sql_databases.read_evidence(evidence)
    watch = Watch(runtime)
    work = partial(database.unlocked(secret).undo, images, watch)
    changes = await settled(runtime, watch, work, effect=True)
    return {"restored": {c.table: c.inserted + c.updated + c.deleted for c in changes}}


async def rehearse_undo(
    several: Sequence[bytes], runtime: Runtime, secret: Secret | None = None
) -> list[str]:
    """Of each, one after another: why it can't be taken back; empty where it can. What comes after
    one of the same database that can't be is not tried. Nothing is changed."""
    of: dict[Database, list[int]] = {}
    kept = [sql_databases.read_evidence(evidence) for evidence in several]
    for place, (database, _) in enumerate(kept):
        of.setdefault(database, []).append(place)
    found = [""] * len(several)
    for database, places in of.items():
        images = [kept[place][1] for place in places]
        watch = Watch(runtime)
        work = partial(database.unlocked(secret).rehearse_undo, images, watch)
        restorable = await settled(runtime, watch, work, effect=False)
        if restorable.why:
            found[places[restorable.done]] = restorable.why
    return found


def drivers(
    instance: str,
    config: dict[str, Any],
    folder: Path,
    runtime: Runtime,
    off_limits: Path,
    secret: Secret | None = None,
) -> list[Any]:
    """The two operations of one `sql` instance. Raises ManifestInvalid.

    off_limits: ring0's own data folder; nothing in it is ever an agent's.
    secret: gives the value of a named secret, each time that it is needed.
    """
    try:
        settings = msgspec.convert(config, SqlConfig)
    except msgspec.ValidationError as error:
        raise ManifestInvalid(
            f"[tools.{instance}] is not a `sql` tool: {error}.",
            todo='It needs `database = "file.db"` or `url = "postgresql://user@host/database"`.',
        ) from None
    database = sql_databases.configured(instance, settings, folder, off_limits)
    kinds = (SqlQuery, SqlExecute)
    return [kind(instance, settings, database, runtime, secret) for kind in kinds]


def _label(manifest: ToolManifest, context: CallContext) -> Label:
    """A result is no better than the run that asked: a query can echo what it was given."""
    name = f"{manifest.name}@{context.call}"
    own = Label(integrity=manifest.output, sources=(name,))
    return own.join(context.run.label.bare)


def _lines(plan: Plan) -> tuple[str, ...]:
    """The dry run in words: every table, and a few of its rows."""
    if plan.kind != "write":
        return (plan.why,) if plan.why else ()
    lines = []
    for change in plan.changes:
        parts = [
            f"{count} {verb}"
            for verb, count in (
                ("inserted", change.inserted),
                ("updated", change.updated),
                ("deleted", change.deleted),
            )
            if count
        ]
        lines.append(f"{change.table}: {', '.join(parts)}")
    for sample in plan.sample:
        lines.append(f"  {sample.op} {sample.table} {_sample(sample)}")
    lines += plan.notes
    return tuple(lines) or ("no row would change",)


def _sample(sample: RowSample) -> str:
    """A row in words; of an UPDATE first what changes, from what to what."""
    row = msgspec.json.encode(sample.row).decode()
    if not sample.changed:
        return row[:200]
    moves = ", ".join(
        f"{column}: {json_text(sample.row.get(column))} -> {json_text(new)}"
        for column, new in sample.changed.items()
    )
    return f"{moves[:300]}  of {row[:120]}"


def json_text(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:120]


def _moment(context: CallContext) -> Moment:
    """The clock and the dice of a statement stand still from its rehearsal to its execution."""
    return Moment(now_us=context.begun_us, seed=context.call.encode())


__all__ = ["SqlConfig", "drivers", "rehearse_undo", "touched", "undo"]
