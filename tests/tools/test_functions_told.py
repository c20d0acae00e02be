"""What an operator says of somebody else's `@tool`, in `[functions.NAME]` of agent.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from ring0.errors import ManifestInvalid
from ring0.kernel.agent import declared
from ring0.kernel.agent.manifests import read_agent
from ring0.types import AgentManifest, Effect, ToolManifest

NAMES = ("to", "cc", "body", "style", "all")
SCHEMA = {"type": "object", "properties": {name: {"type": "string"} for name in NAMES}}


def function(effect: Effect = Effect.ONCE, **more: object) -> ToolManifest:
    given = {"name": "send_mail", "description": "", "schema": SCHEMA, "effect": effect, **more}
    return ToolManifest(**given)  # type: ignore[arg-type]


def said(folder: Path, table: str, code: ToolManifest | None = None) -> ToolManifest:
    file = folder / "agent.toml"
    file.write_text(f'name = "c"\nentry = "a.py:c"\n[functions.send_mail]\n{table}\n')
    declaring = AgentManifest(name="c", functions=(code or function(),))
    (found,) = declared.merged(read_agent(file), declaring).functions
    return found


def test_the_operator_marks_all_that_a_manifest_can_mark(tmp_path: Path) -> None:
    found = said(
        tmp_path,
        'critical = ["all"]\nrecipients = ["to", "cc"]\ncontent = ["body"]\nsettings = ["style"]\n'
        "removes = true\nunattended = true",
    )
    assert (found.critical, found.recipients) == (("all",), ("to", "cc"))
    assert (found.content, found.settings) == (("body",), ("style",))
    assert found.removes and found.unattended


def test_what_is_marked_adds_to_what_the_code_marks(tmp_path: Path) -> None:
    found = said(tmp_path, 'critical = ["cc"]', function(critical=("to",)))
    assert found.critical == ("to", "cc")


def test_code_can_call_nothing_a_setting(tmp_path: Path) -> None:
    """Else its own word would take an argument out of what the operator's `unattended` judges."""
    found = said(tmp_path, "unattended = true", function(settings=("cc",), unattended=True))
    assert found.unattended and found.settings == ()


@pytest.mark.parametrize("word", ["critical", "recipients", "content", "settings"])
def test_an_argument_that_a_function_does_not_take_is_an_error_with_its_name(
    tmp_path: Path, word: str
) -> None:
    with pytest.raises(ManifestInvalid) as error:
        said(tmp_path, f'{word} = ["bcc"]')
    assert "[functions.send_mail]" in error.value.what and "'bcc'" in error.value.why


@pytest.mark.parametrize("table", ['criticl = ["to"]', 'critical = "to"', "removes = 1"])
def test_a_table_that_does_not_fit_is_named(tmp_path: Path, table: str) -> None:
    with pytest.raises(ManifestInvalid) as error:
        said(tmp_path, table)
    assert "[functions.send_mail]" in error.value.what
    assert "critical" in error.value.todo


def test_what_is_never_asked_about_is_not_called_unattended(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match=r"functions\.send_mail") as error:
        said(tmp_path, "unattended = true", function(Effect.PURE))
    assert "pure" in error.value.why
