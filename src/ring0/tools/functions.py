"""`@tool` functions: each call in a fresh sandbox of its own, never beside the kernel's secrets.

Arguments go in and the result comes out as one length-prefixed JSON frame. A function that dies
between the two leaves a `once` effect unknown.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from ring0 import errors, limits
from ring0.errors import EffectUnknown, ToolFailed
from ring0.runtime import Runtime
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.tools.reach import Reach, sandbox_for
from ring0.tools.returned import checked
from ring0.tools.sandbox.host import Sandbox, SandboxSpec
from ring0.tools.touching import fill
from ring0.types import Effect, Label, ToolManifest

_HEADER = struct.Struct(">I")


class Function:
    """One `@tool` function of an isolated agent's code."""

    def __init__(
        self,
        manifest: ToolManifest,
        spec: Callable[[], SandboxSpec],
        runtime: Runtime,
        reach: Reach | None = None,
    ) -> None:
        self.manifest = manifest
        self._reach = reach
        self._spec = spec
        """Made anew for each call: a sandbox has a uid of its own."""
        self._runtime = runtime

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        prepared = _prepared(self.manifest, args)
        return msgspec.structs.replace(prepared, slots=("sandbox",))

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        frame = msgspec.json.encode(
            {"args": args, "call_id": context.call, "fences": dict(context.fences)}
        )
        try:
            async with sandbox_for(self.manifest, self._spec(), context, self._reach) as sandbox:
                answer = await self._runtime.wait_for(
                    _exchange(sandbox, frame), self.manifest.wall_s
                )
        except TimeoutError:
            raise self._cut_off(f"it took longer than {self.manifest.wall_s} s") from None
        except _NoAnswer as error:
            raise self._cut_off(str(error)) from None
        return self._result(answer, context)

    def _cut_off(self, why: str) -> errors.Ring0Error:
        if self.manifest.effect is Effect.ONCE:
            return EffectUnknown(
                f"{self.manifest.name} was cut off: {why}.",
                why="Its effect may or may not have happened.",
                todo="Look at the world, then `ring0 settle CALL happened` or `did-not-happen`.",
            )
        return ToolFailed(
            f"{self.manifest.name} failed: {why}.",
            why="The tool's own fault.",
            todo="See the tool's code and its `wall_s`.",
        )

    def _result(self, answer: Any, context: CallContext) -> Result:
        if not isinstance(answer, dict) or ("value" in answer) == ("error" in answer):
            raise self._cut_off("it answered with something that is no answer")
        if "error" in answer:
            error = answer["error"] if isinstance(answer["error"], dict) else {}
            raise ToolFailed(
                f"{self.manifest.name} failed: {_told(error.get('what', ''))}",
                why=_told(error.get("why", "")),
                todo=_told(error.get("todo", "")),
            )
        return _result(self.manifest, answer["value"], context)


def _prepared(manifest: ToolManifest, args: dict[str, Any]) -> Prepared:
    pure = manifest.effect is Effect.PURE
    return Prepared(
        driver_bytes=msgspec.json.encode(args, order="sorted"),
        own=pure,
        mutates=not pure,
        reserve_microusd=manifest.cost_microusd,
        touches=fill(manifest.locks, args),
        lines=(
            *(f"  that may reach {rule}" for rule in manifest.egress),
            *(f"  with the credential {name}" for name in manifest.secrets),
        ),
    )


def _result(manifest: ToolManifest, value: Any, context: CallContext) -> Result:
    label = Label(integrity=manifest.output, sources=(f"{manifest.name}@{context.call}",))
    return Result(
        value=checked(value, manifest.name),
        cost_microusd=manifest.cost_microusd,
        # What a function makes of its arguments is no better than they are.
        label=label.join(context.run.label.bare),
    )


def _told(said: object) -> str:
    """What a function says of its failure, bounded. Whatever it is: its own `__str__` may fail,
    and Python writes out no integer of more than 4,300 digits."""
    try:
        return str(said)[: limits.TOOL_ERROR_CHARS_MAX]
    except Exception as error:
        return f"({type(error).__name__} where it should have been written out)"


class _NoAnswer(Exception):
    """The function's process gave none; the message says why."""


async def _exchange(sandbox: Sandbox, frame: bytes) -> Any:
    """One frame in, one frame out. Raises _NoAnswer."""
    drain = asyncio.ensure_future(_drain(sandbox.stderr))
    try:
        sandbox.stdin.write(_HEADER.pack(len(frame)) + frame)
        await sandbox.stdin.drain()
        sandbox.stdin.close()
        (size,) = _HEADER.unpack(await sandbox.stdout.readexactly(_HEADER.size))
        if size > limits.RESULT_SIZE_BYTES_MAX:
            raise _NoAnswer(f"its answer has {size} bytes")
        return msgspec.json.decode(await sandbox.stdout.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        raise _NoAnswer("it died without an answer") from None
    except (msgspec.DecodeError, RecursionError):
        raise _NoAnswer("it answered with something that is no answer") from None
    finally:
        drain.cancel()


async def _drain(stream: asyncio.StreamReader) -> None:
    """What it prints is thrown away, so that it can't block on a full pipe."""
    while await stream.read(limits.SANDBOX_PIECE_SIZE_BYTES):
        pass


class EmbeddedFunction:
    """A `@tool` function of an embedded agent: it runs in this process, and is not contained."""

    def __init__(self, manifest: ToolManifest, call: Any) -> None:
        self.manifest = manifest
        self._call = call

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        return _prepared(self.manifest, args)

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        try:
            value = await self._call(args, context.call, dict(context.fences))
        except errors.Ring0Error as error:
            error.what, error.why, error.todo = map(_told, (error.what, error.why, error.todo))
            raise
        except Exception as error:
            raise ToolFailed(
                f"{self.manifest.name} failed: {type(error).__name__}: {_told(error)}",
                why="The tool's own fault.",
                todo="See the tool's code.",
            ) from error
        return _result(self.manifest, value, context)


__all__ = ["EmbeddedFunction", "Function"]
