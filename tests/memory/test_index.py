"""The index of a scope: scores are of the scope alone, what may not be seen counts for nothing."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from ring0.memory.embedding.vectors import pack_all
from ring0.memory.index import Filter, ScopeIndex
from ring0.memory.index.postings import Postings
from ring0.memory.index.question import Question, question_of
from ring0.memory.structure import days_of, embedded_text
from ring0.store.rows import Loaded
from ring0.store.terms import hash_of, query_terms, terms_of, words_of
from ring0.types import MemoryKind

DAY_US = 86_400_000_000
WORDS = ("boat", "engine", "harbour", "invoice", "ledger", "mango", "orchid", "parrot", "river")


def turn(number: int, text: str, **also: object) -> Loaded:
    terms = terms_of(text)
    said: dict[str, object] = {
        "id": f"r-one#{number}",
        "kind": "episode",
        "role": "result",
        "session": "",
        "act": "r-one",
        "at_us": number,
        "happened_us": 0,
        "state": "current",
        "superseded_us": 0,
        "valid_from_us": 0,
        "valid_to_us": 0,
        "integrity": 0,
        "terms": terms.packed,
        "length": terms.length,
        "vector": None,
        "text": None,
    }
    return Loaded(number=number, **(said | also))  # type: ignore[arg-type]


def alone(number: int, text: str, **also: object) -> Loaded:
    """In a thread of its own."""
    return turn(number, text, **({"session": f"s-{number}"} | also))


def index_of(*rows: Loaded, model: str = "", dimensions: int = 0) -> ScopeIndex:
    index = ScopeIndex(model, dimensions)
    index.append(rows)
    return index


def found(index: ScopeIndex, query: str, most: int = 10, **kept: object) -> list[str]:
    hits = index.search(question_of(query, None), Filter(**kept), most)  # type: ignore[arg-type]
    return [hit.id for hit in hits]


def random_rows(seed: int, count: int, vectors: bool = False) -> list[Loaded]:
    luck = random.Random(seed)
    rows = []
    packed = pack_all(np.random.default_rng(seed).normal(size=(count, 16)))
    for number in range(1, count + 1):
        text = " ".join(luck.choice(WORDS) for _ in range(luck.randint(1, 12)))
        rows.append(
            turn(
                number,
                text,
                session=f"s-{luck.randint(1, 5)}",
                role=luck.choice(["Ann", "Bob", "result"]),
                state=luck.choice(["current", "current", "current", "retired"]),
                vector=packed[number - 1] if vectors else None,
            )
        )
    return rows


# --- words ----------------------------------------------------------------------------------------


def test_words_are_stemmed_and_counted_as_the_store_does_it() -> None:
    assert words_of("Running boats, café!") == ["run", "boat", "cafe"]
    terms = terms_of("boat boats engine")
    assert terms.length == 3
    held = np.frombuffer(terms.packed, dtype=[("hash", "<u8"), ("count", "<u2")])
    assert dict(held.tolist()) == {hash_of("boat"): 2, hash_of("engin"): 1}


def test_a_word_has_the_same_hash_on_every_machine() -> None:
    """Hashes lie in stores: another one would find nothing of what is there."""
    assert hash_of("boat") == 0x4BDE54CAA0827A55


def test_text_without_spaces_is_found_by_a_part_of_it() -> None:
    index = index_of(alone(1, "明日は東京で会議があります"), alone(2, "今日は大阪"))
    assert found(index, "東京") == ["r-one#1"]


def test_hostile_texts_and_queries_cost_bounded_work() -> None:
    for said in ("\0" * 2_000, "!?" * 1_000, "boat " * 2_000, "\ud800", "a" * 100_000, "é́" * 5_000):
        terms = terms_of(said)
        assert len(terms.packed) <= 10 * max(1, terms.length)
        assert len(query_terms(said)) <= 32
    assert len(query_terms(" ".join(f"w{n}" for n in range(2_000)))) == 32


# --- BM25, by hand --------------------------------------------------------------------------------


def test_words_score_as_bm25_says_over_the_whole_scope() -> None:
    """Against the formula, written once more; each record in a thread of its own."""
    texts = ["boat boat engine", "boat harbour", "invoice", "engine engine engine river river"]
    index = index_of(*(alone(n, text) for n, text in enumerate(texts, 1)))
    hits = index.search(question_of("boat engine", None), Filter(), 10)
    lengths = [len(words_of(text)) for text in texts]
    mean = sum(lengths) / len(lengths)
    wanted = []
    for text, length in zip(texts, lengths, strict=True):
        words, score = words_of(text), 0.0
        for word in ("boat", "engin"):
            held = sum(word in words_of(one) for one in texts)
            idf = math.log(1 + (len(texts) - held + 0.5) / (held + 0.5))
            count = words.count(word)
            score += idf * count * 2.2 / (count + 1.2 * (0.6 + 0.4 * length / mean))
        wanted.append(score)
    best = max(wanted)
    for hit in hits:
        place = int(hit.id.rpartition("#")[2]) - 1
        assert hit.why["words"] == pytest.approx(1.1 * wanted[place] / best, abs=2e-4)
    assert {hit.id for hit in hits} == {"r-one#1", "r-one#2", "r-one#4"}


def test_postings_appended_in_any_pieces_are_the_same_postings() -> None:
    rows = random_rows(7, 400)
    whole = index_of(*rows)
    pieces = ScopeIndex()
    luck, at = random.Random(1), 0
    while at < len(rows):
        step = luck.randint(1, 30)
        pieces.append(rows[at : at + step])
        at += step
    for word in [*WORDS, "ann"]:
        (stem,) = words_of(word)
        for left, right in zip(
            whole.postings.of(hash_of(stem)), pieces.postings.of(hash_of(stem)), strict=True
        ):
            assert left.tolist() == right.tolist()
    for query in ("boat river", "what did Ann say of the mango", "tunnel"):
        question = question_of(query, None)
        assert whole.search(question, Filter(), 20) == pieces.search(question, Filter(), 20)


def test_a_word_of_the_text_and_of_the_role_is_counted_at_one_place() -> None:
    postings = Postings()
    postings.append(0, [terms_of("ann boat").packed], [(hash_of("ann"),)])
    places, counts = postings.of(hash_of("ann"))
    assert (places.tolist(), counts.tolist()) == ([0], [2.0])


# --- structure ------------------------------------------------------------------------------------


def test_a_question_is_found_with_its_answer_beside_it() -> None:
    index = index_of(
        turn(1, "where did you leave the parrot", session="s"),
        turn(2, "with my sister", session="s"),
        alone(3, "nothing of it"),
    )
    assert found(index, "parrot") == ["r-one#1", "r-one#2"]


def test_who_is_named_in_the_query_comes_first() -> None:
    rows = [alone(n, "we painted the boat", role="Ann" if n == 3 else "Bob") for n in range(1, 6)]
    assert found(index_of(*rows), "when did Ann paint")[0] == "r-one#3"


def test_the_word_result_in_a_query_asks_for_no_role() -> None:
    index = index_of(alone(1, "the result of the vote", role="note"), alone(2, "mango"))
    assert found(index, "result") == ["r-one#1"]


def test_what_happened_then_is_found_by_its_date() -> None:
    march = 1_678_000_000_000_000  # 5 March 2023.
    rows = [alone(n, "we met", happened_us=march + n * 90 * DAY_US) for n in range(4)]
    rows = [row._replace(number=n + 1, id=f"r-one#{n + 1}") for n, row in enumerate(rows)]
    assert found(index_of(*rows), "who met on 5 March 2023")[0] == "r-one#1"


def test_the_nearer_a_day_the_better_it_fits() -> None:
    asked = days_of("on 7 May 2023")
    may_us = 1_682_899_200_000_000  # 1 May 2023.
    fits = [asked.fit(may_us + day * DAY_US) for day in (6, 10, 25, 40)]
    assert fits == sorted(fits, reverse=True)
    assert len(set(fits)) == 4


def test_dates_are_read_and_verbs_are_not() -> None:
    assert days_of("on 7 May, 2023") == ((2023,), (5,), (7,))
    assert days_of("since 2023-05-07") == ((2023,), (5,), (7,))
    assert not days_of("may I march 12 miles")
    assert not days_of("room 12")
    assert days_of("the year 99999 or month 13 " * 500) == ((), (), ())


def test_a_short_turn_is_embedded_with_what_it_answers_and_a_long_one_alone() -> None:
    assert embedded_text("Yes!", previous="Tea?", role="Ann", happened_us=0) == "Tea?\nAnn: Yes!"
    assert embedded_text("x" * 900, previous="Tea?", role="result", happened_us=0) == "x" * 900
    assert len(embedded_text("Yes", previous="p" * 9_000, role="", happened_us=0)) < 400


# --- what may be seen -----------------------------------------------------------------------------


def test_of_two_that_fit_alike_the_newer_comes_first_always() -> None:
    index = index_of(*(alone(n, "boat") for n in range(1, 30)))
    assert found(index, "boat", 5) == [f"r-one#{n}" for n in (29, 28, 27, 26, 25)]


def test_proposed_retired_and_superseded_records_are_out() -> None:
    index = index_of(
        alone(1, "boat", state="proposed"),
        alone(2, "boat", state="retired"),
        alone(3, "boat", superseded_us=5),
        alone(4, "boat"),
    )
    assert found(index, "boat") == ["r-one#4"]


def test_a_fact_is_found_as_of_when_it_held_and_was_known() -> None:
    index = index_of(
        alone(1, "lives in Oslo", kind="fact", at_us=10, superseded_us=50, valid_to_us=40),
        alone(2, "lives in Bergen", kind="fact", at_us=50, valid_from_us=40),
    )
    assert found(index, "lives") == ["r-one#2"]
    assert found(index, "lives", as_of_us=30) == ["r-one#1"]
    # Oslo was over, but nobody knew yet: that came with what superseded it.
    assert found(index, "lives", as_of_us=45) == ["r-one#1"]
    assert found(index, "lives", as_of_us=60) == ["r-one#2"]
    assert found(index, "lives", as_of_us=5) == []


def test_kinds_runs_integrity_and_quarantine_keep_out() -> None:
    index = index_of(
        alone(1, "boat", kind="fact"),
        alone(2, "boat", act="r-two", id="r-two#2"),
        alone(3, "boat", integrity=2),
    )
    assert found(index, "boat", kinds=(MemoryKind.FACT,)) == ["r-one#1"]
    assert found(index, "boat", act="r-two") == ["r-two#2"]
    assert found(index, "boat", integrity_rank_max=1) == ["r-two#2", "r-one#1"]
    assert found(index, "boat", without={"r-one": 2}) == ["r-two#2", "r-one#1"]
    assert found(index, "boat", act="r-of-nobody") == []


def test_what_may_not_be_seen_lends_nothing_to_what_may() -> None:
    """A quarantined neighbour full of the query's words lifts nobody, in words or in meaning."""
    vectors = pack_all(np.eye(4))
    question = Question(
        tuple(query_terms("parrot")), np.array([1, 0, 0, 0], np.float32), days_of("")
    )
    index = index_of(
        turn(1, "a parrot sings", session="s", vector=vectors[1]),
        turn(2, "parrot parrot", session="s", act="r-bad", id="r-bad#2", vector=vectors[0]),
        turn(3, "a quiet day", session="s", vector=vectors[2]),
        model="m",
        dimensions=4,
    )

    def why(**kept: object) -> dict[str, dict[str, float]]:
        hits = index.search(question, Filter(**kept), 10)  # type: ignore[arg-type]
        return {hit.id: hit.why for hit in hits}

    assert {"words", "beside"} <= why()["r-one#3"].keys()  # The control: it would.
    seen = why(without={"r-bad": 0})
    assert "r-bad#2" not in seen
    assert not {"words", "beside", "meaning"} & seen.get("r-one#3", {}).keys()
    assert seen["r-one#1"]["words"] == pytest.approx(1.1)


