"""The learned ranker: used for conversations between people with names, and for nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from test_index import alone, index_of, turn

from ring0.memory import ranker
from ring0.memory.embedding.offlinemodels import MINILM
from ring0.memory.embedding.vectors import pack_all
from ring0.memory.index import Filter, ScopeIndex
from ring0.memory.index.question import Question, question_of

TALK = ("we painted the boat", "nice, when?", "last week, with Bob", "the invoice came", "oh no")


def talk(roles: tuple[str, ...], model: str = MINILM.identity) -> tuple[ScopeIndex, Question]:
    vectors = pack_all(np.random.default_rng(4).normal(size=(len(TALK), 384)))
    rows = [
        turn(n + 1, text, role=roles[n % len(roles)], session="s", vector=vectors[n])
        for n, text in enumerate(TALK)
    ]
    asked = np.random.default_rng(5).normal(size=384).astype(np.float32)
    question = question_of("When did Ann paint the boat?", asked)
    return index_of(*rows, model=model, dimensions=384), question


def test_the_weights_say_what_they_were_trained_on_and_fit_the_features() -> None:
    trees = ranker.shipped()
    assert trees.features == ranker.FEATURES
    assert {"trained_on", "sha256_of_data", "leave_one_conversation_out"} <= trees.about.keys()
    assert trees.about["embeddings"] == MINILM.identity, "train it anew: other vectors are in use"


def test_turns_of_people_are_put_in_order_by_the_ranker() -> None:
    index, question = talk(("Ann", "Bob"))
    hits = index.search(question, Filter(), 5)
    assert all("ranker" in hit.why for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    fused = index.search(question, Filter(), 5, trained=False)
    assert {hit.id for hit in hits} == {hit.id for hit in fused}


@pytest.mark.parametrize(
    ("roles", "model"),
    [(("task", "result"), MINILM.identity), (("Ann", "Bob"), "another model")],
)
def test_of_anything_else_the_fusions_order_stands(roles: tuple[str, ...], model: str) -> None:
    index, question = talk(roles, model)
    hits = index.search(question, Filter(), 5)
    assert hits == index.search(question, Filter(), 5, trained=False)
    assert not any("ranker" in hit.why for hit in hits)


def test_trees_are_walked_as_one_would_by_hand() -> None:
    trees, rows = ranker.shipped(), np.random.default_rng(1).normal(size=(40, len(ranker.FEATURES)))
    rows = rows.astype(np.float32)

    def by_hand(row: np.ndarray) -> float:
        total = 0.0
        for at in trees.roots:
            while trees.feature[at] >= 0:
                below = row[trees.feature[at]] <= np.float32(trees.threshold[at])
                at = trees.left[at] if below else trees.right[at]
            total += trees.value[at]
        return total

    assert ranker.walked(trees, rows) == pytest.approx([by_hand(row) for row in rows], abs=1e-4)


def test_who_asks_for_more_than_the_ranker_looks_at_gets_the_rest_behind_it() -> None:
    vectors = pack_all(np.random.default_rng(6).normal(size=(150, 384)))
    rows = [
        alone(n, "the boat", role=("Ann", "Bob")[n % 2], vector=vectors[n - 1])
        for n in range(1, 151)
    ]
    index = index_of(*rows, model=MINILM.identity, dimensions=384)
    question = question_of("the boat", np.ones(384, np.float32))
    hits = index.search(question, Filter(), 150)
    scores = [hit.score for hit in hits]
    assert len({hit.id for hit in hits}) == 150
    assert scores == sorted(scores, reverse=True)
    assert [hit.id for hit in index.search(question, Filter(), 10)] == [h.id for h in hits[:10]]
