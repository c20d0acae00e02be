"""Step 9 of the gate: the label of a result, and of its fields where our own driver produced it.

A field is only as good as its manifest says where the tool did not just give back what it was
given: a stranger's value that is handed to a lookup does not come back as the lookup's own.
Not here: how a rule is matched (guardrails/fields.py), what else becomes of it (recording.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.guardrails import Seen, tokens
from ring0.guardrails.fields import Rules, Scalar, Steps, compiled, leaves, vouches, written
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.steps.judging import Judged
from ring0.store import events as ev
from ring0.tools.driver import Result
from ring0.types import (
    CONFIDENTIALITY_RANK,
    CallKind,
    CallState,
    Confidentiality,
    FieldRule,
    Integrity,
    Label,
    Outcome,
    ToolManifest,
)

_Leaf = tuple[Steps, Scalar]
_NOTHING: Final = Label(integrity=Integrity.SYSTEM)


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """The labels of a result."""

    whole: Label
    worst: Label
    """What the run that is given it has then read."""
    fields: tuple[FieldRule, ...] = ()
    """The rules that count for some field of it."""
    declassified: tuple[ev.Declassified, ...] = ()


def of_tool(manifest: ToolManifest, label: Label) -> Label:
    """A label with what the manifest says of all that the tool tells, its errors among it."""
    return label.join(Label(integrity=Integrity.USER, confidentiality=manifest.confidentiality))


def of_error(manifest: ToolManifest, error: Ring0Error, source: str) -> Label:
    """A tool's own error is text from the tool: labelled as its results are."""
    said = Label(
        integrity=manifest.output,
        confidentiality=Confidentiality(error.confidentiality),
        sources=(source,),
    )
    return of_tool(manifest, said)


def of_result(run: LiveRun, judged: Judged, result: Result, value: Any, *, cut: bool) -> Labelled:
    """`value`: as it goes back, redacted and bounded; `cut`: it was too large, and is its beginning
    as text. The run has not seen it yet."""
    held, manifest = judged.held, judged.tool.manifest
    if held.kind is CallKind.OBSERVED and held.name in run.tools:
        # What came of a tool of the agent's own: of its manifest only what makes it worse counts.
        manifest = run.tools[held.name].manifest
    whole = of_tool(manifest, result.label)
    own = held.kind is CallKind.TOOL and manifest.where == "kernel"
    rules = manifest.fields if own else ()
    if not rules:
        return Labelled(whole=whole, worst=whole if result.reads else _NOTHING)
    rules = tuple(_no_more_public(rule, result.label) for rule in rules)
    found = list(islice(leaves(value), limits.FIELD_LEAVES_MAX + 1))
    if cut or len(found) > limits.FIELD_LEAVES_MAX:
        # Not every field can be told: nothing is vouched for, and all of it is as the worst.
        worst = _worst(whole, (rule.confidentiality for rule in rules))
        return Labelled(whole=worst, worst=worst)
    rules = _without_echoes(rules, found, held, run.seen)
    read = compiled(rules)
    kept = sorted({at for steps, _ in found for at in read.places(steps)})
    return Labelled(
        whole=whole,
        worst=_worst(
            whole, (read.label(steps, leaf, whole).confidentiality for steps, leaf in found)
        ),
        fields=tuple(rules[at] for at in kept),
        declassified=_declassified(held, whole, rules, read, found),
    )


def _worst(whole: Label, hidden: Iterable[Any]) -> Label:
    levels = [whole.confidentiality, *(level for level in hidden if level is not None)]
    return replace(whole, confidentiality=max(levels, key=CONFIDENTIALITY_RANK.__getitem__))


def _no_more_public(rule: FieldRule, driver: Label) -> FieldRule:
    """A manifest can't make public what the driver found to be private."""
    if rule.confidentiality is None:
        return rule
    both = (rule.confidentiality, driver.confidentiality)
    return replace(rule, confidentiality=max(both, key=CONFIDENTIALITY_RANK.__getitem__))


def founds(kind: CallKind, args: Mapping[str, Any], outcome: Outcome) -> Label | None:
    """How far a result may found an argument; None: not at all.

    Only the root task and what a person tells the run are the user's word, and only what a manifest
    vouches for is better than untrusted: files, memory and children hold what agents wrote. The
    kernel's own echoes and what a model said found nothing.
    """
    # What a tool's sandbox fetched comes to the run in the tool's own result.
    silent = (CallKind.MODEL, CallKind.EGRESS, CallKind.PROPOSAL)
    label = outcome.label
    if outcome.state is not CallState.OK or kind in silent:
        return None
    if kind is CallKind.OBSERVED:
        return label
    if label.integrity is Integrity.SYSTEM:
        return None
    told = kind is CallKind.WAIT and "message" in args and label.integrity is Integrity.USER
    if told or label.integrity is Integrity.TRUSTED_FIELD:
        return label
    return replace(label, integrity=Integrity.UNTRUSTED)


