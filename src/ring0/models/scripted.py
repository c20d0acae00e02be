"""The provider `scripted`: a deterministic worst-case model for demos and tests. Not a model.

It obeys every instruction that it reads, whoever wrote it: the user, a file, a row of a database.
Its answer is a pure function of the conversation and the rule file (`script.py`): it finds all
matches in order of appearance, sees from its own earlier calls, by their ids, how far it has
come, and proposes the next call; when nothing is left, it says what was done and what was refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.models.base import (
    CHARS_PER_TOKEN,
    Again,
    Delta,
    Message,
    ModelAnswer,
    ModelRequest,
    Sink,
    ToolCall,
    estimate_tokens,
)
from ring0.models.script import Condition, Rule, Script, Step
from ring0.models.template import Unresolved, all_texts, as_text, parse_result, parse_whole

MODEL_NAME: Final = "scripted"
_WORD: Final = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")
TEXT_CHARS_MAX: Final = 16 * limits.KIB
"""How much of one message the rules read: bounds what a pattern can cost."""
MATCHES_MAX: Final = 256
REASON_CHARS_MAX: Final = 200
_REFUSED_CODES: Final = frozenset(
    {"denied", "limit_reached", "login_wanted", "loop_stopped", "run_dead", "undo_refused"}
)
# Agents in other frameworks give refusals as texts of their own.
_REFUSED_TEXT: Final = re.compile(
    r"\W*(?:error\W+)?(refused|denied|blocked|forbidden|not allowed)", re.I
)
_FAILED_TEXT: Final = re.compile(r"\W*(error|failed|traceback|exception)\b", re.I)


@dataclass(frozen=True)
class Result:
    """What a tool call came to, as the conversation tells it."""

    state: str
    """`found`, `empty`, `refused` or `failed`."""
    value: Any
    reason: str = ""


@dataclass(frozen=True)
class Match:
    """An instruction found in the conversation."""

    rule: Rule
    groups: dict[str, str]

    def call_id(self, step: int) -> str:
        """The same for the same instruction, wherever it stands: it is followed once."""
        said = msgspec.json.encode([self.rule.name, sorted(self.groups.items()), step])
        return "call_" + hashlib.sha256(said).hexdigest()[:24]


@dataclass
class Report:
    """Lines for the answer at the end."""

    done: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def add(self, match: Match, step: Step, result: Result) -> None:
        line = f"- {step.call} ({match.rule.name})"
        if result.reason:
            line += f": {result.reason}"
        lines = {"refused": self.refused, "failed": self.failed}.get(result.state, self.done)
        lines.append(line)


class ScriptedProvider:
    """Answers by rules. Holds no state between answers."""

    __slots__ = ("_script",)

    def __init__(self, script: Script) -> None:
        self._script = script

    async def answer(
        self,
        request: ModelRequest,
        idempotency_key: str,
        again: Again | None = None,
        sink: Sink | None = None,
    ) -> ModelAnswer:
        """Never fails; the key is not needed, since the answer is always the same. It comes word by
        word where somebody takes it so."""
        found = self._answer(request)
        if sink is not None:
            for word in _WORD.findall(found.text):
                await sink(Delta(text=word))
        return found

    def _answer(self, request: ModelRequest) -> ModelAnswer:
        results = results_of(request.messages)
        offered = frozenset(tool.name for tool in request.tools)
        report = Report()
        for match in find_matches(self._script, request.messages):
            call = _work(match, results, offered, report)
            if call is not None:
                return _answer(request, "", (call,))
        return _answer(request, self._summary(report), ())

    async def close(self) -> None:
        """Nothing is open."""

    def _summary(self, report: Report) -> str:
        scope = {
            "done": "\n".join(report.done) or "nothing",
            "refused": "\n".join(report.refused) or "nothing",
            "failed": "\n".join(report.failed) or "nothing",
            "said": "".join(f"{line}\n" for line in report.said),
        }
        return as_text(self._script.answer.render(scope))


def find_matches(script: Script, messages: tuple[Message, ...]) -> Iterator[Match]:
    """All instructions in the conversation, in order of appearance, each different one once."""
    known: set[str] = set()
    for message in messages:
        text = _read(message)
        found = [
            (match.start(), place, match)
            for place, rule in enumerate(script.rules)
            for match in rule.when.finditer(text)
        ]
        for _, place, match in sorted(found, key=lambda one: one[:2]):
            groups = {name: value or "" for name, value in match.groupdict().items()}
            instruction = Match(script.rules[place], groups)
            key = f"{place}:{instruction.call_id(0)}"
            if key not in known:
                known.add(key)
                yield instruction
            if len(known) >= MATCHES_MAX:
                return


def _read(message: Message) -> str:
    """What the model reads of a message as possible instructions: not its own words, and not the
    kernel's refusals, which quote what was refused."""
    if message.role == "assistant":
        return ""
    text = message.content
    if message.role == "tool":
        if classify(text).state == "refused":
            return ""
        text = "\n".join(all_texts(parse_whole(text)))
    return text[:TEXT_CHARS_MAX]


