"""What was approved of each MCP server, and what has become of it since.

`tools.lock.json` beside agent.toml holds, for every server, all that a person saw when they
approved it, in full, so that a change can be shown and not only noticed. A pin's digest is over
the command or address, the program's code, and every word that the server says of its tools.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid, ToolFailed
from ring0.types import Frozen

LOCK: Final = "tools.lock.json"
VERSION: Final = 1
_LINE_CHARS: Final = 160
_encode = msgspec.json.Encoder(order="sorted").encode


class ToolChanged(ToolFailed):
    """An MCP server is not what was approved: its code, its tools or their descriptions."""

    code = "tool_changed"
    tells_of_data = True


class Unit(Frozen, frozen=True, kw_only=True):
    """A part of a server's code: a package, a folder, a program."""

    name: str
    version: str = ""
    files: int
    digest: str


class PinnedTool(Frozen, frozen=True, kw_only=True):
    """One tool as its server describes it, word for word."""

    name: str
    title: str = ""
    description: str = ""
    schema: dict[str, Any] = msgspec.field(default_factory=dict)
    output_schema: dict[str, Any] | None = None
    annotations: dict[str, Any] = msgspec.field(default_factory=dict)


class Offer(Frozen, frozen=True, kw_only=True):
    """What a server says of itself: once by its handshake, and by its list of tools."""

    protocol: str = ""
    server_name: str = ""
    server_version: str = ""
    instructions: str = ""
    tools: tuple[PinnedTool, ...] = ()


class Pin(Frozen, frozen=True, kw_only=True):
    """A server as it was approved."""

    command: tuple[str, ...] = ()
    env: dict[str, str] = msgspec.field(default_factory=dict)
    url: str = ""
    workspace: bool = False
    code: tuple[Unit, ...] = ()
    offer: Offer
    approved_by: str = ""
    approved_at: str = ""

    @property
    def digest(self) -> str:
        """Over everything but who approved it and when, and the protocol's version: that is as
        new as both sides are."""
        offer = msgspec.structs.replace(self.offer, protocol="")
        return _digest(msgspec.structs.replace(self, offer=offer, approved_by="", approved_at=""))


def _digest(value: Any) -> str:
    return hashlib.sha256(_encode(value)).hexdigest()


# --- the file -----------------------------------------------------------------------------------


class _Locked(Frozen, frozen=True, kw_only=True):
    digest: str
    pin: Pin
    operations: dict[str, str]
    """Each tool's name and its digest: what a reviewer compares at a glance."""


class _Lock(Frozen, frozen=True, kw_only=True):
    version: int = VERSION
    tools: dict[str, _Locked] = msgspec.field(default_factory=dict)


def read(folder: Path) -> dict[str, Pin]:
    """The pins of the agent in `folder`, by instance; none where there is no file. Raises
    ManifestInvalid where the file is not as ring0 wrote it."""
    path = folder / LOCK
    try:
        if path.stat().st_size > limits.MCP_LOCK_SIZE_BYTES_MAX:
            raise _unreadable(path, f"it has more than {limits.MCP_LOCK_SIZE_BYTES_MAX} bytes")
        lock = msgspec.json.decode(path.read_bytes(), type=_Lock)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        raise _unreadable(path, str(error)[:300]) from None
    if lock.version != VERSION:
        raise _unreadable(path, f"it is of version {lock.version}, and this ring0 of {VERSION}")
    for instance, locked in lock.tools.items():
        operations = {tool.name: _digest(tool) for tool in locked.pin.offer.tools}
        if locked.digest != locked.pin.digest or locked.operations != operations:
            raise _unreadable(path, f"what it holds of {instance[:80]!r} does not fit its digest")
    return {instance: locked.pin for instance, locked in lock.tools.items()}


