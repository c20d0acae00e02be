"""The built-in tool `files`: list, read, write and remove in the run's own workspace."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from ring0.errors import CallInvalid, NotFound
from ring0.tools.driver import CallContext, FileChange, Prepared, Result
from ring0.tools.files.undoing import Replaced, evidence
from ring0.tools.workspace.files import canonical_path
from ring0.types import Effect, Integrity, Label, ToolManifest

_PATH = {"type": "string", "description": "Relative to the workspace."}


def _manifest(name: str, description: str, effect: Effect, **fields: Any) -> ToolManifest:
    required = [key for key in fields if key != "under"]
    schema = {
        "type": "object",
        "properties": fields,
        "required": required,
        "additionalProperties": False,
    }
    reversal = "irreversible" if effect is Effect.PURE else "reversible"
    return ToolManifest(
        name=name, description=description, schema=schema, effect=effect, reversal=reversal
    )


class FilesList:
    """`files.list`: the paths and sizes of the workspace."""

    def __init__(self, instance: str) -> None:
        self.manifest = _manifest(
            f"{instance}.list",
            "List the files of the workspace.",
            Effect.PURE,
            under={"type": "string"},
        )

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        return Prepared(driver_bytes=msgspec.json.encode(args, order="sorted"))

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        files = await context.workspace.list(args.get("under", ""))
        value = [{"path": file.path, "size_bytes": file.size_bytes} for file in files]
        label = Label(integrity=Integrity.SYSTEM, sources=("workspace",))
        for file in files:  # A name is text too.
            label = label.join(file.label.bare)
        return Result(value=value, label=label)


class FilesRead:
    """`files.read`: one file, as text (or base64 where it is none)."""

    def __init__(self, instance: str) -> None:
        self.manifest = _manifest(
            f"{instance}.read", "Read a file of the workspace.", Effect.PURE, path=_PATH
        )

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        path = canonical_path(args["path"])
        return Prepared(driver_bytes=msgspec.json.encode({"path": path}), state=path)

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        file, content = await context.workspace.read(prepared.state)
        label = file.label.join(Label(integrity=file.label.integrity, sources=(file.path,)))
        try:
            value: Any = {"path": file.path, "text": content.decode("utf-8")}
        except UnicodeDecodeError:
            value = {"path": file.path, "base64": base64.b64encode(content).decode()}
        return Result(value=value, label=label)


class FilesWrite:
    """`files.write`: the whole of one file; what was there before can be had back by undo."""

    def __init__(self, instance: str) -> None:
        self.manifest = _manifest(
            f"{instance}.write",
            "Write a file of the workspace, whole.",
            Effect.IDEMPOTENT,
            path=_PATH,
            text={"type": "string"},
        )

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        path = canonical_path(args["path"])
        content = args["text"].encode("utf-8")
        await context.workspace.check_room(path, len(content))
        return Prepared(
            driver_bytes=msgspec.json.encode({"path": path, "text": args["text"]}),
            lines=(f"write {path}: {len(content)} bytes",),
            state=path,
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        content = args["text"].encode("utf-8")
        return await _change(prepared.state, content, context, {"size_bytes": len(content)})


class FilesRemove:
    """`files.remove`: takes a file away; undo puts it back."""

    def __init__(self, instance: str) -> None:
        self.manifest = _manifest(
            f"{instance}.remove", "Remove a file of the workspace.", Effect.IDEMPOTENT, path=_PATH
        )

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        path = canonical_path(args["path"])
        return Prepared(
            driver_bytes=msgspec.json.encode({"path": path}), lines=(f"remove {path}",), state=path
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        if await context.workspace.find(prepared.state) is None:
            raise NotFound(
                f"There is no file {prepared.state!r} in the workspace.",
                todo="List the files to see what there is.",
            )
        return await _change(prepared.state, None, context, {"removed": True})


def _written(context: CallContext) -> Label:
    """What a run writes is as its own label, and comes from the call that wrote it."""
    return context.run.label.join(
        Label(integrity=Integrity.USER, sources=(f"{context.name}@{context.call}",))
    )


async def _change(
    path: str, content: bytes | None, context: CallContext, value: dict[str, Any]
) -> Result:
    await context.workspace.turn()
    before = await context.workspace.find(path)
    label = Label(integrity=Integrity.SYSTEM, sources=("workspace",))
    return Result(
        value={"path": path, **value},
        label=label,
        undo=evidence({path: Replaced.by(before, content)}),
        files=(FileChange(path=path, value=content, label=_written(context)),),
    )


def drivers(instance: str, config: dict[str, Any]) -> list[Any]:
    """The four operations of one `files` instance. Raises CallInvalid for unknown keys."""
    if unknown := set(config) - {"use"}:
        raise CallInvalid(
            f"`files` knows no setting {sorted(unknown)[0]!r}.", todo="Take it out of the manifest."
        )
    return [FilesList(instance), FilesRead(instance), FilesWrite(instance), FilesRemove(instance)]
