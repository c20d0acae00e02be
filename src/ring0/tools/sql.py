"""The built-in tool `sql`: one SQLite database, read and changed only as the engine says.

`NAME.query` reads; `NAME.execute` changes rows after a dry run that is rolled back, and keeps what
takes the change back. What a statement does is decided by sqlite_engine.py, never by its text.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid, Ring0Error
from ring0.runtime import Runtime
from ring0.tools import sqlite_engine as engine
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.tools.sqlite_images import RowSample
from ring0.tools.sqlite_moment import Moment
from ring0.types import Effect, Integrity, Label, ToolManifest

_SCHEMA = {
    "type": "object",
    "properties": {
        "statement": {"type": "string", "description": "One SQL statement."},
        "parameters": {
            "type": "array",
            "items": {"type": ["string", "number", "null", "boolean"]},
            "description": "Values for the ? in the statement, in order.",
        },
    },
    "required": ["statement"],
    "additionalProperties": False,
}
_TABLES = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')"
_CRITICAL = ("statement", "parameters")


class SqlConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`[tools.NAME]` with `use = "sql"`."""

    use: str
    database: str
    """Path of the file, from the manifest's folder."""
    output: Literal["untrusted", "trusted-field"] = "untrusted"
    """What the text in its tables is worth."""


class SqlQuery:
    """`NAME.query`: rows of a SELECT, on a connection that can't write."""

    def __init__(self, instance: str, config: SqlConfig, database: str, runtime: Runtime) -> None:
        self.manifest = ToolManifest(
            name=f"{instance}.query",
            schema=_SCHEMA,
            effect=Effect.PURE,
            output=Integrity(config.output),
            description="Read rows from the database with one SQL SELECT.",
            critical=(),
        )
        self._database = database
        self._runtime = runtime

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        return Prepared(driver_bytes=msgspec.json.encode(args, order="sorted"), own=False)

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        rows = await self._runtime.in_thread(
            partial(engine.query, is_over=_deadline(self._runtime)),
            self._database,
            args["statement"],
            args.get("parameters", []),
        )
        value = {"columns": list(rows.columns), "rows": rows.rows, "truncated": rows.truncated}
        return Result(value=value, label=_label(self.manifest, context))


class SqlExecute:
    """`NAME.execute`: changes rows; held, dry-run and reversible."""

    def __init__(self, instance: str, config: SqlConfig, database: str, runtime: Runtime) -> None:
        self.manifest = ToolManifest(
            name=f"{instance}.execute",
            schema=_SCHEMA,
            effect=Effect.ONCE,
            output=Integrity(config.output),
            description="Change rows of the database with one SQL statement.",
            reversal="reversible",
            critical=_CRITICAL,
            statements=("statement",),
        )
        self._database = database
        self._runtime = runtime

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        try:
            plan = await self._runtime.in_thread(
                partial(engine.plan, moment=_moment(context), is_over=_deadline(self._runtime)),
                self._database,
                args["statement"],
                args.get("parameters", []),
            )
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
            rows=sum(change.inserted + change.updated + change.deleted for change in changes),
            tables=tuple(change.table for change in changes),
            lines=_lines(plan),
            digest=plan.digest,
            reversal="reversible" if plan.reversible else f"irreversible: {plan.why_irreversible}",
            state=plan.kind,
            copies=await self._copies(plan),
        )

    async def _copies(self, plan: engine.Plan) -> bool:
        """Whether it takes values from a table that it does not change."""
        elsewhere = set(plan.reads) - {change.table for change in plan.changes}
        writes = any(change.inserted or change.updated for change in plan.changes)
        if not writes or not elsewhere:  # A delete writes nothing: its cascades read elsewhere.
            return False
        rows = await self._runtime.in_thread(
            partial(engine.query, is_over=_deadline(self._runtime)), self._database, _TABLES, []
        )
        return bool(elsewhere & {row[0] for row in rows.rows})  # The rest are names of a WITH.

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        parameters = args.get("parameters", [])
        if prepared.state == "read":
            rows = await self._runtime.in_thread(
                partial(engine.query, is_over=_deadline(self._runtime)),
                self._database,
                args["statement"],
                parameters,
            )
            return Result(
                value={"columns": list(rows.columns), "rows": rows.rows},
                label=_label(self.manifest, context),
            )
        done = await self._runtime.in_thread(
            partial(engine.execute, moment=_moment(context), is_over=_deadline(self._runtime)),
            self._database,
            args["statement"],
            parameters,
            prepared.digest,
        )
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
        if done.rows is not None and done.rows.rows:
            value["rows"] = done.rows.rows
        undo = msgspec.msgpack.encode({"database": self._database, "images": done.images})
        return Result(
            value=value, label=_label(self.manifest, context), undo=undo if done.images else b""
        )


async def undo(evidence: bytes, runtime: Runtime) -> dict[str, Any]:
    """Puts rows back as they were. Raises UndoRefused where one has changed since."""
    kept = msgspec.msgpack.decode(evidence)
    changes = await runtime.in_thread(
        partial(engine.undo, is_over=_deadline(runtime)), kept["database"], kept["images"]
    )
    return {"restored": {c.table: c.inserted + c.updated + c.deleted for c in changes}}


def drivers(
    instance: str, config: dict[str, Any], folder: Path, runtime: Runtime, off_limits: Path
) -> list[Any]:
    """The two operations of one `sql` instance. Raises ManifestInvalid.

    off_limits: ring0's own data folder; nothing in it is ever an agent's.
    """
    try:
        settings = msgspec.convert(config, SqlConfig)
    except msgspec.ValidationError as error:
        raise ManifestInvalid(
            f"[tools.{instance}] is not a `sql` tool: {error}.",
            todo='It needs `database = "file.db"`.',
        ) from None
    path = (folder / settings.database).resolve()
    if not path.is_file():
        raise ManifestInvalid(
            f"[tools.{instance}]: there is no database {path}.",
            why="The sql tool never creates one.",
            todo="Name an existing SQLite file, from the manifest's folder.",
        )
    own = off_limits.resolve()
    if path.parent == own or path.is_relative_to(own / "snapshots"):
        raise ManifestInvalid(
            f"[tools.{instance}] names {path}.",
            why="ring0's own files are never an agent's.",
            todo="Keep databases elsewhere.",
        )
    kinds = (SqlQuery, SqlExecute)
    return [kind(instance, settings, str(path), runtime) for kind in kinds]


def _label(manifest: ToolManifest, context: CallContext) -> Label:
    """A result is no better than the run that asked: a query can echo what it was given."""
    name = f"{manifest.name}@{context.call}"
    own = Label(integrity=manifest.output, sources=(name,))
    return own.join(Label(integrity=context.run.label.integrity))


def _lines(plan: engine.Plan) -> tuple[str, ...]:
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


def _deadline(runtime: Runtime) -> Any:
    ends_us = runtime.monotonic_us() + limits.SQL_TIME_S_MAX * 1_000_000

    def is_over() -> bool:
        return runtime.monotonic_us() > ends_us

    return is_over


__all__ = ["SqlConfig", "drivers", "undo"]
