"""Grants: what is handed on is never more than whoever hands it on holds."""

from __future__ import annotations

import functools
import os
import random
import time

import pytest

from ring0 import limits
from ring0.errors import InvalidInput, ManifestInvalid
from ring0.identity.narrowing import Narrowed, allows, exactly, for_task, narrowed, subject
from ring0.kernel.agent.agents import Agent, Family
from ring0.tools.egress import canonical, parse_rules
from ring0.types import AgentManifest, Budget, CallKind

DELEGATIONS = int(os.environ.get("RING0_DELEGATIONS", "100000"))
"""As many in `make test`; the long run is a million: RING0_DELEGATIONS=1000000."""
TOOLS = ("crm.query", "crm.execute", "files.read", "files.write", "mail.send")
NAMES = (
    *(f"tool:{tool}" for tool in TOOLS),
    "model:default",
    "model:big",
    "agent:worker",
    "agent:clerk",
    "kernel:memory.recall",
    "kernel:send",
)
PATTERNS = (
    *("*", "crm.*", "*.query", "files.read", "c*m.*e*", "mail.send", "tool:*", "crm.query"),
    *("model:*", "model:default", "agent:w*", "agent:*", "kernel:*", "kernel:memory.*", "nothing"),
)


def test_a_pattern_without_a_kind_names_tools() -> None:
    assert exactly(["crm.query", "model:big"]) == ("model:big", "tool:crm.query")
    assert allows([exactly(["*"])], subject(CallKind.TOOL, "crm.query"))
    assert not allows([exactly(["*"])], subject(CallKind.MODEL, "default"))
    assert not allows([exactly(["*"])], subject(CallKind.MEMORY_RECALL, ""))


def test_a_tool_that_is_called_like_a_model_is_none() -> None:
    assert not allows([exactly(["model:big"])], subject(CallKind.TOOL, "model:big"))
    assert allows([exactly(["tool:model:big"])], subject(CallKind.TOOL, "model:big"))


def test_what_a_grant_does_not_name_is_not_in_it() -> None:
    grant = exactly(["crm.query", "files.*"])
    asked = {name for name in NAMES if allows([grant], name)}
    assert asked == {"tool:crm.query", "tool:files.read", "tool:files.write"}


def test_an_empty_grant_allows_nothing_and_no_grant_narrows_nothing() -> None:
    assert not any(allows([()], name) for name in NAMES)
    assert all(allows([], name) for name in NAMES)


def test_a_tasks_grant_leaves_open_the_kinds_that_it_does_not_speak_of_but_never_tools() -> None:
    grant = for_task(["crm.query"])
    assert allows([grant], "model:big") and allows([grant], "kernel:send")
    assert not allows([grant], "tool:crm.execute")
    only_model = for_task(["model:default"])
    assert not allows([only_model], "model:big") and not allows([only_model], "tool:crm.query")
    assert not any(allows([for_task([])], f"tool:{tool}") for tool in TOOLS)


def test_all_grants_have_to_name_it() -> None:
    both = narrowed((exactly(["crm.*"]),), exactly(["*.query"]))
    assert [name for name in NAMES if allows(both, name)] == ["tool:crm.query"]


def test_nothing_but_the_star_is_special() -> None:
    for pattern in ("crm.quer?", "crm.[q]uery", "crm.query|x", "CRM.QUERY", "crm.quer", "rm.query"):
        assert not allows([exactly([pattern])], "tool:crm.query")
    assert allows([exactly(["a*b*c"])], "tool:abc") and allows([exactly(["a*b*c"])], "tool:axbbxc")
    assert not allows([exactly(["a*b*c"])], "tool:acb")
    assert not allows([exactly(["ab*ba"])], "tool:aba")


def test_a_pattern_full_of_stars_costs_no_more_than_its_length() -> None:
    pattern = "*a" * (limits.GRANT_CHARS_MAX // 2 - 3) + "b"
    began = time.process_time()
    assert not allows([exactly([pattern])], "tool:" + "a" * limits.CALL_NAME_CHARS_MAX)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "x" * 161, "model:", "tool:", "a\x00"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        exactly([text])


def test_a_grant_has_a_bound() -> None:
    with pytest.raises(InvalidInput):
        exactly([f"t{number}" for number in range(limits.GRANT_PATTERNS_MAX + 1)])


def test_what_was_asked_before_is_answered_the_same() -> None:
    held = Narrowed([exactly(["crm.*"])])
    assert [held.allows("tool:crm.query"), held.allows("tool:crm.query")] == [True, True]
    assert [held.allows("tool:mail.send"), held.allows("tool:mail.send")] == [False, False]


RULES = ("GET https://a.org/*", "GET https://a.org/v1/*", "POST https://a.org/v1/*", "b.org")
REACHED = (("GET", "a.org", "/x"), ("GET", "a.org", "/v1/x"), ("POST", "a.org", "/v1/x"),
           ("GET", "b.org", "/x"))  # fmt: skip


@functools.cache
def _reached(rules: tuple[str, ...]) -> frozenset[str]:
    """Which of a few requests these egress rules allow."""
    read = parse_rules(rules, "egress")
    probes = ((one, canonical(one[0], "https", one[1], 443, one[2])) for one in REACHED)
    return frozenset(" ".join(one) for one, probe in probes if read.allows(probe))


def _family(rng: random.Random) -> Agent:
    """Agents of one file; the same instance of a tool is configured differently in each."""
    agents = [
        AgentManifest(
            name=name,
            entry="a.py:f",
            agents=("root", "worker", "clerk"),
            tools={
                tool.partition(".")[0]: {"use": "http", "egress": rng.sample(RULES, 2)}
                for tool in rng.sample(TOOLS, rng.randint(0, 3))
            },
        )
        for name in ("root", "worker", "clerk")
    ]
    return Agent(Family(manifest=agents[0], others=tuple(agents[1:])), "d")


def _may(agent: Agent, grants: tuple[tuple[str, ...], ...]) -> set[tuple[str, str]]:
    """Everything that a run may ask for: each tool by itself, and with what it reaches there."""
    found = {
        (f"tool:{tool}", reached)
        for tool in TOOLS
        if (config := agent.manifest.tools.get(tool.partition(".")[0])) is not None
        for reached in ("", *_reached(tuple(config["egress"])))
    }
    found |= {(name, "") for name in NAMES if not name.startswith("tool:")}
    return {(name, config) for name, config in found if allows(grants, name)}


def test_delegation_never_widens() -> None:
    seed = int(os.environ.get("RING0_SEED", "5"))
    rng = random.Random(seed)
    done = 0
    while done < DELEGATIONS:
        agent = _family(rng)
        grants = narrowed(
            (), *[for_task(rng.sample(PATTERNS, rng.randint(0, 4)))] * rng.randint(0, 1)
        )
        above = _may(agent, grants)
        for _ in range(limits.RUN_DEPTH_MAX):
            done += 1
            try:
                agent = agent.child(rng.choice(("root", "worker", "clerk")), Budget())
            except ManifestInvalid:
                continue  # It wanted more, and was refused.
            if rng.random() < 0.7:
                grants = narrowed(grants, for_task(rng.sample(PATTERNS, rng.randint(0, 4))))
            below = _may(agent, grants)
            assert below <= above, f"seed {seed}, delegation {done}: {below - above}"
            above = below
