"""What an operator says of labels in agent.toml: taken by every kind of tool, and read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from kernel_world import world

from ring0 import tool
from ring0.errors import ManifestInvalid
from ring0.kernel.agent import declared, vouching
from ring0.kernel.agent.inheriting import inherited
from ring0.kernel.agent.manifests import read_agent
from ring0.kernel.agent.offered import built_in
from ring0.runtime import Runtime
from ring0.sdk.declare import tool_of
from ring0.tools.labelling import rules_of
from ring0.types import (
    AgentManifest,
    Confidentiality,
    Effect,
    FieldRule,
    Grant,
    Integrity,
    ToolManifest,
)

PRIVATE, SECRET = Confidentiality.PRIVATE, Confidentiality.SECRET


def offered(tmp_path: Path, **config: Any) -> dict[str, ToolManifest]:
    """The tools of one `[tools.x]`, by their operation."""
    folder = str(tmp_path)
    manifest = AgentManifest(name="clerk", tools={"x": config}, folder=folder)
    found = built_in(manifest, Runtime(), tmp_path / "home")
    vouching.check(found)
    return {one.name.partition(".")[2]: one for one in found}


KINDS: list[tuple[dict[str, Any], str, str]] = [
    ({"use": "files"}, "read", "path"),
    ({"use": "sql", "database": "x.db"}, "query", "parameters"),
    ({"use": "http", "egress": ["GET https://a.example/*"]}, "get", "headers"),
    ({"use": "python"}, "run", "code"),
    ({"use": "shell"}, "run", "command"),
    ({"use": "derive"}, "derive", "values"),
]


@pytest.mark.parametrize(("config", "operation", "argument"), KINDS)
def test_every_kind_of_tool_takes_them(
    tmp_path: Path, config: dict[str, Any], operation: str, argument: str
) -> None:
    (tmp_path / "x.db").touch()
    said = {
        "recipients": [argument],
        "content": [argument],
        "removes": True,
        "confidentiality": "private",
        "fields": {"**.id": "private", "**.note": "untrusted secret"},
    }
    found = offered(tmp_path, **config, **said)[operation]
    assert argument in found.recipients and argument in found.content and found.removes
    assert found.confidentiality is PRIVATE
    assert found.fields == (
        FieldRule(path="**.id", confidentiality=PRIVATE),
        FieldRule(path="**.note", integrity=Integrity.UNTRUSTED, confidentiality=SECRET),
    )
    plain = offered(tmp_path, **config)[operation]
    assert not plain.removes and not plain.fields


def test_words_about_one_operation_are_of_that_one_alone(tmp_path: Path) -> None:
    found = offered(
        tmp_path,
        use="files",
        confidentiality="private",
        operations={"remove": {"removes": True, "recipients": ["path"]}},
    )
    assert found["remove"].removes and found["remove"].recipients == ("path",)
    assert found["remove"].confidentiality is PRIVATE
    assert not found["write"].removes and not found["write"].recipients


def test_an_argument_is_of_the_operations_that_have_it(tmp_path: Path) -> None:
    found = offered(tmp_path, use="files", content=["text"])
    assert found["write"].content == ("text",) and found["read"].content == ()


def test_where_a_request_goes_and_what_it_takes_along_nobody_has_to_say(tmp_path: Path) -> None:
    found = offered(tmp_path, use="http", egress=["https://a.example/*"])
    assert found["request"].recipients == ("url",)
    assert {"headers", "body", "body_base64"} == set(found["request"].content)


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ({"recipients": ["nobody"]}, "nobody"),
        ({"content": ["nothing"]}, "nothing"),
        ({"recipients": "path"}, "recipients"),
        ({"removes": "yes"}, "removes"),
        ({"confidentiality": "hidden"}, "confidentiality"),
        ({"fields": {"a..b": "private"}}, "a..b"),
        ({"fields": {"[].x": "trusted"}}, "[].x"),
        ({"fields": {"[].x": ""}}, "[].x"),
        ({"fields": {"[].x": "user"}}, "[].x"),
        ({"fields": {"[].x": "system"}}, "[].x"),
        ({"fields": {"[].x": "trusted-field untrusted"}}, "[].x"),
        ({"fields": {"[].x": "private public"}}, "[].x"),
        ({"fields": {"[].x": "private if integer"}}, "[].x"),
        ({"fields": {"[].x": "trusted-field if "}}, "[].x"),
        ({"fields": {"[].x": "trusted-field"}}, "nobody can vouch"),
        ({"fields": ["[].x"]}, "fields"),
        ({"operations": {"nothing": {}}}, "nothing"),
        ({"operations": {"read": {"recipients": ["text"]}}}, "operations.read"),
        ({"operations": {"read": {"output": "trusted-field"}}}, "operations.read"),
        ({"recipient": ["path"]}, "recipient"),
    ],
)
def test_what_does_not_fit_is_an_error_that_says_where(
    tmp_path: Path, said: dict[str, Any], place: str
) -> None:
    with pytest.raises(Exception, match=r".") as raised:
        offered(tmp_path, use="files", **said)
    assert place in str(raised.value) and type(raised.value).__module__ == "ring0.errors"


def test_what_is_wrong_is_told_before_a_run_starts(tmp_path: Path) -> None:
    async def check() -> None:
        tools = {"x": {"use": "http", "egress": ["https://a.example/*"],
                       "fields": {"id": "trusted-field if nonsense"}}}  # fmt: skip
        with pytest.raises(ManifestInvalid, match="nonsense"):
            async with world(tmp_path / "home", manifest=AgentManifest(name="c", tools=tools)):
                pass

    import asyncio

    asyncio.run(check())


def test_too_many_rules_are_an_error() -> None:
    with pytest.raises(ManifestInvalid, match="more than"):
        rules_of("x", {f"f{n}": "private" for n in range(65)})


def test_rules_keep_the_order_of_the_table() -> None:
    found = rules_of("x", {"b": "private", "**": "untrusted", "a": "public"})
    assert [one.path for one in found] == ["b", "**", "a"]


# --- what does not count ------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "operation", "_argument"), KINDS)
def test_nobody_vouches_for_a_field_where_the_agent_chooses_what_stands_in_it(
    tmp_path: Path, config: dict[str, Any], operation: str, _argument: str
) -> None:
    """`SELECT note AS id`, `print("DE-6666")`: a model that is taken over says what is where."""
    (tmp_path / "x.db").touch()
    for said in ("trusted-field", "trusted-field if integer"):
        fields = {"**.id": said}
        if config["use"] == "http":
            assert offered(tmp_path, **config, fields=fields)[operation].fields
            continue
        with pytest.raises(ManifestInvalid, match="nobody can vouch"):
            offered(tmp_path, **config, fields=fields)


def test_nobody_vouches_for_what_comes_through_the_agent(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match="through the agent"):
        offered(tmp_path, use="agent", fields={"id": "trusted-field"})
    with pytest.raises(ManifestInvalid, match="through the agent"):
        offered(tmp_path, use="agent", fields={"id": "private"})
    schema = {"type": "object", "properties": {"to": {}, "text": {}}}
    manifest = AgentManifest(
        name="c",
        folder=str(tmp_path),
        tools={"send": {"use": "agent", "schema": schema, "recipients": ["to"], "content": ["text"],
                        "confidentiality": "private"}},
    )  # fmt: skip
    (found,) = built_in(manifest, Runtime(), tmp_path)
    assert found.recipients == ("to",) and found.content == ("text",)
    assert found.confidentiality is PRIVATE


@tool(
    effect="pure",
    recipients=["to"],
    removes=True,
    confidentiality="private",
    fields={"id": "trusted-field public", "note": "untrusted secret"},
)
def lookup(to: str) -> dict[str, str]:
    """Looks up."""
    return {"id": to}


def test_what_code_says_of_its_own_results_makes_them_only_worse() -> None:
    found = tool_of(lookup)
    assert found is not None and len(found.manifest.fields) == 2
    code = AgentManifest(name="c", functions=(found.manifest,))
    merged = declared.merged(AgentManifest(name="c", entry="a.py:c"), code)
    (function,) = merged.functions
    assert function.recipients == ("to",) and function.removes
    assert function.confidentiality is PRIVATE
    assert function.fields == (
        FieldRule(path="note", integrity=Integrity.UNTRUSTED, confidentiality=SECRET),
    )


def test_the_operator_vouches_for_fields_of_a_function(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(
        'name = "c"\nentry = "a.py:c"\n[functions.lookup]\nconfidentiality = "secret"\n'
        'recipients = ["to"]\n[functions.lookup.fields]\nid = "trusted-field"\nnote = "public"\n'
    )
    manifest = read_agent(tmp_path / "agent.toml")
    found = tool_of(lookup)
    assert found is not None
    (function,) = declared.merged(
        manifest, AgentManifest(name="c", functions=(found.manifest,))
    ).functions
    assert function.confidentiality is SECRET
    assert [one.path for one in function.fields] == ["id", "note", "note"]
    assert function.fields[0].integrity is Integrity.TRUSTED_FIELD


@pytest.mark.parametrize("said", [{"recipients": ("from",)}, {"fields": {"a..": "private"}}])
def test_words_about_a_function_that_dont_fit_are_an_error(said: dict[str, Any]) -> None:
    found = tool_of(lookup)
    assert found is not None
    manifest = AgentManifest(name="c", entry="a.py:c", grants={"lookup": Grant(**said)})
    with pytest.raises(ManifestInvalid, match=r"functions\.lookup"):
        declared.merged(manifest, AgentManifest(name="c", functions=(found.manifest,)))


@pytest.mark.parametrize(
    "said", [{"recipients": ["no"]}, {"fields": {"a..": "private"}}, {"confidentiality": "x"},
             {"fields": {"a": 1}}, {"recipients": "to"}],
)  # fmt: skip
def test_a_decorator_that_does_not_fit_is_an_error(said: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid):
        tool(**said)(lambda_())


def lambda_() -> Any:
    def send(to: str) -> None: ...

    return send


def test_without_an_agent_toml_code_says_nothing_of_a_built_in_tool() -> None:
    code = AgentManifest(
        name="c",
        tools={"crm": {"use": "sql", "database": "x.db", "fields": {"id": "trusted-field"}}},
    )
    with pytest.raises(ManifestInvalid, match="fields"):
        declared.merged(AgentManifest(name="", entry="a.py:c", folder="/tmp"), code)


def test_a_child_has_of_each_word_what_is_asked_of_more(tmp_path: Path) -> None:
    def child(own: dict[str, Any], parents: dict[str, Any]) -> dict[str, Any]:
        return inherited("x", {"use": "files", **own}, {"use": "files", **parents},
                         own_folder=tmp_path, parents_folder=tmp_path)  # fmt: skip

    assert child({"content": ["text"]}, {"content": ["path"]})["content"] == ["path", "text"]
    assert child({}, {"removes": True})["removes"] is True
    assert child({"removes": False}, {"removes": True})["removes"] is True
    assert child({"confidentiality": "public"}, {"confidentiality": "private"}) == {
        "use": "files",
        "confidentiality": "private",
    }
    with pytest.raises(ManifestInvalid, match="fields"):
        child({"fields": {"id": "trusted-field"}}, {})
    same = {"fields": {"id": "trusted-field"}}
    assert child(same, same)["fields"] == same["fields"]


def test_words_change_what_a_yes_is_bound_to(tmp_path: Path) -> None:
    from ring0.tools.registry import digest

    plain, said = (
        offered(tmp_path, use="files", **more)["read"] for more in ({}, {"content": ["path"]})
    )
    assert digest(plain) != digest(said)


def test_that_a_tool_may_go_on_unattended_is_the_operators_word_alone() -> None:
    found = tool_of(lookup)
    assert found is not None
    lying = msgspec.structs.replace(
        found.manifest, effect=Effect.ONCE, unattended=True, output=Integrity.USER
    )
    code = AgentManifest(name="c", functions=(lying,))
    for grants, unattended in (({}, False), ({"lookup": Grant(unattended=True)}, True)):
        manifest = AgentManifest(name="c", entry="a.py:c", grants=grants)
        (function,) = declared.merged(manifest, code).functions
        assert function.unattended is unattended
        assert function.output is Integrity.UNTRUSTED
