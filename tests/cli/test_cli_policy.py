"""`ring0 policy check | test | diff | schema | explain`, as a user and as CI call them."""

from __future__ import annotations

import json

from cli_world import World
from serving_world import daemon

MINE = """
@id("no-deletes") @reason("Nothing is deleted here.")
forbid (principal, action == Action::"crm.execute", resource)
when { context.args.statement like "*DELETE*" };
"""
MANIFEST = """
name = "clerk"
command = ["true"]
[tools.crm]
use = "sql"
database = "crm.db"
"""
CASES = """
policy = ["mine.cedar"]
manifest = "clerk.toml"

[[case]]
name = "a delete is refused"
tool = "crm.execute"
args = { statement = "DELETE FROM customers" }
facts = { mutates = true, rows = 3 }
want = "deny"
rules = ["no-deletes"]

[[case]]
name = "an update is asked"
tool = "crm.execute"
args = { statement = "UPDATE customers SET name = 'x'" }
facts = { mutates = true, rows = 1 }
want = "ask"
"""


def files(world: World, **texts: str) -> None:
    for name, text in {"mine.cedar": MINE, "clerk.toml": MANIFEST, **texts}.items():
        (world.folder / name).write_text(text)


def test_a_policy_is_held_against_the_schema_and_the_agents_tools(world: World) -> None:
    files(world)
    done = world.ring0("policy", "check", "mine.cedar", "--manifest", "clerk.toml")
    assert done.code == 0 and "fit the schema and the agent's tools" in done.out
    assert not world.home.exists()
    done = world.ring0("policy", "check", "mine.cedar", "--allow-unknown-tools", "--json")
    (warning,) = json.loads(done.out)["warnings"]
    assert done.code == 0 and "crm.execute" in warning and "no agent" in warning


def test_a_policy_that_does_not_fit_names_file_line_and_what_is_wrong(world: World) -> None:
    files(world, **{"mine.cedar": MINE.replace("args.statement", "args.sql")})
    done = world.ring0("policy", "check", "mine.cedar", "--manifest", "clerk.toml")
    assert done.code == 2 and "mine.cedar:2" in done.err and "args.sql" in done.err
    files(world, **{"mine.cedar": "permit (principal, action, resource) when { nope };"})
    done = world.ring0("policy", "check", "mine.cedar")
    assert done.code == 2 and "mine.cedar:1" in done.err


def test_a_tool_that_no_agent_has_is_an_error_unless_somebody_says_that_it_is_none(
    world: World,
) -> None:
    files(world, **{"mine.cedar": MINE.replace("crm.execute", "crm.exceute")})
    check = ("policy", "check", "mine.cedar", "--manifest", "clerk.toml")
    done = world.ring0(*check)
    assert done.code == 1 and "mine.cedar:2" in done.err
    assert "Did you mean 'crm.execute'?" in done.err and "--allow-unknown-tools" in done.err
    done = world.ring0(*check, "--allow-unknown-tools")
    assert done.code == 0 and "! mine.cedar:2" in done.out


def test_a_tool_is_known_by_any_manifest_that_is_named_and_by_any_agent_that_has_run(
    world: World,
) -> None:
    other = MANIFEST.replace("clerk", "other").replace("crm", "shop", 1)
    rules = MINE + MINE.replace("crm.", "shop.").replace("no-deletes", "shop")
    files(world, **{"mine.cedar": rules, "other.toml": other})
    both = ("--manifest", "clerk.toml", "--manifest", "other.toml")
    assert world.ring0("policy", "check", "mine.cedar", *both[:2]).code == 1
    assert world.ring0("policy", "check", "mine.cedar", *both).code == 0
    files(world)
    done = world.ring0("policy", "check", "mine.cedar")
    assert done.code == 1 and "No agent is known" in done.err
    world.finish(world.start("run", "agent.py:fails", "x"))
    assert world.ring0("policy", "check", "mine.cedar").code == 1
    # Its file declares another agent too, and that one has it.
    assert world.ring0("run", "agent.py:plain", "hi").code == 0
    ran = world.start("run", "agent.py:clerk", "Ann")
    assert world.ring0("deny", world.pending()).code == 0
    world.finish(ran)
    assert world.ring0("policy", "check", "mine.cedar").code == 0


def test_cases_are_decided_without_a_data_folder(world: World) -> None:
    files(world, **{"cases.toml": CASES})
    done = world.ring0("policy", "test", "cases.toml")
    assert done.code == 0 and "2 cases, all as wanted" in done.out
    assert not world.home.exists()


def test_a_case_that_comes_out_otherwise_is_shown_and_fails(world: World) -> None:
    files(world, **{"cases.toml": CASES.replace('want = "ask"', 'want = "allow"')})
    done = world.ring0("policy", "test", "cases.toml")
    assert done.code == 1
    for part in ("an update is asked", "want  allow", "got   ask", "mutation", "1 of 2 cases"):
        assert part in done.out + done.err
    done = world.ring0("policy", "test", "cases.toml", "--json")
    assert done.code == 1 and json.loads(done.out)[0]["failed"][0]["got"] == "ask"


def test_a_file_of_cases_with_an_error_is_no_success(world: World) -> None:
    files(world, **{"cases.toml": CASES.replace("want", "wnat")})
    done = world.ring0("policy", "test", "cases.toml")
    assert done.code == 2 and "cases.toml" in done.err


