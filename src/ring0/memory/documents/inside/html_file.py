"""HTML as a browser would show it: what it hides is left out, since no reader of it sees that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from justhtml import JustHTML

from ring0.memory.documents.inside.said import Block, text_of

_SKIPPED: Final = frozenset(
    (
        *("script", "style", "noscript", "template", "svg", "math", "iframe"),
        *("object", "canvas", "head", "nav", "button", "select", "textarea"),
        *("input", "dialog"),
    )
)
_BLOCKS: Final = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "caption", "dd"),
        *("details", "div", "dl", "dt", "fieldset", "figcaption", "figure"),
        *("footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr"),
        *("html", "li", "main", "ol", "p", "pre", "section", "summary"),
        *("table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"),
    )
)
_HEADING: Final = re.compile(r"h([1-6])")
_HIDING: Final = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d]*[1-9])|"
    r"opacity\s*:\s*0(?![.\d]*[1-9])", re.IGNORECASE
)  # fmt: skip
_META: Final = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([A-Za-z0-9_-]{1,40})""", re.I)


def html(data: bytes) -> Iterator[Block]:
    """Each node is met twice, on the way down and on the way up: no nesting is too deep."""
    root = JustHTML(_text(data), sanitize=False, track_node_locations=True).root
    told = _Told()
    ways: list[tuple[Any, bool]] = [(root, False)]
    while ways:
        node, up = ways.pop()
        name = str(node.name).lower()
        if name == "#text":
            told.add(node.data or "", node.origin_line or 0)
            continue
        if name in _SKIPPED or _is_hidden(node) or name.startswith("#comment"):
            continue
        if name == "br" and not up:
            told.add("\n", 0, literal=True)
        if up:
            yield from told.leave(name)
            continue
        yield from told.enter(name)
        ways.append((node, True))
        ways.extend((child, False) for child in reversed(node.children or ()))
    yield from told.flush("paragraph")


class _Told:
    """What has been read since the last block ended."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._first = self._last = 0
        self._lists = self._tables = self._pre = 0
        self._items: list[str] = []
        """Of the outermost list or table that is open."""

    def add(self, text: str, line: int, *, literal: bool = False) -> None:
        if line and text.strip():
            self._first = self._first or line
            self._last = max(self._last, line + text.strip().count("\n"))
        self._parts.append(text if literal or self._pre else re.sub(r"\s+", " ", text))

    def enter(self, name: str) -> Iterator[Block]:
        if name not in _BLOCKS:
            return
        whole = self._lists or self._tables
        if not whole:
            yield from self.flush("paragraph")
        elif name in ("li", "tr", "ul", "ol", "table"):
            self._item()
        elif name in ("td", "th") and self._parts:
            self._parts.append(" | ")
        elif self._parts:
            self._parts.append(" ")
        self._lists += name in ("ul", "ol")
        self._tables += name == "table"
        self._pre += name == "pre"
        if name == "li":
            self._parts.append("  " * (self._lists - 1) + "- ")

    def leave(self, name: str) -> Iterator[Block]:
        if name not in _BLOCKS:
            return
        if name in ("li", "tr"):
            self._item()
        self._lists -= name in ("ul", "ol")
        self._tables -= name == "table"
        if self._lists or self._tables:
            self._pre -= name == "pre"
            return
        heading = _HEADING.fullmatch(name)
        if name in ("ul", "ol", "table"):
            self._item()
            yield from self.flush("table" if name == "table" else "list")
        elif heading:
            yield from self.flush("heading", int(heading[1]))
        else:
            yield from self.flush("code" if name == "pre" else "paragraph")
        self._pre -= name == "pre"

    def flush(self, kind: str, level: int = 0) -> Iterator[Block]:
        if kind in ("list", "table"):
            text = "\n".join(self._items)
        else:
            text = self._text()
            if kind == "heading":
                text = " ".join(text.split())
        if text.strip():
            yield Block(kind, text, level, 0, self._first, self._last)
        self._parts, self._items = [], []
        self._first = self._last = 0

    def _item(self) -> None:
        text = self._text().rstrip()
        self._parts = []
        if text.strip(" -|"):
            self._items.append(text)

    def _text(self) -> str:
        text = "".join(self._parts)
        if self._pre:
            return text.strip("\n").rstrip()
        indent = len(text) - len(text.lstrip(" ")) if self._lists else 0
        return " " * indent + re.sub(r" *\n *", "\n", re.sub(r" {2,}", " ", text)).strip()


def _is_hidden(node: Any) -> bool:
    attributes = node.attrs or {}
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return True
    style = str(attributes.get("style") or "")
    return _HIDING.search(style[:2_000]) is not None


def _text(data: bytes) -> str:
    said = _META.search(data[:2_048])
    if said is not None:
        try:
            return data.decode(said[1].decode())
        except (LookupError, UnicodeDecodeError):
            pass
    return text_of(data)