# --- what a tool only gives back ----------------------------------------------------------------


def _without_echoes(
    rules: tuple[FieldRule, ...], found: list[_Leaf], held: Held, seen: Seen
) -> tuple[FieldRule, ...]:
    """The rules, with an exception before them for each value that they would vouch for and that
    the call was given: it is as good as where it was taken from. Where that can't be told of all,
    nothing is vouched for."""
    read = compiled(rules)
    given = _Given(held.args, seen)
    exceptions: list[FieldRule] = []
    for steps, leaf in found:
        if read.vouching(steps, leaf) < 0 or not given.unfounded(leaf):
            continue
        path = written(steps)
        if not path or given.over or len(exceptions) >= limits.FIELDS_PER_OUTCOME_MAX:
            return tuple(map(_without_praise, rules))
        exceptions.append(FieldRule(path=path, integrity=Integrity.UNTRUSTED))
    return (*exceptions, *rules)


def _without_praise(rule: FieldRule) -> FieldRule:
    if not vouches(rule):
        return rule
    return replace(rule, integrity=Integrity.UNTRUSTED, sanitiser="")


class _Given:
    """What a call was given, to be compared with what came back. Bounded: hostile arguments and
    results must not take quadratic time."""

    def __init__(self, args: Mapping[str, Any], seen: Seen) -> None:
        self._seen = seen
        self._args = [(str(leaf), _text(leaf)) for leaf in _plain(args)]
        self._all = "\0".join(text for _, text in self._args)
        self._left = limits.FIELD_ECHO_CHARS_MAX
        self._good: dict[str, bool] = {}
        self.over = False
        """More was to be compared than can be."""

    def unfounded(self, leaf: Scalar) -> bool:
        """It was given, as a whole or as a part, and from nowhere better than untrusted data."""
        if leaf is None or isinstance(leaf, bool) or not (text := _text(leaf)):
            return False
        number = tokens.as_number(text)
        self._left -= len(self._all) + len(text) * len(self._args)
        if self._left < 0:
            self.over = True
            return True
        return any(
            not self._founded(said)
            for said, own in self._args
            if own == text
            or (number is not None and number == tokens.as_number(own))
            or (text in self._all and _holds(own, text))
            or (len(own) >= limits.FIELD_ECHO_CHARS_MIN and _holds(text, own))
        )

    def _founded(self, said: str) -> bool:
        if said not in self._good:
            origins = self._seen.origins({"given": said}, ("given",))
            self._good[said] = all(
                bool(origin.sources) and origin.integrity is not Integrity.UNTRUSTED
                for origin in origins
            )
        return self._good[said]


def _text(leaf: Scalar) -> str:
    return tokens.folded(tokens.visible(str(leaf)))


def _plain(args: Mapping[str, Any]) -> Iterator[Scalar]:
    for _, leaf in leaves(args):
        if leaf is not None and not isinstance(leaf, bool) and leaf != "":
            yield leaf


def _holds(text: str, part: str) -> bool:
    """As a word or words of their own."""
    start = text.find(part)
    while start >= 0:
        if tokens.stands_alone(text, start, start + len(part)):
            return True
        start = text.find(part, start + 1)
    return False


# --- what a sanitiser lets through --------------------------------------------------------------


def _declassified(
    held: Held, whole: Label, rules: tuple[FieldRule, ...], read: Rules, found: list[_Leaf]
) -> tuple[ev.Declassified, ...]:
    if whole.integrity is not Integrity.UNTRUSTED or not any(rule.sanitiser for rule in rules):
        return ()
    let_through: Counter[int] = Counter()
    for steps, leaf in found:
        at = read.vouching(steps, leaf)
        if at >= 0 and rules[at].sanitiser:
            let_through[at] += 1
    return tuple(
        ev.Declassified(
            call=held.id,
            what=rules[at].path,
            values=count,
            before=whole.integrity,
            after=Integrity.TRUSTED_FIELD,
            by=f"sanitiser {rules[at].sanitiser}",
        )
        for at, count in sorted(let_through.items())
    )
