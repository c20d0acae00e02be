"""Runs that wait for each other in a circle: the wait-for graph, looked at when a wait begins.

A run with several waits is taken for stuck as soon as one of them is: its tasks share its locks.
A wait for the first of several ends when any of them can go on, so the graph is an and-or graph:
stuck is the greatest set in which nobody has a way out (Knapp, Deadlock detection in distributed
databases, 1987).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


class Wait:
    """One wait of a run."""

    __slots__ = ("any_of", "run", "runs", "started_us")

    def __init__(
        self, run: str, started_us: int = 0, runs: Sequence[str] = (), any_of: bool = False
    ) -> None:
        self.run = run
        self.started_us = started_us
        """When the run was started: the youngest gives way."""
        self.runs = tuple(runs)
        """Whom it waits for; an ask for a lock finds that out at each look."""
        self.any_of = any_of
        """Over as soon as one of them is."""

    def __str__(self) -> str:
        return f"{self.run} waits for the {'first' if self.any_of else 'end'}"


Targets = Callable[[Wait], Sequence[str]]


def find(run: str, waits: Mapping[str, Sequence[Wait]], targets: Targets) -> list[Wait] | None:
    """The waits of the circle that the run is in; None where it is in none."""
    edges = _reached(run, waits, targets)
    stuck = _stuck(edges)
    if run not in stuck:
        return None
    back = _leading_to(run, stuck, edges)
    circle = [
        wait
        for one in edges
        if one in back
        for wait, to in edges[one]
        if _is_stuck(wait, to, stuck) and any(target in back for target in to)
    ]
    return circle or None


Edges = dict[str, list[tuple[Wait, Sequence[str]]]]


def _reached(run: str, waits: Mapping[str, Sequence[Wait]], targets: Targets) -> Edges:
    """All runs that this one waits for, however far away, with their waits."""
    edges: Edges = {}
    next_runs = [run]
    while next_runs:
        one = next_runs.pop()
        if one in edges or one not in waits:
            continue
        edges[one] = [(wait, targets(wait)) for wait in waits[one]]
        next_runs += [target for _, to in edges[one] for target in to]
    return edges


def _stuck(edges: Edges) -> dict[str, None]:
    """Those without a way out. Who is found to have one is taken out, and then only those who wait
    for it are looked at again: thousands may stand in one queue."""
    waiting_for: dict[str, list[str]] = {}
    for one, found in edges.items():
        for target in {target: None for _, to in found for target in to}:
            waiting_for.setdefault(target, []).append(one)
    stuck = dict.fromkeys(edges)
    to_look_at = list(edges)
    while to_look_at:
        one = to_look_at.pop()
        if one in stuck and not any(_is_stuck(wait, to, stuck) for wait, to in edges[one]):
            del stuck[one]
            to_look_at += waiting_for.get(one, ())
    return stuck


def _is_stuck(wait: Wait, to: Sequence[str], stuck: Mapping[str, None]) -> bool:
    if wait.any_of:
        return bool(to) and all(target in stuck for target in to)
    return any(target in stuck for target in to)


def _leading_to(run: str, stuck: Mapping[str, None], edges: Edges) -> frozenset[str]:
    """Of the stuck ones those that wait for this run, however far away; itself included."""
    before: dict[str, list[str]] = {}
    for one in stuck:
        for wait, to in edges[one]:
            if _is_stuck(wait, to, stuck):
                for target in to:
                    before.setdefault(target, []).append(one)
    found: dict[str, None] = {}
    next_runs = [run]
    while next_runs:
        one = next_runs.pop()
        if one not in found:
            found[one] = None
            next_runs += before.get(one, [])
    return frozenset(found)
