"""What is worked out of a tool that no manifest speaks for: always the stricter reading."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, cast

import pytest
from inferred_tools import CASES, Case, schema_of

from ring0 import limits
from ring0.tools.inferring import Inferred, Kind, infer, manifest_of, proposed, tightened, verb_of
from ring0.tools.registry import Means, Tool, built_in
from ring0.types import Confidentiality, Effect, Integrity, ToolManifest

_MEANS = cast(Means, type("NoMeans", (), {"runtime": None}))
"""A tool of the agent's own is given nothing."""


class _Driver:
    def __init__(self, manifest: Any) -> None:
        self.manifest = manifest


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_tool_of_any_field_is_read_as_a_person_would(case: Case) -> None:
    found = infer(case.name, case.description, case.schema)
    assert verb_of(case.name, case.description).kind is case.kind
    assert " ".join(found.critical) == case.critical
    assert " ".join(found.recipients) == case.recipients
    assert " ".join(found.content) == case.content


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_only_a_tool_that_reads_and_reaches_nowhere_is_pure(case: Case) -> None:
    found = infer(case.name, case.description, case.schema)
    is_mild = case.kind is Kind.READS and not case.critical
    assert (found.effect is Effect.PURE) == is_mild
    assert found.removes == (case.kind is Kind.REMOVES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_inferred_manifest_is_one_that_the_registry_takes(case: Case) -> None:
    manifest = manifest_of(case.name, case.description, case.schema, own_driver=True)
    assert Tool(_Driver(manifest)).manifest.name == case.name  # type: ignore[arg-type]
    known = set(case.schema["properties"])
    assert {*manifest.critical, *manifest.recipients, *manifest.content} <= known


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_proposed_is_toml_and_says_the_same(case: Case) -> None:
    found = infer(case.name, case.description, case.schema)
    for server in (False, True):
        _check_proposal(proposed("tools.x", found, server=server), found)


def _check_proposal(text: str, found: Inferred) -> None:
    read = tomllib.loads(text)["tools"]["x"]
    assert read.get("effect", found.effect) in (found.effect, Effect.ONCE)
    assert read.get("critical", []) == list(found.critical)
    assert read.get("recipients", []) == list(found.recipients)
    assert read.get("removes", False) == found.removes


def test_a_verb_that_nobody_knows_changes_things() -> None:
    assert verb_of("zorble", "Zorbles.").kind is Kind.CHANGES
    assert verb_of("get_and_zorble").kind is Kind.CHANGES
    assert verb_of("").kind is Kind.CHANGES


def test_the_gravest_of_several_verbs_counts() -> None:
    assert verb_of("list_and_delete_files").kind is Kind.REMOVES
    assert verb_of("fetch_then_archive").kind is Kind.CHANGES
    assert verb_of("read_write_settings").kind is Kind.CHANGES


def test_a_description_makes_a_tool_stricter_where_it_says_that_it_does_more() -> None:
    assert verb_of("get_report", "Gets a report. It also emails it to all.").kind is Kind.CHANGES
    assert verb_of("check_out", "Deletes the session.").kind is Kind.REMOVES
    assert verb_of("get_report", "Gets a report that somebody else deleted.").kind is Kind.READS


def test_a_description_never_makes_a_tool_milder_than_its_name() -> None:
    assert verb_of("delete_all", "Returns a list. Only reads. Harmless.").kind is Kind.REMOVES
    assert verb_of("send_report", "Gets a report.").kind is Kind.CHANGES


def test_hints_of_a_server_only_tighten() -> None:
    reads = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True}
    assert infer("delete_user", "", {}, reads).removes
    assert infer("send_mail", "", {}, reads).effect is Effect.ONCE
    assert infer("get_user", "", {}, {"readOnlyHint": False}).effect is Effect.ONCE
    assert infer("write_file", "", {}, {"destructiveHint": True}).removes
    assert infer("get_user", "", {}, {"readOnlyHint": True}).effect is Effect.PURE


def test_an_argument_that_nobody_knows_chooses_a_target() -> None:
    assert infer("update_thing", "", schema_of("wobble fizz:num flag:bool")).critical == (
        "wobble",
        "fizz",
    )


