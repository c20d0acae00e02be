"""Which models stand in for one that does not answer: its `fallback`, and theirs.

Values only: who is asked when is decided in calls/models.py.
"""

from __future__ import annotations

from collections.abc import Callable

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.types import ModelConfig

Find = Callable[[str], ModelConfig | None]
"""The model that a configuration has under a name."""


def fallbacks(name: str, config: ModelConfig, find: Find) -> tuple[tuple[str, ModelConfig], ...]:
    """In the order in which they are asked, each once: one is followed by its own before the next
    of its neighbours. Raises ManifestInvalid for a name that is not there, and for a circle."""
    found: dict[str, ModelConfig] = {name: config}
    _add(name, config, find, (name,), found)
    return tuple((one, it) for one, it in found.items() if one != name)


def _add(
    name: str,
    config: ModelConfig,
    find: Find,
    above: tuple[str, ...],
    found: dict[str, ModelConfig],
) -> None:
    for one in config.fallback:
        if one in above:
            raise ManifestInvalid(
                f"[models.{name[:60]}] fallback names {one[:60]!r}, which falls back to it.",
                why="Models that stand in for each other in a circle would be asked without end.",
                todo="Take one of the two out.",
            )
        if one in found:
            continue
        next_one = find(one)
        if next_one is None:
            raise ManifestInvalid(
                f"[models.{name[:60]}] fallback names the model {one[:60]!r}, which is not there.",
                why="What stands in is named like any other model, in agent.toml or ring0.toml.",
                todo=f"Add [models.{one[:60]}], or correct the name.",
            )
        found[one] = next_one
        if len(found) > limits.MODEL_CHAIN_MAX:
            raise ManifestInvalid(
                f"[models.{above[0][:60]}] has more than {limits.MODEL_CHAIN_MAX - 1} models that"
                " stand in for it, with theirs.",
                todo="Leave some out.",
            )
        _add(one, next_one, find, (*above, one), found)
