"""What a store hands out beside the words of types.py: rows of projections, recall's statistics."""

from __future__ import annotations

from ring0.types import Episode, Frozen

# --- what recall needs to score within a scope -----------------------------------------------


class Candidate(Frozen, frozen=True, kw_only=True):
    """An episode that holds at least one of the terms."""

    episode: Episode
    length: int
    """In tokens."""
    frequencies: tuple[int, ...]
    """Of each term, in the order asked."""


class Candidates(Frozen, frozen=True, kw_only=True):
    """Candidates with the statistics of their scope, and of no other."""

    found: tuple[Candidate, ...]
    episodes: int
    """In the scope."""
    length_mean: float
    episodes_with: tuple[int, ...]
    """Of each term."""


class Head(Frozen, frozen=True, kw_only=True):
    """The Merkle head of a journal."""

    size: int
    root: str


class SandboxRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `sandbox`."""

    id: str
    run: str
    pid: int
    start_ticks: int
    boot_id: str
    purpose: str
    ended: bool = False


class CapRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `cap`."""

    key: str
    used: int
    window: int = 0
    """The newest that it has seen."""

    def used_in(self, window: int) -> int:
        return self.used if window <= self.window else 0


class TenantRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `tenant`: what the journal holds of its runs."""

    tenant: str
    events: int = 0
    stored_bytes: int = 0
    quota_bytes: int = 0
    """What an operator lets it store, of what the bound in limits.py leaves; 0: all of that."""


class ArchiveRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `archive`: the file that holds an ended run's values."""

    run: str
    digest: str
    """SHA-256 of the file."""
    values: int
    size_bytes: int
    """Of the values, as they were stored."""
    by: str
    at_us: int


class KillRow(Frozen, frozen=True, kw_only=True):
    """A row of the projection `kill`: the newest generation for one target."""

    scope: str
    target: str
    generation: int
