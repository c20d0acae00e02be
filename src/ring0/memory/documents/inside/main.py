"""A file's bytes come in on stdin; what is in it goes out, one JSON line a block, then {"done": n}
or {"error": why}. A block is [kind, text, level, page, first line, last line].

No structure is made here of what a parser says: that is `passages.py`, in the kernel.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from ring0 import limits
from ring0.memory.documents.inside.said import Block, Unreadable

_HOME: Final = {"python": "code", "rst": "plain"}


def main(parser: str) -> None:
    """Reads all of stdin. A file that can't be read is said so; so is a fault of the parser."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Libraries print as they like.
    try:
        count = _tell(parser_of(parser)(sys.stdin.buffer.read()), out)
    except Unreadable as error:
        last: dict[str, object] = {"error": str(error)}
    except RecursionError:
        last = {"error": "it is nested too deeply"}
    except MemoryError:
        last = {"error": "it takes more memory than a document may"}
    except Exception as error:
        last = {"error": f"its parser failed: {type(error).__name__}: {error}"}
    else:
        last = {"done": count}
    out.write(json.dumps(last).encode() + b"\n")
    out.flush()
    # What a parser has made of millions of objects need not be taken apart.
    os._exit(0)


def parser_of(name: str) -> Callable[[bytes], Iterator[Block]]:
    """By its name: nothing is imported that the file doesn't need."""
    module = importlib.import_module(f"{__package__}.{_HOME.get(name, name)}_file")
    found: Callable[[bytes], Iterator[Block]] = getattr(module, name)
    return found


def _tell(blocks: Iterator[Block], out: BinaryIO) -> int:
    count = 0
    for block in blocks:
        whole = block.text.encode("utf-8", "replace").decode()  # No half of a surrogate pair.
        # A heading without a title ends the one before it.
        for text in (
            [whole[: limits.DOCUMENT_BLOCK_CHARS_MAX]]
            if block.kind == "heading"
            else _bounded(whole)
        ):
            row = [block.kind, text, block.level, block.page, block.first, block.last]
            out.write(json.dumps(row, ensure_ascii=True).encode() + b"\n")
            count += 1
    return count


def _bounded(text: str) -> Iterator[str]:
    for start in range(0, len(text), limits.DOCUMENT_BLOCK_CHARS_MAX):
        if (part := text[start : start + limits.DOCUMENT_BLOCK_CHARS_MAX]).strip():
            yield part