def test_a_case_whose_arguments_the_tool_would_not_take_fails_with_the_place(world: World) -> None:
    for args, place in (("{ statement = 5 }", "statement"), ("{}", "statement"),
                        ('{ statement = "x", parameters = [[1]] }', "parameters.0")):  # fmt: skip
        said = CASES.replace("{ statement = \"UPDATE customers SET name = 'x'\" }", args)
        assert said != CASES
        files(world, **{"cases.toml": said})
        done = world.ring0("policy", "test", "cases.toml")
        assert done.code == 2 and "cases.toml" in done.err and "an update is asked" in done.err
        assert place in done.err and "before any policy is asked" in done.err


def test_the_schema_names_the_arguments_of_the_agents_tools(world: World) -> None:
    files(world)
    done = world.ring0("policy", "schema", "--manifest", "clerk.toml")
    assert 'action "crm.execute" in [Action::"tool"]' in done.out
    assert '"statement": String' in done.out
    assert "crm" not in world.ring0("policy", "schema").out.replace("crm.execute", "", 3)


def test_two_sets_of_policies_are_compared_over_what_is_on_record(world: World) -> None:
    files(world, **{"none.cedar": ""})
    done = world.ring0("policy", "diff", "none.cedar", "mine.cedar")
    assert done.code != 0 or "No decision is on record" in done.out
    ran = world.start("run", "agent.py:clerk", "Ann")
    assert world.ring0("approve", world.pending()).code == 0
    assert world.finish(ran).code == 0
    done = world.ring0("policy", "diff", "none.cedar", "none.cedar", "--json")
    same = json.loads(done.out)
    assert same["decided"] > 0 and same["differ"] == [] and same["undecided"] == []
    done = world.ring0("policy", "diff", "none.cedar", "mine.cedar", "--json")
    (differs,) = json.loads(done.out)["differ"]
    assert differs["name"] == "crm.execute"
    assert (differs["old"]["kind"], differs["new"]["kind"]) == ("ask", "deny")
    assert "ask → deny" in world.ring0("policy", "diff", "none.cedar", "mine.cedar").out


def test_a_profile_that_asks_nobody_is_told_everywhere(world: World) -> None:
    world.home.mkdir(mode=0o700)
    (world.home / "ring0.toml").write_text('profile = "observe"\n')
    assert "nothing is held for a person" in world.ring0("doctor").all
    done = world.ring0("run", "agent.py:clerk", "Ann")
    assert done.code == 0 and "nothing is held for a person" in done.all
    assert world.customers() == ["Bob"]
    for command in (("ps", "--all"), ("top", "--once")):
        assert "nothing is held for a person" in world.ring0(*command).out
    assert world.ring0("ps", "--all", "--json").json["observed"] is True
    (call,) = [
        one
        for one in world.calls("last")
        if one["verdict"]["reasons"][0]["rule"] == "ring0.observed"
    ]
    explained = world.ring0("policy", "explain", "last", call["id"]).out
    assert "the same verdict" in explained and "ring0.observed" in explained


def test_other_profiles_say_nothing_of_it(world: World) -> None:
    assert "nothing is held" not in world.ring0("doctor").all
    done = world.ring0("run", "agent.py:plain", "hi")
    assert done.code == 0 and "nothing is held" not in done.all
    assert "nothing is held" not in world.ring0("ps", "--all").out


def test_strict_holds_what_a_permit_of_the_operators_would_let_through(world: World) -> None:
    world.home.mkdir(mode=0o700)
    (world.home / "ring0.toml").write_text('profile = "strict"\npolicy = ["own.cedar"]\n')
    (world.home / "own.cedar").write_text(
        '@id("own") permit (principal, action == Action::"crm.execute", resource);\n'
    )
    ran = world.start("run", "agent.py:clerk", "Ann")
    assert world.ring0("deny", world.pending()).code == 0
    assert "strict-untrusted-run" in world.finish(ran).all
    assert world.customers() == ["Ann", "Bob"]


def test_a_rule_for_a_tool_that_the_agent_does_not_have_is_said_aloud_at_its_start(
    world: World,
) -> None:
    world.home.mkdir(mode=0o700)
    (world.home / "ring0.toml").write_text('policy = ["own.cedar"]\n')
    (world.home / "own.cedar").write_text(
        '@id("own") forbid (principal, action == Action::"files.wriet", resource);\n'
    )
    done = world.ring0("run", "agent.py:plain", "hi")
    assert done.code == 0 and "Did you mean 'files.write'?" in done.all


def test_a_daemon_says_in_its_log_what_a_profile_and_a_misspelt_rule_mean(world: World) -> None:
    world.home.mkdir(mode=0o700)
    (world.home / "ring0.toml").write_text('profile = "observe"\npolicy = ["own.cedar"]\n')
    (world.home / "own.cedar").write_text(
        '@id("own") forbid (principal, action == Action::"files.wriet", resource);\n'
    )
    with daemon(world) as d:
        assert world.ring0("run", "agent.py:plain", "hi").code == 0
        d.says("nothing is held for a person")
        d.says("Did you mean 'files.write'?")


INLINE = (
    CASES.replace('manifest = "clerk.toml"', "")
    + """
[tools."crm.execute"]
type = "object"
properties = { statement = { type = "string" } }
required = ["statement"]
"""
)


def test_a_tools_schema_may_stand_in_the_file_of_cases_and_is_checked(world: World) -> None:
    files(world, **{"cases.toml": INLINE})
    assert world.ring0("policy", "test", "cases.toml").code == 0
    # What may be absent has to be looked for first.
    files(world, **{"cases.toml": INLINE.replace('required = ["statement"]', "")})
    done = world.ring0("policy", "test", "cases.toml")
    assert done.code == 2 and "optional" in done.err and "mine.cedar:2" in done.err
    files(world, **{"cases.toml": INLINE.replace('"string"', '"strng"')})
    done = world.ring0("policy", "test", "cases.toml")
    assert done.code == 2 and "no JSON Schema" in done.err
