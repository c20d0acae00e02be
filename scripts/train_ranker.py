"""Trains the ranker of recall on a file of LoCoMo's format, and writes its weights.

    python -m venv RANKER && RANKER/bin/pip install lightgbm==4.7.0 numpy==2.4.6
    PYTHONPATH=.venv/lib/python3.11/site-packages:src RANKER/bin/python scripts/train_ranker.py FILE

Writes `src/ring0/memory/ranker.json` (all conversations) and `bench/memory/ranker_without.json.xz`
(by conversation, what was trained on all the others: what `ring0 bench memory` shows for it).
Hyper-parameters were chosen by leaving one conversation out; seeds are fixed, so it gives the same.
The data is CC BY-NC 4.0 and isn't part of ring0: the weights are figures that were fitted to it.
"""

from __future__ import annotations

import hashlib
import importlib
import lzma
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.memory import locomo  # noqa: E402
from bench.memory.embedding import Vectors  # noqa: E402

from ring0 import limits  # noqa: E402
from ring0.memory import ranker  # noqa: E402
from ring0.memory.embedding.offlinemodels import MINILM  # noqa: E402
from ring0.memory.index import Filter  # noqa: E402
from ring0.memory.index.question import question_of  # noqa: E402

TREES = 150
PARAMETERS: dict[str, Any] = {
    "objective": "lambdarank",
    "learning_rate": 0.05,
    "num_leaves": 8,
    "min_data_in_leaf": 30,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5,
    "seed": 1,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
_DIGITS = 6


class Example(NamedTuple):
    """The candidates of one question."""

    conversation: str
    asked: locomo.Asked
    places: list[int]
    rows: npt.NDArray[np.float32]


def main(path: str) -> None:
    conversations = locomo.read(path)
    examples = [one for conversation in conversations for one in _examples(conversation)]
    without, measured = {}, []
    for conversation in conversations:
        digest = conversation.digest
        trees = _trained([one for one in examples if one.conversation != digest], {})
        without[digest] = trees
        mine = [one for one in examples if one.conversation == digest]
        measured += [_measured(one, trees) for one in mine]
        print(conversation.name, _means(measured[-len(mine) :]))
    figures = _means(measured)
    print("all", figures)
    about = {
        "trained_on": "LoCoMo, conversations 1 to 5 (snap-research/locomo, CC BY-NC 4.0)",
        "trained_by": "scripts/train_ranker.py of ring0",
        "sha256_of_data": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "conversations": [one.digest for one in conversations],
        "questions": len(examples),
        "embeddings": MINILM.identity,
        "leave_one_conversation_out": figures,
        "note": "No text of the data is in here. Who may not use what was fitted to "
        "non-commercial data can do without it: recall's own order then stands.",
    }
    shipped = ROOT / "src/ring0/memory/ranker.json"
    shipped.write_bytes(
        msgspec.json.format(msgspec.json.encode(_trained(examples, about)), indent=0)
    )
    held = ROOT / "bench/memory/ranker_without.json.xz"
    held.write_bytes(lzma.compress(msgspec.json.encode(without)))


def _examples(conversation: locomo.Conversation) -> list[Example]:
    with Vectors(MINILM) as vectors:
        index = locomo.index_of(conversation, vectors.of(locomo.embedded_turns(conversation)))
        asked = vectors.of([one.question for one in conversation.asked])
    found = []
    for one, vector in zip(conversation.asked, asked, strict=True):
        question = question_of(one.question, vector)
        places, rows = index.candidates(question, Filter(), limits.RECALL_CANDIDATES)
        found.append(Example(conversation.digest, one, places.tolist(), rows))
    return found


def _trained(examples: Sequence[Example], about: dict[str, Any]) -> ranker.Trees:
    lightgbm: Any = importlib.import_module("lightgbm")  # Of this script alone.

    rows = np.concatenate([one.rows for one in examples])
    right = [place in one.asked.evidence for one in examples for place in one.places]
    data = lightgbm.Dataset(
        rows, np.array(right, np.int32), group=[len(one.places) for one in examples]
    )
    model = lightgbm.train(PARAMETERS, data, TREES)
    trees = ranker.Trees(
        features=ranker.FEATURES,
        roots=[], feature=[], threshold=[], left=[], right=[], value=[], depth=0, about=about,
    )  # fmt: skip
    depth = 0
    for one in model.dump_model()["tree_info"]:
        trees.roots.append(len(trees.feature))
        depth = max(depth, _add(trees, one["tree_structure"]))
    return msgspec.structs.replace(trees, depth=depth)


def _add(trees: ranker.Trees, node: dict[str, Any]) -> int:
    """The node and all beneath it; how deep it is."""
    place = len(trees.feature)
    leaf = "leaf_value" in node
    trees.feature.append(-1 if leaf else node["split_feature"])
    trees.threshold.append(0.0 if leaf else float(f"{node['threshold']:.{_DIGITS}g}"))
    trees.value.append(round(node["leaf_value"], _DIGITS) if leaf else 0.0)
    trees.left.append(place)
    trees.right.append(place)
    if leaf:
        return 0
    assert node["decision_type"] == "<="
    trees.left[place] = len(trees.feature)
    left = _add(trees, node["left_child"])
    trees.right[place] = len(trees.feature)
    return 1 + max(left, _add(trees, node["right_child"]))


def _measured(one: Example, trees: ranker.Trees) -> locomo.Measured:
    scores = ranker.walked(trees, one.rows)
    order = np.lexsort((-np.array(one.places), -scores))
    return locomo.measured(one.asked, [one.places[place] for place in order])


def _means(measured: Sequence[locomo.Measured]) -> dict[str, float]:
    figures = np.array([one[1:] for one in measured]).mean(axis=0)
    return dict(zip(("r@5", "r@10", "r@20", "mrr"), figures.round(4).tolist(), strict=True))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
