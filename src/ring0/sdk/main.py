"""`python -m ring0.sdk.main`: what runs inside a sandbox. `describe FILE`, `run FILE [FUNCTION]`,
`tool FILE NAME`. Standard output carries the answer only: what the author's code prints goes to
standard error.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ring0 import errors, limits
from ring0.sdk.door import HttpDoor
from ring0.sdk.load import load_file
from ring0.sdk.runner import run_agent
from ring0.sdk.toolside import run_tool

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_INVALID: Final = 2
USAGE: Final = "python -m ring0.sdk.main describe FILE | run FILE [FUNCTION] | tool FILE NAME"
LENGTH: Final = struct.Struct(">I")
"""A frame is its length in bytes, 4 bytes big-endian, and so many bytes of JSON."""


class ToolFrame(msgspec.Struct, forbid_unknown_fields=True):
    """What a tool process reads: one call."""

    args: dict[str, Any]
    call_id: str
    fences: dict[str, int] = {}


def main(arguments: list[str]) -> int:
    """Carries out one command line and returns the exit code."""
    out = _take_stdout()
    match arguments:
        case ["describe", file]:
            return _describe(file, out)
        case ["run", file, *rest] if len(rest) <= 1:
            return _run(file, rest[0] if rest else "", out)
        case ["tool", file, name]:
            return _tool(file, name, out)
    error = errors.InvalidInput("This is not a command of the SDK.", todo=USAGE)
    _write(out, msgspec.json.encode({"error": error.as_dict()}))
    return EXIT_INVALID


def _take_stdout() -> int:
    """Standard output under a descriptor of its own; what prints writes to standard error now."""
    sys.stdout.flush()
    out = os.dup(1)
    os.dup2(2, 1)
    return out


def _describe(file: str, out: int) -> int:
    try:
        declared = load_file(file)
    except errors.Ring0Error as error:
        return _refuse(error, out)
    body = {"agents": list(declared.agents.values()), "tools": list(declared.tools.values())}
    _write(out, msgspec.json.encode(body))
    return EXIT_OK


def _refuse(error: errors.Ring0Error, out: int) -> int:
    _show(error)
    _write(out, msgspec.json.encode({"error": error.as_dict()}))
    return EXIT_INVALID


# --- run -------------------------------------------------------------------------------------


def _run(file: str, name: str, out: int) -> int:
    # Imported before there is a loop, as any program's modules are.
    try:
        function = load_file(file).agent(name)
    except errors.Ring0Error as error:
        code = _refuse(error, out)
        asyncio.run(_report(error))
        return code
    return asyncio.run(_run_behind_door(function))


async def _report(refusal: errors.Ring0Error) -> None:
    """Tells the kernel that the run can't begin; where there is no door, nobody needs to know."""
    door = HttpDoor()
    try:
        await door.finish(error=refusal.as_dict())
    except errors.Ring0Error as error:
        _show(error)
    finally:
        await door.close()


async def _run_behind_door(function: Callable[..., Any]) -> int:
    door = HttpDoor()
    try:
        info = await door.describe()
        try:
            await door.finish(value=await run_agent(function, door, info))
        except errors.RunDead:
            # It was put away, or it has ended: the kernel knows, and goes on with it or does not.
            return EXIT_FAILED
        except errors.Ring0Error as error:
            _show(error)
            await door.finish(error=error.as_dict())
            return EXIT_FAILED
        return EXIT_OK
    except errors.Ring0Error as error:
        _show(error)
        return EXIT_FAILED
    finally:
        await door.close()


# --- tool ------------------------------------------------------------------------------------


def _tool(file: str, name: str, out: int) -> int:
    try:
        frame = read_frame(0)
        _close_stdin()
        tool = load_file(file).tool(name)
    except errors.Ring0Error as error:
        _show(error)
        _write(out, frame_of({"error": error.as_dict()}))
        return EXIT_INVALID
    try:
        value = asyncio.run(run_tool(tool, frame.args, frame.call_id, frame.fences))
        body, code = {"value": value}, EXIT_OK
    except errors.Ring0Error as error:
        _show(error)
        body, code = {"error": error.as_dict()}, EXIT_FAILED
    _write(out, frame_of(body))
    return code


def read_frame(descriptor: int) -> ToolFrame:
    """The one frame on `descriptor`. Raises `CallInvalid` for a short, large or odd one."""
    (length,) = LENGTH.unpack(_read(descriptor, LENGTH.size))
    if length > limits.CALL_BODY_SIZE_BYTES_MAX:
        raise errors.CallInvalid("The frame is too large.", why=f"it says {length:,} bytes")
    try:
        return msgspec.json.decode(_read(descriptor, length), type=ToolFrame)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise errors.CallInvalid("The frame can't be read.", why=str(error)) from None


def frame_of(body: Any) -> bytes:
    encoded = msgspec.json.encode(body)
    return LENGTH.pack(len(encoded)) + encoded


def _read(descriptor: int, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = os.read(descriptor, count - len(found))
        if not part:
            raise errors.CallInvalid("The frame is cut short.")
        found += part
    return found


def _close_stdin() -> None:
    """Nothing more to read, for the tool or for what it starts."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _write(descriptor: int, body: bytes) -> None:
    while body:
        body = body[os.write(descriptor, body) :]


def _show(error: errors.Ring0Error) -> None:
    """The error, and the traceback of the author's exception behind it, to standard error."""
    if error.__cause__ is not None:
        traceback.print_exception(error.__cause__)
    print(error, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
