"""A text's words as an index keeps them: stemmed, hashed to 64 bits, counted, packed for numpy.

The words are those of FTS5's own tokenizer (`porter unicode61`); what is written without spaces
(Chinese, Japanese, Korean) is taken in pairs of characters. Not the index: `memory/index/`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from functools import cache
from struct import Struct
from typing import Final

import apsw
import apsw.fts5

from ring0 import limits
from ring0.types import Frozen

DTYPE: Final = [("hash", "<u8"), ("count", "<u2")]
"""What one word takes in `Terms.packed`, for `numpy.frombuffer`; ascending by hash."""

WORD_BYTES: Final = 10
_WORD: Final = Struct("<QH")
_COUNT_MAX: Final = 0xFFFF
_UNSPACED: Final = re.compile(
    "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff]+"
)


class Terms(Frozen, frozen=True):
    length: int
    """How many words the text has, repeated ones too."""
    packed: bytes
    """Each different word once, with how often it is there: see DTYPE."""


def words_of(text: str) -> list[str]:
    """The stemmed words in their order, of the first TERMS_TEXT_CHARS_MAX characters."""
    found: list[str] = []
    data = text[: limits.TERMS_TEXT_CHARS_MAX].encode("utf-8", "replace")
    for said in _tokenizer()(data, apsw.FTS5_TOKENIZE_DOCUMENT, None, include_offsets=False):
        word = str(said[0])
        if word.isascii() or not _UNSPACED.search(word):
            found.append(word)
        else:
            found.extend(_in_pairs(word))
    return found


def hash_of(word: str) -> int:
    """The same on every machine and in every version."""
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8"), digest_size=8).digest(), "little")


def terms_of(text: str) -> Terms:
    words = words_of(text)
    counted = sorted((hash_of(word), count) for word, count in Counter(words).items())
    packed = b"".join(_WORD.pack(one, min(count, _COUNT_MAX)) for one, count in counted)
    return Terms(length=len(words), packed=packed)


def query_terms(query: str) -> list[int]:
    """The words of a query, each once, in their order; no more than RECALL_TERMS_MAX."""
    words = dict.fromkeys(words_of(query))
    return [hash_of(word) for word in list(words)[: limits.RECALL_TERMS_MAX]]


def _in_pairs(word: str) -> list[str]:
    found: list[str] = []
    at = 0
    for match in _UNSPACED.finditer(word):
        if match.start() > at:
            found.append(word[at : match.start()])
        run = match.group()
        found.extend(run[i : i + 2] for i in range(max(1, len(run) - 1)))
        at = match.end()
    if at < len(word):
        found.append(word[at:])
    return found


@cache
def _tokenizer() -> apsw.FTS5Tokenizer:
    return apsw.Connection(":memory:").fts5_tokenizer("porter", ["unicode61"])
