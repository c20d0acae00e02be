"""Steps 4 and 9 of the gate: what scanners find in what leaves with a call, and in what comes back.

A finding says in which part of a value it stands and how bad it is. What is a finding is
guardrails/scanners; what follows from one that leaves, governance says. One that comes back only
raises a label (a secret's), or is told to whoever is asked later on: it decides nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.guardrails import Secrets, Seen, telling
from ring0.guardrails.flows import is_told
from ring0.guardrails.scanners import (
    NOT_SCANNED,
    Budget,
    Confidence,
    Finding,
    Rules,
    Severity,
    scan,
)
from ring0.guardrails.scanners.masking import Masking
from ring0.guardrails.scanners.reading import LONG_CHARS_MIN
from ring0.guardrails.scanners.streaming import masked
from ring0.guardrails.scanners.views import APART
from ring0.kernel.answers import Answers
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.steps import editing
from ring0.runtime import Runtime
from ring0.store import Store
from ring0.tools.driver import Prepared, Result
from ring0.tools.egress.headers import is_secret
from ring0.types import CallKind, Confidentiality, Effect, Found, Integrity, Label, Outcome

LEAVING: Final = Rules(profanity=False, injection=False)
"""What is looked for in what goes out."""
ARRIVING: Final = Rules(profanity=False, personal=False)
"""Likewise in what comes back."""
_BRINGING: Final = frozenset(
    (
        *(CallKind.TOOL, CallKind.OBSERVED, CallKind.WAIT),
        *(CallKind.MEMORY_RECALL, CallKind.MEMORY_EXPLAIN, CallKind.MEMORY_ASSEMBLE),
    )
)
"""Calls that bring what others wrote. A model's answer is written under the run's own eyes."""
_NO_SECRETS: Final = Masking(links=False)
_RISKS: Final = ("hidden/", "injection/", NOT_SCANNED)
_ASKING: Final = (NOT_SCANNED, "secret", "link")
_HIDDEN: Final = Label(integrity=Integrity.USER, confidentiality=Confidentiality.SECRET)


class Texts:
    """The texts of one value, as one text that no rule looks across the joints of."""

    __slots__ = ("_paths", "_starts", "chars", "cut", "whole")

    def __init__(self, parts: Iterable[tuple[str, str]], chars_max: int) -> None:
        """`parts`: where each stands, and the text. What goes beyond `chars_max` is left out."""
        self._paths: list[str] = []
        self._starts: list[int] = []
        self.chars = 0
        self.cut = False
        """Something was left out."""
        kept: list[str] = []
        for path, text in parts:
            if self.chars + len(text) > chars_max:
                text, self.cut = text[: max(0, chars_max - self.chars)], True
            if text:
                self._paths.append(path)
                self._starts.append(self.chars)
                kept.append(text)
                self.chars += len(text) + len(APART)
            if self.cut:
                break
        self.whole = APART.join(kept)

    def found(self, rules: Rules, chars_max: int) -> tuple[Finding, ...]:
        """What there is in them. The same text has the same findings, whoever looks and when."""
        findings = scan(self.whole, budget=Budget(chars=chars_max), rules=rules).findings
        if not self.cut or any(each.rule == NOT_SCANNED for each in findings):
            return findings
        return (*findings, _left_over(len(self.whole)))

    def where(self, place: int) -> str:
        """The path of what stands there."""
        return self._paths[max(0, bisect_right(self._starts, place) - 1)] if self._paths else ""


async def leaving(
    run: LiveRun, held: Held, store: Store, secrets: Secrets, runtime: Runtime
) -> None:
    """Step 4: looks at what would go out with the call, as people have left it. Nothing is looked
    at of a call that takes nothing anywhere."""
    await editing.apply(run, held, store, secrets)
    if held.scanned is held.args:
        return
    held.scanned, held.findings = held.args, ()
    parts = None if run.agent.operator else _going_out(held)
    if parts is None:
        return
    texts = Texts(parts, limits.SCAN_LEAVING_CHARS_MAX)
    findings = await _looked(texts, LEAVING, 2 * limits.SCAN_LEAVING_CHARS_MAX, runtime)
    held.findings = _told(
        texts, (each for each in findings if not _is_users(each, texts, run.seen))
    )


async def arriving(
    held: Held,
    result: Result | Ring0Error,
    secrets: Secrets,
    answers: Answers,
    runtime: Runtime,
) -> None:
    """Before step 9: looks at what came back from where nobody vouches for it. What has the form of
    a secret that nobody told us of is hidden from then on, as one that we know of."""
    held.arrived, held.spotlight = (), answers.spotlight
    if held.kind is CallKind.MODEL and isinstance(result, Result):
        answers.mask(result, secrets)
    if held.kind not in _BRINGING:
        return
    if isinstance(result, Result):
        if result.label.integrity is not Integrity.UNTRUSTED:
            return
        value = held.args.get("result") if held.kind is CallKind.OBSERVED else result.value
    else:
        value = result.as_dict()
    most = limits.SCAN_ARRIVING_CHARS_MAX
    texts = Texts(texts_of(value), most)
    findings = await _looked(texts, ARRIVING, most, runtime)
    if any(_is_secret(each) for each in findings):
        # Those that are known do not come back: they are none of the run's.
        clean, known = secrets.redact(value)
        if known:
            texts = Texts(texts_of(clean), most)
            findings = await _looked(texts, ARRIVING, most, runtime)
    held.arrived = _told(texts, findings)
    if not any(_is_secret(each) and each.confidence is Confidence.HIGH for each in findings):
        return
    if isinstance(result, Result):
        result.label = result.label.join(_HIDDEN)
    else:
        result.confidentiality = Confidentiality.SECRET.value


async def refusing(
    held: Held, error: Ring0Error, secrets: Secrets, answers: Answers, runtime: Runtime
) -> None:
    """Likewise before a no goes on record that was no policy's: a dry run says what it has read."""
    if error.tells_of_data:
        await arriving(held, error, secrets, answers, runtime)