def test_a_fact_whose_end_was_known_is_not_found_behind_it() -> None:
    index = index_of(alone(1, "lives in Oslo", kind="fact", at_us=10, valid_to_us=40))
    assert found(index, "lives", as_of_us=30) == ["r-one#1"]
    assert found(index, "lives", as_of_us=40) == []


# --- vectors --------------------------------------------------------------------------------------


def test_meaning_finds_what_words_do_not() -> None:
    vectors = pack_all(np.eye(3))
    index = index_of(
        *(alone(n, WORDS[n], vector=vectors[n - 1]) for n in (1, 2, 3)), model="m", dimensions=3
    )
    question = Question((), np.array([0, 1, 0], np.float32), days_of(""))
    assert index.search(question, Filter(), 1)[0].id == "r-one#2"


def test_what_has_no_vector_yet_is_found_by_its_words_and_by_its_meaning_later() -> None:
    vectors = pack_all(np.eye(3))
    index = index_of(
        alone(1, "boat", vector=vectors[0]), alone(2, "orchid"), model="m", dimensions=3
    )
    question = Question(tuple(query_terms("orchid")), np.array([0, 1, 0], np.float32), days_of(""))
    assert index.search(question, Filter(), 1)[0].id == "r-one#2"
    assert index.first_without_vector == 2
    index.fill([alone(2, "orchid", vector=vectors[1])])
    assert index.first_without_vector is None
    assert index.search(question, Filter(), 1)[0].why["meaning"] == pytest.approx(0.8)


def test_a_vector_of_another_size_is_no_vector() -> None:
    index = index_of(alone(1, "boat", vector=b"\0" * 9), model="m", dimensions=3)
    assert index.first_without_vector == 1
    assert found(index, "boat") == ["r-one#1"]


def test_searching_many_random_scopes_never_shows_what_may_not_be_seen() -> None:
    luck = random.Random(3)
    for seed in range(60):
        rows = random_rows(seed, luck.randint(0, 60), vectors=True)
        index = index_of(*rows, model="m", dimensions=16)
        current = {row.id for row in rows if row.state == "current"}
        vector = np.random.default_rng(seed).normal(size=16).astype(np.float32)
        for query in ("boat", "Ann and the river", "", "when did Bob, in May 2023, tunnel?"):
            hits = index.search(question_of(query, vector), Filter(), luck.randint(1, 70))
            ids = [hit.id for hit in hits]
            assert len(ids) == len(set(ids))
            assert set(ids) <= current
            assert all(math.isfinite(hit.score) for hit in hits)
