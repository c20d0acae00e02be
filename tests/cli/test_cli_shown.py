"""What a command says of calls that came through the doors of others; and a program's task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ring0.cli import parts
from ring0.cli.starting import Bare, agent_of_command, beside, budgeted, typed_to
from ring0.errors import InvalidInput, ManifestInvalid
from ring0.types import AgentManifest, CallKind


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, "1 message; last, user: hi"),
        (
            {"dialect": "chat", "body": {"messages": [{"role": "tool", "content": "42"}] * 2}},
            "2 messages; last, tool: 42",
        ),
        (
            {"dialect": "messages",
             "body": {"messages": [{"role": "user", "content": [{"type": "text", "text": "ho"}]}]}},
            "1 message; last, user: ho",
        ),
        ({"dialect": "responses", "body": {"input": "go on"}}, "1 message; last, user: go on"),
        (
            {"dialect": "responses",
             "body": {"input": [{"type": "function_call_output", "output": "done"}]}},
            "1 message; last, function_call_output: done",
        ),
    ],
)  # fmt: skip
def test_a_question_is_shown_by_its_last_words_whatever_its_dialect(
    args: dict[str, Any], shown: str
) -> None:
    assert parts.arguments(CallKind.MODEL, args) == shown


@pytest.mark.parametrize("args", [{}, {"body": 7}, {"body": {"messages": [7]}}, {"messages": []},
                                  {"dialect": "chat", "model": "\x1b[2J", "size_bytes": 9},
                                  {"body": {"messages": [{"content": [None, {}]}]}}])  # fmt: skip
def test_an_odd_question_is_shown_too(args: dict[str, Any]) -> None:
    assert "message" in parts.arguments(CallKind.MODEL, args)


def test_what_is_typed_to_a_program_after_its_own_file_is_its_task(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("")
    (tmp_path / "more.txt").write_text("")
    assert typed_to(("python", "-u", "agent.py", "refund", "order 1234"), tmp_path) == (
        "refund order 1234"
    )
    words = ("python", "agent.py", "read", "more.txt", "now")
    assert typed_to(words, tmp_path) == "read more.txt now"
    assert typed_to(("sh", "-c", "echo hi"), tmp_path) == "-c echo hi"
    assert typed_to(("python", "agent.py"), tmp_path) == ""


def test_a_program_without_a_manifest_has_a_dollar_and_what_the_operator_gives(
    tmp_path: Path,
) -> None:
    bare = agent_of_command(("/bin/true",), None, tmp_path, "/bin")
    assert bare.manifest.budget.cost_microusd == 1_000_000
    more = budgeted(bare, "2.50 USD, 7 calls").manifest.budget
    assert (more.cost_microusd, more.calls) == (2_500_000, 7)
    assert more.wall_s == bare.manifest.budget.wall_s
    with pytest.raises(ManifestInvalid):
        budgeted(bare, "much")
    with pytest.raises(InvalidInput, match="programs"):
        budgeted(Bare(AgentManifest(name="a", entry="a.py")), "1 USD")


def test_an_agent_toml_beside_a_command_is_used_only_if_it_is_about_it(tmp_path: Path) -> None:
    assert beside(("python", "a.py"), tmp_path) is None
    toml = tmp_path / "agent.toml"
    toml.write_text('name = "a"\ncommand = ["python", "a.py"]\n')
    assert beside(("python", "a.py", "a task"), tmp_path) == toml
    assert beside(("python", "b.py"), tmp_path) is None
    toml.write_text('name = "a"\nentry = "a.py"\n')
    assert beside(("python", "a.py"), tmp_path) is None