def facts(findings: Iterable[Found]) -> tuple[tuple[str, ...], int]:
    """What a policy is told: the rules, the kinds that ask by themselves, the worst severity."""
    names: set[str] = set()
    worst = 0
    for each in findings:
        names.update(filter(None, (each.rule, _asking(each))))
        worst = max(worst, each.severity)
    return tuple(sorted(names)), worst


def _asking(found: Found) -> str:
    """The kind of what asks by itself; empty: it does not."""
    kind = found.rule.partition("/")[0]
    sure = found.sure if kind == "secret" else found.severity >= Severity.MEDIUM
    return kind if kind in _ASKING and sure else ""


def lines(findings: Iterable[Found]) -> tuple[str, ...]:
    """For whoever approves the call."""
    return tuple(telling.line(each.where, each.rule, each.shown) for each in findings)


def risks(run: LiveRun, prepared: Prepared) -> tuple[str, ...]:
    """What the run has read, for whoever is asked about a call that does something."""
    return tuple(run.risks) if prepared.mutates else ()


def learn(run: LiveRun, source: str, outcome: Outcome) -> None:
    """What came back looks like an order to a model, or hides something: whoever is asked from now
    on is told, and no verdict is another for it."""
    for each in outcome.findings:
        if each.rule.startswith(_RISKS) and len(run.risks) < limits.SCAN_RISKS_MAX:
            run.risks[telling.read_line(source, each.rule, each.shown)] = None