def results_of(messages: tuple[Message, ...]) -> dict[str, Result]:
    """The results of all calls by id; a call without one has failed."""
    found: dict[str, Result] = {}
    for message in messages:
        for call in message.tool_calls:
            found[call.id] = Result("failed", None, "no result came back")
        if message.role == "tool":
            found[message.tool_call_id] = classify(message.content)
    return found


def classify(content: str) -> Result:
    """Whether a tool's result tells of success, of nothing found, of a refusal or a failure."""
    value = parse_result(content)
    error = value.get("error") if isinstance(value, dict) else None
    if error:
        code = error.get("code", "") if isinstance(error, dict) else ""
        said = error.get("what") or error.get("message") if isinstance(error, dict) else error
        reason = _one_line(as_text(said or code))
        refused = code in _REFUSED_CODES or (not code and _REFUSED_TEXT.match(reason))
        return Result("refused" if refused else "failed", value, reason)
    if parse_whole(content) is content:
        if _REFUSED_TEXT.match(content):
            return Result("refused", value, _one_line(content))
        if _FAILED_TEXT.match(content):
            return Result("failed", value, _one_line(content))
    rows = value.get("rows", value) if isinstance(value, dict) else value
    return Result("empty" if rows is None or rows in ("", [], {}) else "found", value)


def _work(
    match: Match, results: dict[str, Result], offered: frozenset[str], report: Report
) -> ToolCall | None:
    """The next call for an instruction; None when it is worked off, with what came of it."""
    scope: dict[str, Any] = dict(match.groups)
    by_step: dict[str, Result] = {}
    for place, step in enumerate(match.rule.steps):
        if not _applies(step.conditions, by_step):
            continue
        try:
            args = step.args.render(scope)
        except Unresolved as missing:
            report.add(match, step, Result("failed", None, f"there is no {missing}"))
            continue
        identity = match.call_id(place)
        result = results.get(identity)
        if result is None and step.call in offered:
            return ToolCall(id=identity, name=step.call, args=args)
        if result is None:
            result = Result("refused", None, "the tool is not offered")
        report.add(match, step, result)
        scope["result"] = result.value
        by_step[""] = result
        if step.name:
            scope[step.name] = result.value
            by_step[step.name] = result
    try:
        report.said += [text] if (text := as_text(match.rule.say.render(scope))) else []
    except Unresolved:
        pass
    return None


def _applies(conditions: tuple[Condition, ...], by_step: dict[str, Result]) -> bool:
    """`ok` is both found and empty. A step that did not run is in no state but `any`."""
    for condition in conditions:
        result = by_step.get(condition.step)
        if condition.state == "any" and not condition.step:
            return True
        if result is not None and (
            condition.state in (result.state, "any")
            or (condition.state == "ok" and result.state in ("found", "empty"))
        ):
            return True
    return False


def _answer(request: ModelRequest, text: str, calls: tuple[ToolCall, ...]) -> ModelAnswer:
    text = text[: request.max_tokens * CHARS_PER_TOKEN]
    said = len(text) + sum(len(msgspec.json.encode(call)) for call in calls)
    return ModelAnswer(
        text=text,
        tool_calls=calls,
        tokens_in=estimate_tokens(len(msgspec.json.encode(request))),
        tokens_out=estimate_tokens(said),
        model=MODEL_NAME,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())[:REASON_CHARS_MAX]
