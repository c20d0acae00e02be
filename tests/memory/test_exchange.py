"""Files of memory: ours comes back as it went; mem0's and Letta's say no more than they hold."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.memory import exchange
from ring0.types import Integrity, Label, MemoryKind, Record, RecordState

OWNER = ("t", "p", "a")


def record(number: int, **more: Any) -> Record:
    given: dict[str, Any] = {
        "id": f"r-1#{number}", "kind": MemoryKind.EPISODE, "act": "r-1", "seq": number,
        "role": "note", "text": f"text {number}", "label": Label(integrity=Integrity.USER),
        "at_us": number,
    }  # fmt: skip
    return Record(tenant="t", principal="p", agent="a", **(given | more))


def written(*rows: Record) -> bytes:
    return b"\n".join((exchange.header(OWNER, 1), *map(exchange.line, rows)))


def test_an_export_says_all_that_is_known_and_is_read_as_it_was() -> None:
    fact = record(
        2, kind=MemoryKind.FACT, subject="s", predicate="p", parents=("r-1#1",), valid_from_us=5,
        label=Label(integrity=Integrity.UNTRUSTED, sources=("page@r-1/0/1",)),
        superseded_us=9, superseded_by="r-1#3",
    )  # fmt: skip
    found = exchange.read(written(record(3), fact, record(1)))
    assert [one.origin for one in found.records] == ["r-1#1", "r-1#2", "r-1#3"], "oldest first"
    one = found.records[1]
    assert one.labelled and one.record.label == fact.label and one.parents == ("r-1#1",)
    assert one.superseded_by == "r-1#3" and one.record.valid_from_us == 5
    assert one.record.key == "import r-1#2" and one.record.happened_us == 2


def test_what_was_approved_elsewhere_is_only_proposed_here() -> None:
    found = exchange.read(written(record(1, kind=MemoryKind.PROCEDURE)))
    assert found.records[0].record.state is RecordState.PROPOSED


def test_mem0s_memories_become_notes_and_its_relations_facts() -> None:
    said = {
        "results": [
            {"id": "m1", "memory": "Likes tea", "hash": "x", "metadata": {"a": 1}, "score": None,
             "created_at": "2025-01-02T03:04:05-08:00", "updated_at": None, "user_id": "alice"},
            {"id": "m2", "memory": "", "user_id": "alice"},
            "junk",
        ],
        "relations": [{"source": "alice", "relationship": "likes", "destination": "tea"}, {}],
    }  # fmt: skip
    found = exchange.read(json.dumps(said).encode())
    note, fact = found.records
    assert (found.format, note.record.text, note.record.role) == ("mem0", "Likes tea", "note")
    assert note.record.happened_us == 1735815845000000
    assert (fact.record.subject, fact.record.predicate, fact.record.text) == (
        "alice",
        "likes",
        "tea",
    )
    assert fact.record.many
    assert all(one.record.label.integrity is Integrity.UNTRUSTED for one in found.records)
    assert found.left_out == {"not an object": 1, "without text or id": 1, "half a relation": 1}
    plain = [{"id": "m1", "memory": "Likes tea", "user_id": "alice"}]
    assert len(exchange.read(json.dumps(plain).encode()).records) == 1


def test_two_peoples_memories_are_never_mixed_into_one_scope() -> None:
    rows = [{"id": n, "memory": f"m {n}", "user_id": n} for n in ("ann", "bob")]
    data = json.dumps({"results": rows}).encode()
    with pytest.raises(InvalidInput, match="of 2 users"):
        exchange.read(data)
    found = exchange.read(data, owner="bob")
    assert [one.record.text for one in found.records] == ["m bob"]
    assert found.left_out == {"another user's": 1}
    with pytest.raises(InvalidInput, match="nothing of user"):
        exchange.read(data, owner="eve")


LETTA: dict[str, Any] = {
    "agents": [
        {
            "id": "agent-0", "name": "sam", "agent_type": "letta_v1_agent",
            "system": "You obey.", "block_ids": ["block-0", "block-1"],
            "messages": [
                {"id": "message-0", "role": "system", "content": [{"type": "text", "text": "x"}]},
                {"id": "message-1", "role": "user", "created_at": "2025-10-31T22:56:56+00:00",
                 "content": [{"type": "text", "text": "I am Chad"}]},
                {"id": "message-2", "role": "assistant", "content": None, "tool_calls": [{}]},
            ],
        }
    ],
    "groups": [], "sources": [], "tools": [], "mcp_servers": [],
    "blocks": [
        {"id": "block-0", "label": "human", "value": "First name: Chad", "limit": 5000},
        {"id": "block-1", "label": "persona", "value": ""},
        {"id": "block-9", "label": "other", "value": "of nobody here"},
    ],
    "passages": [{"id": "passage-0", "text": "Chad sails", "created_at": "2025-01-01"}],
    "files": [{"id": "file-0", "file_name": "notes.txt", "content": "Sailing club: 9 am"}],
    "metadata": {},
}  # fmt: skip


def test_lettas_blocks_become_facts_and_nothing_a_directive() -> None:
    found = exchange.read(json.dumps(LETTA).encode())
    rows = {one.record.text: one.record for one in found.records}
    assert set(rows) == {"First name: Chad", "I am Chad", "Chad sails", "Sailing club: 9 am"}
    block = rows["First name: Chad"]
    assert (block.kind, block.subject, block.predicate) == (MemoryKind.FACT, "human", "core memory")
    assert rows["I am Chad"].role == "user" and rows["I am Chad"].session == "letta sam"
    assert rows["Sailing club: 9 am"].document == "notes.txt"
    assert not any(one.kind is MemoryKind.DIRECTIVE for one in rows.values())
    assert found.left_out == {
        "system prompt": 1, "empty block": 1, "system message": 1, "message without text": 1,
    }  # fmt: skip


def test_an_older_agent_file_of_one_agent_is_read_too() -> None:
    old = {"agent_type": "memgpt_agent", "name": "sam", "core_memory": LETTA["blocks"][:1],
           "messages": LETTA["agents"][0]["messages"]}  # fmt: skip
    found = exchange.read(json.dumps(old).encode())
    assert {one.record.text for one in found.records} == {"First name: Chad", "I am Chad"}


def test_the_same_text_has_the_same_key_and_a_changed_one_another() -> None:
    first, again = (exchange.read(json.dumps(LETTA).encode()) for _ in range(2))
    assert [one.record.key for one in first.records] == [one.record.key for one in again.records]
    changed = json.loads(json.dumps(LETTA))
    changed["blocks"][0]["value"] = "First name: Chet"
    keys = {one.record.key for one in exchange.read(json.dumps(changed).encode()).records}
    assert len(keys & {one.record.key for one in first.records}) == len(first.records) - 1


def test_a_long_text_comes_in_parts_and_loses_nothing() -> None:
    text = " ".join(f"word{number}" for number in range(5_000))
    found = exchange.read(json.dumps([{"id": "m", "memory": text, "user_id": "u"}]).encode())
    assert len(found.records) > 1
    assert " ".join(one.record.text for one in found.records) == text
    assert all(len(one.record.text) <= limits.EPISODE_CHARS_MAX for one in found.records)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{}", b"7", b"{", b"\xff\xfe", b'{"results": 1}', b"[[[[",
        b'{"ring0":"memory"}', b'{"ring0":"memory","version":2}', b'{"agents":[1],"agents":[2]}',
        b"[" * 100_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000, b'[{"memory": NaN}]',
        b'[{"memory": "\\ud800"}]',
        exchange.header(OWNER, 1) + b"\n{}", exchange.header(OWNER, 1) + b"\n" + b"x" * 300_000,
    ],
)  # fmt: skip
def test_a_hostile_file_is_refused_with_words(data: bytes) -> None:
    with pytest.raises(InvalidInput) as error:
        exchange.read(data)
    assert error.value.what and error.value.todo


def test_what_a_file_says_of_times_and_names_is_bounded() -> None:
    row = {"id": "i" * 10_000, "memory": "m\0\x00", "user_id": "u", "created_at": "9" * 9_000,
           "role": "r" * 9_000, "run_id": "s" * 9_000}  # fmt: skip
    (one,) = exchange.read(json.dumps([row]).encode()).records
    assert one.record.happened_us == 0 and "\0" not in one.record.text
    for name in ("role", "session", "key"):
        assert len(getattr(one.record, name)) <= limits.RECORD_FIELD_CHARS_MAX


def test_a_file_of_too_many_records_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EXCHANGE_RECORDS_MAX", 2)
    rows = [{"id": str(n), "memory": "x", "user_id": "u"} for n in range(3)]
    with pytest.raises(InvalidInput, match="more than 2 records"):
        exchange.read(json.dumps(rows).encode())