def texts_of(value: Any) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value that something can be in, with its path; keys too, each once."""
    stack: list[tuple[str, Any]] = [("", value)]
    keys: set[str] = set()
    while stack:
        path, item = stack.pop()
        if isinstance(item, str):
            if not _is_plain(item, limits.SCAN_TEXT_CHARS_MIN):
                yield path, item
        elif isinstance(item, Mapping):
            for key in item:
                if key not in keys and not _is_plain(key, LONG_CHARS_MIN):
                    keys.add(key)
                    yield _beneath(path, key), key
            stack.extend((_beneath(path, key), item[key]) for key in reversed(item))
        elif isinstance(item, list | tuple):
            stack.extend((f"{path}[{at}]", item[at]) for at in range(len(item) - 1, -1, -1))


def _is_plain(text: str, chars_min: int) -> bool:
    """Too short for anything to be in it."""
    return len(text) < chars_min and text.isascii() and text.isprintable()


def _beneath(path: str, key: str) -> str:
    """Many values may stand beneath one long name: it is not repeated for each."""
    short = key[: limits.SCAN_NAME_CHARS_MAX]
    return f"{path}.{short}" if path else short


async def _looked(
    texts: Texts, rules: Rules, chars_max: int, runtime: Runtime
) -> tuple[Finding, ...]:
    if not texts.whole:
        return ()
    if texts.chars <= limits.SCAN_AT_ONCE_CHARS_MAX:
        return texts.found(rules, chars_max)
    # Others go on meanwhile. Where the run is stopped then, that is heard at the next wait: what is
    # looked at here may have come of an effect that was carried out, and goes on record first.
    off_the_loop = runtime.in_thread(texts.found, rules, chars_max)
    looking = runtime.start(off_the_loop, name="scan")
    try:
        return await asyncio.shield(looking)
    except asyncio.CancelledError:
        found = await looking
        if (here := asyncio.current_task()) is not None:
            here.cancel()
        return found


def _going_out(held: Held) -> Iterator[tuple[str, str]] | None:
    """The texts that would leave; None: the call takes nothing anywhere."""
    if held.kind is CallKind.EGRESS:
        return _of_request(held.args)
    if held.kind is CallKind.TOOL and held.tool is not None:
        manifest = held.tool.manifest
        reads = manifest.effect is Effect.PURE and not manifest.egress
        told = is_told(manifest) or manifest.effect is Effect.ONCE or manifest.egress
        return texts_of(held.args) if told and not reads else None
    # Whatever a manifest says of its arguments: what is hidden goes where nobody said it would.
    return texts_of(held.args) if held.kind is CallKind.PROPOSAL else None


def _of_request(args: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of a request all but the fields that credentials are for: those are judged by its rule."""
    for name, value in args.items():
        if name == "headers" and isinstance(value, Mapping):
            for key, text in value.items():
                if not is_secret(str(key).lower().replace("_", "-")):
                    yield f"headers.{key}", str(text)
        elif name == "body_base64":
            yield name, _decoded(str(value))
        elif isinstance(value, str):
            yield name, value


def _decoded(body: str) -> str:
    try:
        return base64.b64decode(body).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return body


def _is_secret(finding: Finding) -> bool:
    return finding.rule.startswith("secret/")


def _is_users(finding: Finding, texts: Texts, seen: Seen) -> bool:
    """A link that the user typed as it is carries what the user wants to be carried."""
    if not finding.rule.startswith("link/") or not finding.exact or finding.view:
        return False
    return seen.is_typed(texts.whole[finding.start : finding.end])


def _told(texts: Texts, findings: Iterable[Finding]) -> tuple[Found, ...]:
    """As many as are kept: what asks is never pushed out by what does not, then the worst."""
    found = [
        Found(
            rule=each.rule,
            where=_named(texts.where(each.start)[: limits.SCAN_PATH_CHARS_MAX]),
            severity=int(each.severity),
            sure=each.confidence is Confidence.HIGH,
            shown=each.shown,
        )
        for each in findings
    ]
    found.sort(key=lambda each: (_rank(each), -each.severity, not each.sure))
    once: dict[tuple[str, str], Found] = {}
    for one in found:
        once.setdefault((one.rule, one.where), one)
    return tuple(once.values())[: limits.SCAN_KEPT_MAX]


def _named(path: str) -> str:
    """A name may be a secret itself."""
    return path if _is_plain(path, limits.SCAN_TEXT_CHARS_MIN) else masked(path, _NO_SECRETS)


def _rank(found: Found) -> int:
    kind = _asking(found)
    return _ASKING.index(kind) if kind else len(_ASKING)


def _left_over(start: int) -> Finding:
    return Finding(
        rule=NOT_SCANNED,
        severity=Severity.MEDIUM,
        confidence=Confidence.HIGH,
        start=start,
        end=start,
        shown="(it is longer than what is looked through)",
        exact=False,
    )
