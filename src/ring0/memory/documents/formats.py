"""Which parser reads a file, by the end of its name, and what it needs to be installed.

A file's name is no promise: each parser says itself what it can't read.
"""

from __future__ import annotations

import importlib.util
from pathlib import PurePosixPath
from typing import Final

from ring0.memory.documents.blocks import unreadable

_CODE: Final = (
    *(".bash", ".c", ".cc", ".cfg", ".clj", ".conf", ".cpp", ".cs", ".css", ".dart", ".ex", ".exs"),
    *(".go", ".h", ".hpp", ".hs", ".ini", ".java", ".js", ".json", ".jsx", ".kt", ".lua", ".m"),
    *(
        ".ml",
        ".mjs",
        ".php",
        ".pl",
        ".proto",
        ".r",
        ".rb",
        ".rs",
        ".scala",
        ".sh",
        ".sql",
        ".swift",
    ),
    *(".tf", ".toml", ".ts", ".tsx", ".vue", ".xml", ".yaml", ".yml", ".zig"),
)
PARSERS: Final[dict[str, str]] = {
    **dict.fromkeys(_CODE, "code"),
    **dict.fromkeys((".htm", ".html", ".xhtml"), "html"),
    **dict.fromkeys((".markdown", ".md", ".mdx"), "markdown"),
    **dict.fromkeys((".py", ".pyi"), "python"),
    **dict.fromkeys((".csv", ".jsonl", ".ndjson", ".tsv"), "rows"),
    **dict.fromkeys((".log", ".text", ".txt"), "plain"),
    ".docx": "office",
    ".pdf": "pdf",
    ".rst": "rst",
}
_NAMES: Final = {"dockerfile": "code", "makefile": "code", "license": "plain", "readme": "plain"}
_NEEDS: Final = {"html": "justhtml", "markdown": "markdown_it", "pdf": "pypdf"}


def parser_of(name: str) -> str:
    """The parser for a file of that name; empty: none reads it."""
    path = PurePosixPath(name.lower())
    return PARSERS.get(path.suffix, "") or _NAMES.get(path.name, "")


def check(name: str) -> str:
    """The same. Raises DocumentUnreadable where there is none or what it needs is not installed."""
    parser = parser_of(name)
    if not parser:
        raise unreadable(
            name,
            "it is of no kind that is read, by the end of its name: text, Markdown, HTML, PDF,"
            " .docx, .rst, CSV, JSON Lines and programs are",
            "Give its text as .txt or .md; `--as NAME` says what a file without an end is.",
        )
    needs = _NEEDS.get(parser)
    if needs and importlib.util.find_spec(needs) is None:
        raise unreadable(
            name,
            f"what reads it ({needs}) is not installed",
            "`pip install 'ring0[documents]'` where the kernel runs.",
        )
    return parser