def write(folder: Path, pins: dict[str, Pin]) -> Path:
    """Writes the whole file anew, so that a crash leaves the old or the new one."""
    tools = {
        instance: _Locked(
            digest=pin.digest,
            pin=pin,
            operations={tool.name: _digest(tool) for tool in pin.offer.tools},
        )
        for instance, pin in pins.items()
    }
    # version is written though it is the default: another ring0 has to find it.
    value = {"version": VERSION, "tools": msgspec.to_builtins(tools)}
    # ASCII: what nobody would see is seen, as \u202e, by whoever reviews the file.
    text = json.dumps(value, ensure_ascii=True, indent=2, sort_keys=True) + "\n"
    path, beside = folder / LOCK, folder / f".{LOCK}.{os.getpid()}"
    try:
        with open(beside, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _unreadable(path: Path, why: str) -> ManifestInvalid:
    return ManifestInvalid(
        f"{path} can't be used.",
        why=why + ".",
        todo="Put back the file that was reviewed, or approve anew: `ring0 tools add NAME`.",
    )


# --- what has changed ---------------------------------------------------------------------------


def differences(was: Pin, now: Pin) -> list[str]:
    """What has changed, line by line, in ASCII: `-` was approved, `+` is there now."""
    lines = [*_code_changes(was.code, now.code), *_offer_changes(was.offer, now.offer)]
    for name in ("command", "env", "url", "workspace"):
        lines += _changed(name, getattr(was, name), getattr(now, name))
    if len(lines) > limits.MCP_DIFF_LINES_MAX:
        more = len(lines) - limits.MCP_DIFF_LINES_MAX
        lines = [*lines[: limits.MCP_DIFF_LINES_MAX], f"... and {more} lines more"]
    return lines


def _code_changes(was: tuple[Unit, ...], now: tuple[Unit, ...]) -> Iterator[str]:
    before, after = {unit.name: unit for unit in was}, {unit.name: unit for unit in now}
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield f"code {_ascii(name)}:"
            yield from _sides(_unit(old) if old else None, _unit(new) if new else None)


def _unit(unit: Unit) -> str:
    return f"{unit.version} {unit.files} files {unit.digest[:16]}".strip()


def _offer_changes(was: Offer, now: Offer) -> Iterator[str]:
    for name in ("server_name", "server_version", "instructions"):
        where = "server " + name.removeprefix("server_")
        yield from _changed(where, getattr(was, name), getattr(now, name))
    before, after = {t.name: t for t in was.tools}, {t.name: t for t in now.tools}
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        where = f"tool {_ascii(name)}"
        if old is None:
            yield f"{where}: is new"
        elif new is None:
            yield f"{where}: is gone"
        else:
            for field in ("title", "description", "schema", "output_schema", "annotations"):
                yield from _changed(f"{where} {field}", getattr(old, field), getattr(new, field))


def _changed(where: str, was: Any, now: Any) -> Iterator[str]:
    if was == now:
        return
    yield f"{where}:"
    old, new = _lines(was), _lines(now)
    for line in difflib.unified_diff(old, new, lineterm="", n=0):
        if not line.startswith(("---", "+++", "@@")):
            yield f"  {line[:_LINE_CHARS]}"


def _sides(was: str | None, now: str | None) -> Iterator[str]:
    if was is not None:
        yield f"  -{_ascii(was)}"
    if now is not None:
        yield f"  +{_ascii(now)}"


def _lines(value: Any) -> list[str]:
    if isinstance(value, str):
        return [_ascii(line) for line in value.split("\n")]
    return json.dumps(msgspec.to_builtins(value), indent=1, sort_keys=True).split("\n")


def _ascii(text: str) -> str:
    return json.dumps(text)[1:-1]


def unpinned(instance: str, folder: Path) -> ManifestInvalid:
    """The refusal of a server that nobody has approved, with what to type."""
    return ManifestInvalid(
        f"The MCP server {instance!r} has not been approved.",
        why=f"{folder / LOCK} holds nothing of it: what it is and what it says was seen by nobody.",
        todo=f"ring0 tools add {instance} --from {folder}",
    )


def changed(instance: str, lines: list[str]) -> ToolChanged:
    """The refusal of a server that is not what was approved."""
    return ToolChanged(
        f"The MCP server {instance!r} is not what was approved.",
        why="\n".join(lines)[: limits.MCP_ERROR_CHARS_MAX * 2],
        todo=f"Look at it: `ring0 tools diff {instance}`. Where it is meant, approve it again:"
        f" `ring0 tools add {instance}`.",
    )