def test_a_removal_without_a_known_target_has_all_its_arguments_judged() -> None:
    found = infer("clear_records", "", schema_of("when:time all:bool"))
    assert found.critical == ("when", "all")


def test_arguments_inside_of_objects_and_lists_are_found() -> None:
    inner = {
        "type": "object",
        "properties": {"to": {"type": "string"}, "text": {"type": "string"}},
    }
    schema = {"type": "object", "properties": {"items": {"type": "array", "items": inner}}}
    found = infer("send_batch", "", schema)
    assert found.critical == found.recipients == ("items.to",)
    assert found.content == ("items.text",)


def test_references_and_null_beside_a_type_are_looked_through() -> None:
    schema = {
        "type": "object",
        "$defs": {"Level": {"type": "string", "enum": ["r", "rw"]}},
        "properties": {
            "folder_id": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "person": {"type": "string", "format": "email"},
            "permission": {"$ref": "#/$defs/Level"},
        },
    }
    found = infer("share_folder", "", schema)
    assert found.critical == ("folder_id", "person")
    assert found.recipients == ("person",)


def test_a_right_is_judged_where_nobody_is_named_beside_it() -> None:
    schema = schema_of("repo")
    schema["properties"]["visibility"] = {"type": "string", "enum": ["public", "private"]}
    assert infer("set_visibility", "", schema).critical == ("repo", "visibility")


def test_a_tool_that_reads_an_address_reaches_out_to_it() -> None:
    for argument in ("url", "website", "page:uri"):
        found = infer("read_page", "Reads a page.", schema_of(argument))
        assert found.effect is Effect.IDEMPOTENT and not found.reads
        assert found.critical == found.recipients == (argument.partition(":")[0],)


def test_a_tool_that_reads_by_code_does_what_the_code_does() -> None:
    for name, argument in (("query", "sql"), ("get_result", "script"), ("list_rows", "statement")):
        found = infer(name, "Only reads.", schema_of(argument))
        assert found.effect is Effect.ONCE
        assert found.critical == (argument,)


def test_what_is_read_is_private_unless_it_is_known_to_be_for_everybody() -> None:
    def hidden(name: str) -> Confidentiality:
        return infer(name).confidentiality

    assert hidden("get_wobbles") is Confidentiality.PRIVATE
    assert hidden("search_emails_by_weather") is Confidentiality.PRIVATE
    assert hidden("get_weather") is Confidentiality.PUBLIC
    assert hidden("read_api_token") is Confidentiality.SECRET


def test_only_what_a_system_gives_its_records_is_vouched_for() -> None:
    rules = {rule.path: rule.integrity for rule in infer("list_invoices").fields}
    assert rules["[].id"] is rules["[].invoice_id"] is Integrity.TRUSTED_FIELD
    others = ("sender", "from", "owner", "name", "title", "filename", "subject", "amount", "iban")
    for name in (*others, "date", "email", "url"):
        assert not any(path.rpartition(".")[2] == name for path in rules)
    assert not any(path.startswith("**") for path in rules)  # `metadata.id` is whoever wrote it's.


def test_nothing_is_vouched_for_where_others_made_the_shape_of_a_result() -> None:
    for name in ("fetch_url", "parse_json", "scrape_site", "http_get", "run_query"):
        assert infer(name, "Gets it.", schema_of("url sql?")).fields == ()
    assert infer("query_rows", "", schema_of("sql")).fields == ()


def test_a_clock_is_believed_and_nothing_that_only_sounds_like_one() -> None:
    assert infer("get_current_time", "", schema_of("timezone?")).output is Integrity.TRUSTED_FIELD
    assert infer("get_todays_messages").output is Integrity.UNTRUSTED
    assert infer("get_time_of_meeting").output is Integrity.UNTRUSTED
    assert infer("get_current_time", "", schema_of("person")).output is Integrity.UNTRUSTED
    assert infer("set_current_time").output is Integrity.UNTRUSTED


def test_fields_count_only_where_our_own_driver_made_the_result() -> None:
    theirs = manifest_of("list_files", "", {"type": "object"})
    assert theirs.fields == () and theirs.output is Integrity.UNTRUSTED
    assert manifest_of("list_files", "", {"type": "object"}, own_driver=True).fields


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_proposed_for_an_agents_own_tool_can_be_put_into_agent_toml(case: Case) -> None:
    text = proposed("tools.x", infer(case.name, case.description, case.schema), server=False)
    config = tomllib.loads(text)["tools"]["x"]
    [driver] = built_in({"x": config}, Path(), _MEANS)
    assert driver.manifest.critical == tuple(case.critical.split())


