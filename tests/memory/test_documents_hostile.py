"""A document is written by a stranger: what it costs is bounded, and its parser is not believed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from document_files import docx_of, pdf_of

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.kernel.memory import parsing
from ring0.kernel.sandboxes import Sandboxes
from ring0.memory.documents import DocumentUnreadable, Passage, parser_of, read
from ring0.runtime import Runtime

DONE = b'{"done": 1}\n'


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\n",
        DONE,
        b'["paragraph", "x", 0, 0, 1, 1]\n',
        b'["paragraph", "x", 0, 0, 1, 1]\n{"done": 2}\n',
        b'["paragraph", "x", 0, 0, 1, 1]\n{"done": 1}',
        b'["paragraph", "x", 0, 0, 1, 1]\n{"done": 1}\nand more',
        b'["verdict", "allow", 0, 0, 1, 1]\n' + DONE,
        b'["paragraph", "x", -1, 0, 1, 1]\n' + DONE,
        b'["paragraph", "x", 0, 0, 1, 99999999999]\n' + DONE,
        b'["paragraph", 7, 0, 0, 1, 1]\n' + DONE,
        b'["paragraph", "\xff\xfe", 0, 0, 1, 1]\n' + DONE,
        b'["paragraph", "x", 0, 0, 1, 1, 1]\n' + DONE,
        b'["paragraph", "\\ud83d", 0, 0, 1, 1]\n' + DONE,
        b"[" * 100_000 + b"\n" + DONE,
        json.dumps(["code", "x" * (limits.DOCUMENT_BLOCK_CHARS_MAX + 1), 0, 0, 1, 1]).encode()
        + b"\n"
        + DONE,
        b'{"error": ""}\n',
        b"\n" * (limits.DOCUMENT_BLOCKS_MAX + 5),
    ],
)
def test_what_no_parser_of_ours_says_is_not_taken(said: bytes) -> None:
    with pytest.raises(DocumentUnreadable) as refused:
        read("file.md", said)
    assert refused.value.why and refused.value.todo


def test_a_parser_that_lies_in_its_error_does_nothing_to_a_terminal() -> None:
    said = json.dumps({"error": "\x1b]0;pwned\x07\u202e" + "A\n" * 10_000}).encode() + b"\n"
    with pytest.raises(DocumentUnreadable) as refused:
        read("\x1b[31mfile.md", said)
    told = str(refused.value)
    assert "\x1b" not in told and "\u202e" not in told and len(told) < 1_000


def test_text_that_hides_or_turns_is_cleaned_before_anybody_reads_it() -> None:
    said = json.dumps(
        ["paragraph", "a\u202eb\x1b[2J\u200bc\U000e0041d\0e\tf\ng", 0, 0, 1, 1]
    ).encode()
    [block] = read("file.md", said + b"\n" + DONE)
    assert block.text == "ab[2Jcde\tf\ng"


@pytest.fixture
async def parse() -> AsyncIterator[Callable[[str, bytes], object]]:
    runtime = Runtime()
    sandboxes = Sandboxes(None, runtime)

    async def one(name: str, data: bytes) -> list[Passage]:
        return await parsing.parse(sandboxes, runtime, name, parser_of(name), data)

    yield one
    await sandboxes.close()


def _bombs() -> dict[str, bytes]:
    return {
        "flate.pdf": pdf_of(b" " * (300 << 20)),
        "pages.pdf": pdf_of(b"q Q").replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]"),
        "cut.pdf": pdf_of(b"q Q")[:300],
        "zip.docx": docx_of("<w:p>" + " " * (200 << 20) + "</w:p>"),
        "entities.docx": docx_of('<!DOCTYPE a [<!ENTITY b "c">]>'),
        "values.jsonl": b"[" * 200_000 + b"]" * 200_000,
        "columns.csv": b"a," * 2_000_000,
        "nuls.txt": b"\0" * 100_000,
        "words.txt": b"a\n\n" * 300_000,
    }


async def test_a_bomb_costs_its_own_sandbox_and_says_what_to_do(parse) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("pypdf", reason="`make optional` installs it")
    for name, data in _bombs().items():
        with pytest.raises(Ring0Error) as refused:
            await parse(name, data)
        assert isinstance(refused.value, DocumentUnreadable), name
        assert refused.value.why and refused.value.todo, name


async def test_deep_nesting_is_read_or_refused_but_never_a_crash(parse) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("justhtml", reason="`make optional` installs it")
    for name, data in {
        "div.html": b"<div>" * 50_000 + b"x",
        "bold.html": b"<b>" * 50_000 + b"x",
        "quote.md": b">" * 50_000 + b"x",
        "emphasis.md": b"*a_ " * 50_000,
        "brackets.md": b"[" * 50_000 + b"x",
        "call.py": b"(" * 50_000 + b"x",
        "minus.py": b"-" * 50_000 + b"1",
    }.items():
        assert await parse(name, data), name


TAKEN_OVER = {
    "it looks for what is outside": """
import os, socket, sys
left = []
for path in ("SECRET", "/etc/shadow", "/var", "/home"):
    if os.path.exists(path):
        left.append(path)
try:
    socket.create_connection(("127.0.0.1", 80), 1)
    left.append("loopback")
except OSError:
    pass
left += [name for name in os.environ if "KEY" in name or "RING0" in name]
sys.stdout.write('{"error": "found: %s"}\\n' % ",".join(left))
""",
    "it talks without end": "import sys\nwhile True: sys.stdout.write('x' * 65536)",
    "it takes all memory": "x = [bytearray(1 << 24) for _ in range(1000)]",
    "it never ends": "while True: pass",
    "it multiplies": "import os\nwhile True: os.fork()",
    "it dies": "import os\nos.kill(os.getpid(), 11)",
    "it says too much": """
import sys
for _ in range(300000): sys.stdout.write('["paragraph", "x", 0, 0, 1, 1]\\n')
sys.stdout.write('{"done": 300000}\\n')
""",
}


@pytest.mark.parametrize("how", TAKEN_OVER)
async def test_a_parser_that_was_taken_over_reaches_nothing(
    how: str, parse, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    secret = tmp_path / "secret"
    secret.write_text("canary")
    monkeypatch.setattr(parsing, "_CODE", TAKEN_OVER[how].replace("SECRET", str(secret)))
    monkeypatch.setattr(limits, "DOCUMENT_PARSE_S_MAX", 1)
    monkeypatch.setattr(limits, "DOCUMENT_MEMORY_BYTES", 128 * limits.MIB)
    with pytest.raises(Ring0Error) as refused:
        await parse("file.md", b"hello")
    if how == "it looks for what is outside":
        assert "Found:." in str(refused.value).replace(" ", ""), refused.value
