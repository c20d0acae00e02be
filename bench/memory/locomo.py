"""LoCoMo's format: conversations, questions, the turns that answer them; and what is measured.

https://github.com/snap-research/locomo (CC BY-NC 4.0). Answers are not judged: 99 of its 1,540 gold
answers are wrong. What is measured is whether the turns that are named as evidence are found.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ring0.errors import InvalidInput
from ring0.memory.embedding.offlinemodels import MINILM, OfflineModel
from ring0.memory.embedding.vectors import pack_all
from ring0.memory.index import ScopeIndex
from ring0.memory.structure import embedded_text
from ring0.store.rows import Loaded
from ring0.store.terms import terms_of

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}
"""Those that count; 5, adversarial, has no answer."""
_EVIDENCE = re.compile(r"D\s*:?\s*(\d+)\s*:\s*0*(\d+)")
"""Some ids are malformed: `D8:6; D9:17`, `D:11:26`, `D30:05`."""


class Turn(NamedTuple):
    text: str
    speaker: str
    session: int
    at_us: int


class Asked(NamedTuple):
    question: str
    evidence: frozenset[int]
    """Places of turns."""
    category: int


class Conversation(NamedTuple):
    name: str
    digest: str
    """Of its turns: who it is, whatever file it is in."""
    turns: list[Turn]
    asked: list[Asked]


class Measured(NamedTuple):
    """Of one question: shares of its evidence among the first 5, 10, 20; one through the place of
    the first."""

    category: int
    at_5: float
    at_10: float
    at_20: float
    reciprocal: float


def read(path: str) -> list[Conversation]:
    """Raises InvalidInput."""
    try:
        return [_conversation(one) for one in json.loads(Path(path).read_bytes())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{path} can't be read as LoCoMo.",
            why=f"{type(error).__name__}: {error}",
            todo="Give a file of LoCoMo's format: a list of conversations with `qa`.",
        ) from None


def measured(asked: Asked, ranked: Sequence[int]) -> Measured:
    """`ranked`: places of turns, best first."""
    wanted = asked.evidence
    at_5, at_10, at_20 = (len(wanted & set(ranked[:most])) / len(wanted) for most in (5, 10, 20))
    first = next((place for place, turn in enumerate(ranked, 1) if turn in wanted), 0)
    return Measured(asked.category, at_5, at_10, at_20, 1 / first if first else 0.0)


def embedded_turns(conversation: Conversation) -> list[str]:
    """As the indexer has them embedded."""
    turns = conversation.turns
    texts = []
    for place, turn in enumerate(turns):
        before = turns[place - 1] if place else None
        previous = before.text if before and before.session == turn.session else ""
        texts.append(
            embedded_text(turn.text, previous=previous, role=turn.speaker, happened_us=turn.at_us)
        )
    return texts


def index_of(
    conversation: Conversation,
    vectors: npt.NDArray[np.float32] | None,
    model: OfflineModel = MINILM,
) -> ScopeIndex:
    """A scope that holds the conversation and nothing else; record n is turn n. `vectors`: of
    `model`."""
    packed = pack_all(vectors) if vectors is not None else None
    index = ScopeIndex(
        model.identity if packed else "", vectors.shape[1] if vectors is not None else 0
    )
    rows = []
    for place, turn in enumerate(conversation.turns):
        terms = terms_of(turn.text)
        rows.append(
            Loaded(
                number=place + 1,
                id=f"m-bench#{place}",
                kind="episode",
                role=turn.speaker,
                session=f"session {turn.session}",
                act="m-bench",
                at_us=turn.at_us,
                happened_us=turn.at_us,
                state="current",
                superseded_us=0,
                valid_from_us=0,
                valid_to_us=0,
                integrity=0,
                terms=terms.packed,
                length=terms.length,
                vector=packed[place] if packed else None,
                text=None,
            )
        )
    index.append(rows)
    return index


def place_of(record: str) -> int:
    """The turn of a record of `index_of`."""
    return int(record.rpartition("#")[2])


def _conversation(told: dict[str, Any]) -> Conversation:
    held = told["conversation"]
    turns: list[Turn] = []
    places: dict[tuple[int, int], int] = {}
    for number in range(1, 1_000):
        session = held.get(f"session_{number}")
        if not isinstance(session, list):
            continue
        at_us = _at_us(held[f"session_{number}_date_time"])
        for said in session:
            places[_id(said["dia_id"])] = len(turns)
            turns.append(Turn(_text(said), said["speaker"], number, at_us))
    asked = []
    for one in told["qa"]:
        ids = {(int(a), int(b)) for text in one["evidence"] for a, b in _EVIDENCE.findall(text)}
        evidence = frozenset(places[found] for found in ids if found in places)
        if one["category"] in CATEGORIES and evidence:
            asked.append(Asked(one["question"], evidence, one["category"]))
    digest = hashlib.sha256("\0".join(turn.text for turn in turns).encode()).hexdigest()
    return Conversation(str(told.get("sample_id", digest[:8])), digest, turns, asked)


def _text(said: dict[str, Any]) -> str:
    """What was said, and what the shared picture shows."""
    shown = said.get("blip_caption")
    return f"{said['text']} [shares {shown}]".strip() if shown else str(said["text"])


def _id(told: str) -> tuple[int, int]:
    ((session, turn),) = _EVIDENCE.findall(told)
    return int(session), int(turn)


def _at_us(told: str) -> int:
    at = datetime.datetime.strptime(told, "%I:%M %p on %d %B, %Y")
    return int(at.replace(tzinfo=datetime.UTC).timestamp()) * 1_000_000
