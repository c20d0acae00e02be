"""What a run remembers: episodes with recall now; working set, facts and assembly later."""

from ring0.memory.episodes import recall, scores, terms

__all__ = ["recall", "scores", "terms"]
