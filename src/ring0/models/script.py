"""The rule file of the model `scripted`: its form, read and checked. See `scripted.py` for what
the rules do.

    answer = "Done:\\n{done}\\nRefused:\\n{refused}"      # also {failed} and {said}

    [[rules]]
    name = "close account"
    when = 'close my account for (?P<email>\\S+@\\S+\\w)'  # Python regex, flags i and m
    say = "Closing {email}."                             # optional, goes into {said}
    [[rules.steps]]                                      # or `call` and `args` in the rule itself
    name = "found"                                       # optional, for {found.COLUMN} and `if`
    call = "crm.query"
    args = { sql = "SELECT id FROM customers WHERE email = ?", params = ["{email}"] }
    [[rules.steps]]
    if = "found"                    # of the step before: ok empty found refused failed any; or a
    call = "crm.execute"            # list of them; or of a named step: "found.empty"
    args = { sql = "DELETE FROM customers WHERE id = ?", params = ["{result.id}"] }
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ring0 import errors, limits
from ring0.models.template import Template

SCRIPT_SIZE_BYTES_MAX: Final = 256 * limits.KIB
RULES_MAX: Final = 256
STEPS_MAX: Final = 32
PATTERN_CHARS_MAX: Final = 1_000
STATES: Final = frozenset({"ok", "empty", "found", "refused", "failed", "any"})
SUMMARY_NAMES: Final = frozenset({"done", "refused", "failed", "said"})
ANSWER_DEFAULT: Final = "{said}Done:\n{done}\nRefused:\n{refused}\nFailed:\n{failed}"
# A repetition of a repetition, `(a+)+`: time exponential in the text. Rules run in the kernel.
_NESTED_REPEAT: Final = re.compile(r"\((?:[^()\\]|\\.)*[+*}](?:[^()\\]|\\.)*\)(?:[+*]|\{\d+,\d*\})")
_STEP_NAME: Final = re.compile(r"[A-Za-z_]\w{0,31}", re.ASCII)


class _StepFile(msgspec.Struct, forbid_unknown_fields=True):
    call: str
    args: dict[str, Any] = {}
    name: str = ""
    condition: str | list[str] = msgspec.field(default="any", name="if")


class _RuleFile(msgspec.Struct, forbid_unknown_fields=True):
    when: str
    name: str = ""
    say: str = ""
    call: str = ""
    args: dict[str, Any] = {}
    steps: list[_StepFile] = []


class _ScriptFile(msgspec.Struct, forbid_unknown_fields=True):
    rules: list[_RuleFile]
    answer: str = ANSWER_DEFAULT


@dataclass(frozen=True)
class Condition:
    """`state` of the step called `step`; of the one that ran before, where that is empty."""

    step: str
    state: str


@dataclass(frozen=True)
class Step:
    """One tool call of a rule."""

    name: str
    call: str
    args: Template
    conditions: tuple[Condition, ...]
    """Any of them is enough."""


@dataclass(frozen=True)
class Rule:
    """An instruction that the model recognises, and what it does about it."""

    name: str
    when: re.Pattern[str]
    say: Template
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Script:
    """A checked rule file."""

    rules: tuple[Rule, ...]
    answer: Template


def load_script(folder: str, script: str) -> Script:
    """The rule file `script` in `folder`. Raises `ManifestInvalid`, naming the line or the key."""
    if not script or script.startswith("/") or ".." in script.split("/") or "\0" in script:
        raise _invalid(script or "a script", "it must be a file beside the manifest")
    path = os.path.join(folder, script)
    try:
        with open(path, "rb") as file:
            body = file.read(SCRIPT_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise _invalid(script, error.strerror or str(error)) from None
    return parse_script(body, script)


def parse_script(body: bytes, name: str) -> Script:
    """The bytes of a rule file as a `Script`."""
    if len(body) > SCRIPT_SIZE_BYTES_MAX:
        raise _invalid(name, f"it is larger than {SCRIPT_SIZE_BYTES_MAX:,} bytes")
    try:
        found = msgspec.convert(tomllib.loads(body.decode()), _ScriptFile)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise _invalid(name, str(error)) from None
    except RecursionError:
        raise _invalid(name, "it is nested too deep") from None
    if len(found.rules) > RULES_MAX:
        raise _invalid(name, f"it has more than {RULES_MAX} rules")
    try:
        rules = tuple(_rule(rule, f"rules[{place}]") for place, rule in enumerate(found.rules))
        return Script(rules, _template(found.answer, SUMMARY_NAMES, "answer"))
    except _Wrong as error:
        raise _invalid(name, str(error)) from None


class _Wrong(Exception):
    """`key: what is wrong with it`."""


def _rule(rule: _RuleFile, at: str) -> Rule:
    if len(rule.when) > PATTERN_CHARS_MAX or not rule.when:
        raise _Wrong(f"{at}.when: a pattern has 1 to {PATTERN_CHARS_MAX} characters")
    if _NESTED_REPEAT.search(rule.when):
        raise _Wrong(f"{at}.when: a repetition of a repetition takes exponential time")
    try:
        when = re.compile(rule.when, re.IGNORECASE | re.MULTILINE)
    except (re.error, RecursionError, OverflowError) as error:
        raise _Wrong(f"{at}.when: {error}") from None
    files, places = rule.steps, [f"{at}.steps[{place}]" for place in range(len(rule.steps))]
    if rule.call:
        if files:
            raise _Wrong(f"{at}: it has both call and steps")
        files, places = [_StepFile(rule.call, rule.args)], [at]
    elif rule.args:
        raise _Wrong(f"{at}.args: there is no call that they belong to")
    if len(files) > STEPS_MAX or not (files or rule.say):
        raise _Wrong(f"{at}: a rule has a call, 1 to {STEPS_MAX} steps or something to say")
    groups = frozenset(when.groupindex)
    steps: list[Step] = []
    for step, place in zip(files, places, strict=True):
        steps.append(_step(step, place, groups, steps))
    return Rule(rule.name or at, when, _template(rule.say, groups, f"{at}.say"), tuple(steps))


def _step(step: _StepFile, at: str, groups: frozenset[str], before: list[Step]) -> Step:
    earlier = frozenset(one.name for one in before if one.name)
    if not step.call or len(step.call) > limits.CALL_NAME_CHARS_MAX:
        raise _Wrong(f"{at}.call: it is not a tool's name")
    if step.name and not _STEP_NAME.fullmatch(step.name):
        raise _Wrong(f"{at}.name: a name has letters, digits and _")
    if step.name in groups | earlier | {"result"}:
        raise _Wrong(f"{at}.name: {step.name!r} is taken")
    known = groups | earlier | ({"result"} if before else set())
    conditions = []
    for text in [step.condition] if isinstance(step.condition, str) else step.condition:
        of, _, state = text.rpartition(".")
        if state not in STATES or (of and of not in earlier):
            raise _Wrong(f"{at}.if: {text!r} is not one of {', '.join(sorted(STATES))},"
                         " alone or after the name of an earlier step and a dot")  # fmt: skip
        if not before and text != "any":
            raise _Wrong(f"{at}.if: there is no step before it")
        conditions.append(Condition(of, state))
    if not conditions:
        raise _Wrong(f"{at}.if: it is empty")
    args = _template(step.args, known, f"{at}.args")
    return Step(step.name, step.call, args, tuple(conditions))


def _template(source: Any, known: frozenset[str], at: str) -> Template:
    try:
        # TOML also has dates, infinity and NaN, which are no JSON: the first become texts.
        plain = msgspec.to_builtins(source)
        json.dumps(plain, allow_nan=False)
        template = Template(plain)
    except (TypeError, ValueError) as error:
        raise _Wrong(f"{at}: {error}") from None
    unknown = sorted(template.names - known)
    if unknown:
        names = ", ".join(sorted(known)) or "nothing"
        raise _Wrong(f"{at}: {{{unknown[0]}}} refers to nothing; known here: {names}")
    return template


def _invalid(name: str, why: str) -> errors.ManifestInvalid:
    return errors.ManifestInvalid(
        f"The script {name} of the model can't be used.",
        why=why,
        todo="see the form of a rule file in ring0/models/script.py",
    )
