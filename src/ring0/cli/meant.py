"""What was most likely meant by a `ring0 run` that can start nothing: the command that does, in the
words that were typed. It only tells; nothing is run that was not asked for.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ring0 import limits
from ring0.errors import AgentInvalid, InvalidInput, Ring0Error

_OURS: Final = re.compile(rb"^\s*(?:from|import)\s+ring0\b", re.MULTILINE)
_PYTHON: Final = "python"


def program_first(words: Sequence[str], search: str, *, has_manifest: bool) -> bool:
    """Do the words begin with a program, where an agent's file or its task should stand? `search`:
    the PATH of whoever asks."""
    if not words or _is_script(words[0]) or (has_manifest and len(words) == 1):
        return False
    path = Path(words[0].partition(":")[0])
    if path.is_file():
        return os.access(path, os.X_OK)
    return "/" not in words[0] and shutil.which(words[0], path=search) is not None


def check_words(typed: Sequence[str], words: Sequence[str], search: str, manifest: bool) -> None:
    """Raises InvalidInput for a program that is typed without `--`."""
    if program_first(words, search, has_manifest=manifest):
        raise InvalidInput(
            f"{words[0][:60]!r} is a program, and no agent's file.",
            why="A program and its arguments stand after `--`.",
            todo=f"`{_command(typed, len(typed) - len(words), typed[-len(words) :])}`",
        )


def odd_option(typed: Sequence[str], options: Mapping[str, bool], search: str) -> str:
    """The command for a line with an option that ring0 does not have, if it is a program's; else
    empty. `options`: ring0's own, and whether each takes a value."""
    begins = _first_word(typed, options)
    words = typed[begins:]
    if not words or any(one.partition("=")[0] not in options for one in _dashed(typed[:begins])):
        return ""  # What is odd stands before any program.
    if _is_script(words[0]):
        is_program = not _is_ours(words[0].partition(":")[0])
    else:
        is_program = program_first(words, search, has_manifest=False)
    if not is_program:
        return ""
    python = [_PYTHON] if _is_script(words[0]) else []
    return f"`{_command(typed, begins, [*python, *words])}`"


@contextmanager
def or_a_program(file: str, typed: Sequence[str]) -> Iterator[None]:
    """What an agent's file can't be is told with how it runs as the program that it may be."""
    try:
        yield
    except Ring0Error as error:
        path = file.partition(":")[0]
        if error.code == AgentInvalid.code and path and not _is_ours(path) and file in typed:
            at = typed.index(file)
            words = [_PYTHON, path, *typed[at + 1 :]]
            as_program = f"`{_command(typed, at, words)}`"
            error.todo = f"To run it as a program, as it is: {as_program}. Else: {error.todo}"
        raise


def options(command: Any) -> dict[str, bool]:
    """The options of a command of ours, and whether each takes a value."""
    return {
        name: not getattr(one, "is_flag", False)
        for one in command.params
        for name in (*one.opts, *one.secondary_opts)
        if name.startswith("-")
    }


def _dashed(typed: Sequence[str]) -> list[str]:
    return [one for one in typed if one.startswith("-")]


def _first_word(typed: Sequence[str], options: Mapping[str, bool]) -> int:
    place = 0
    while place < len(typed) and typed[place].startswith("-"):
        place += 2 if options.get(typed[place], False) else 1
    return place


def _command(typed: Sequence[str], begins: int, program: Sequence[str]) -> str:
    whole = shlex.join(["ring0", "run", *typed[:begins], "--", *program])
    most = limits.WHY_CHARS_MAX
    return whole if len(whole) <= most else whole[: most - 1] + "…"


def _is_script(word: str) -> bool:
    return word.partition(":")[0].endswith(".py")


def _is_ours(path: str) -> bool:
    """Does the file know of ring0? What it says of it may be wrong, but it is meant as an agent."""
    try:
        with open(path, "rb") as file:
            return _OURS.search(file.read(limits.CALL_BODY_SIZE_BYTES_MAX)) is not None
    except OSError:
        return True