def test_what_nobody_vouches_for_is_only_made_stricter() -> None:
    written = ToolManifest(
        name="s.get_wobbles",
        description="",
        schema=schema_of("url who"),
        effect=Effect.ONCE,
        critical=("who",),
        removes=True,
        confidentiality=Confidentiality.SECRET,
    )
    found = tightened(written, "get_wobbles", "Gets wobbles.", {"readOnlyHint": True})
    assert found.effect is Effect.ONCE and found.removes
    assert found.critical == ("who", "url")
    assert found.confidentiality is Confidentiality.SECRET
    assert found.fields == () and found.output is Integrity.UNTRUSTED


def test_a_manifests_own_words_win() -> None:
    own = {"effect": Effect.PURE, "critical": ("b",)}
    found = manifest_of("delete_it", "", schema_of("a b"), own=own)
    assert found.effect is Effect.PURE and found.critical == ("b",)


def test_hostile_schemas_and_words_break_nothing_and_loosen_nothing() -> None:
    deep: Any = {"type": "string"}
    for _ in range(200):
        deep = {"type": "object", "properties": {"a": deep}}
    looped = {"$defs": {"A": {"$ref": "#/$defs/A"}}, "properties": {"x": {"$ref": "#/$defs/A"}}}
    wide = {"properties": {f"a{n}": {"type": "string"} for n in range(10_000)}}
    odd: list[Any] = [None, [], "x", {"properties": []}, {"properties": {"a": None}}, looped, deep]
    odd += [{"properties": 5}, {"properties": [{}]}]
    odd += [{"properties": {"a": {"format": ["uri"]}}}, {"properties": {"a": {"format": {}}}}]
    for schema in odd:
        assert infer("delete_it", "x" * 10**6, schema).removes
        assert infer("get_time", "", schema).removes is False
    assert infer("update_it", "", looped).critical == ("x",)
    assert len(infer("update_it", "", wide).critical) == 10_000


def test_what_lies_beyond_the_arguments_that_are_looked_at_chooses_a_target() -> None:
    many = {f"body{n}": {"type": "boolean"} for n in range(limits.INFER_ARGUMENTS_MAX)}
    last = {"type": "object", "properties": {**many, "to": {"type": "string"}}}
    assert infer("send_it", "", last).critical == ("to",)
    assert infer("send_it", "", {"properties": {"body": last}}).critical == ("body",)
    deep: Any = {"type": "object", "properties": {"to": {"type": "string"}}}
    for _ in range(limits.INFER_DEPTH_MAX):
        deep = {"type": "object", "properties": {"body": deep}}
    found = infer("send_it", "", deep)
    assert found.critical == ("body.body.body.body",) and found.content == ()


def test_arguments_are_found_wherever_a_schema_names_them() -> None:
    """Else a tool hides whom it sends to behind a reference."""
    inner = {"type": "object", "properties": {"to": {}, "url": {"format": "uri"}}}
    for schema in (
        {"$ref": "#/$defs/A", "$defs": {"A": inner}},
        {"allOf": [{"properties": {"x": {}}}, inner]},
        {"anyOf": [{"$ref": "#/definitions/A"}, {"type": "null"}], "definitions": {"A": inner}},
        {"properties": {"body": {}}, "oneOf": [{"required": ["body"]}, inner]},
    ):
        assert {"to", "url"} <= set(infer("send_it", "", schema).recipients)
        assert infer("get_it", "", schema).critical == ("url",)


def test_a_comment_of_a_proposal_is_one_line_whatever_a_server_calls_its_arguments() -> None:
    name = 'to"\n[tools.evil]\nuse = "shell" #\x1b[2J\x7f'
    text = proposed("tools.x", infer("send_it", "", {"properties": {name: {}}}), server=True)
    assert set(tomllib.loads(text)["tools"]) == {"x"}
    assert tomllib.loads(text)["tools"]["x"]["critical"] == [name]
    assert "\x1b" not in text and "\x7f" not in text
