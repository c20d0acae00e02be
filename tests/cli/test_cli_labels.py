"""`labels` and `quarantine` from the command line, on runs that have ended and one that waits."""

from __future__ import annotations

from cli_world import World

AGENT = '''
from ring0 import Context, agent, tool


@tool(effect="pure")
def page(n: int) -> list[dict]:
    """A page."""
    return [{"id": "m-4711", "n": "12", "text": "supplier \\x1b[31mDE-6666"}]


@agent(tools=[page], builtins={"files": {"use": "files"}, "calc": {"use": "derive"}})
async def reader(ctx: Context, task: str):
    found = await ctx.tool("page", n=1)
    await ctx.memory.append("the supplier is DE-6666")
    await ctx.tool("files.write", path="a.txt", text=found[0]["text"])
    text = (await ctx.tool("files.read", path="a.txt"))["text"]
    await ctx.tool("files.write", path="b.txt", text=text)
    return await ctx.derive.sum([40, 2])


@agent
async def recaller(ctx: Context, task: str):
    return [one["text"] for one in await ctx.memory.recall("supplier")]


@tool(effect="once", critical=["to"])
def send(to: str) -> str:
    """Sends."""
    return "sent"


@agent(tools=[page, send])
async def sender(ctx: Context, task: str):
    found = await ctx.tool("page", n=1)
    await ctx.model([{"role": "user", "content": found[0]["text"]}])
    await ctx.tool("send", to=found[0]["text"].split()[-1])


@agent(tools=[page])
async def waiter(ctx: Context, task: str):
    await ctx.tool("page", n=1)
    await ctx.receive()
'''
MANIFEST = """
name = "reader"
entry = "labelled.py:reader"

[tools.files]
use = "files"

[tools.calc]
use = "derive"

[functions.page]
confidentiality = "private"
fields = { "[].id" = "trusted-field", "[].n" = "trusted-field if integer" }
"""


def read(world: World, task: str = "add 40 and 2") -> str:
    """A run that has read a page, and ended."""
    world.write("labelled.py", AGENT)
    world.write("agent.toml", MANIFEST)
    done = world.ring0("run", "--manifest", "agent.toml", "--task", task)
    assert done.code == 0, done.all
    return str(world.ring0("show", "--json").json["run"]["id"])


def test_labels_tell_where_each_argument_of_an_ended_run_came_from(world: World) -> None:
    run = read(world)
    told = world.ring0("labels", run).out
    assert "page@" in told and "[].id  [trusted-field]" in told and "\x1b" not in told
    assert "declassified by sanitiser integer: [].n, 1 value, from untrusted" in told
    found = world.ring0("labels", run, "--json").json
    calls = {one["call"].removeprefix(run + "/"): one for one in found["calls"]}
    assert calls["0/1"]["label"]["confidentiality"] == "private"
    assert calls["0/3"]["origins"][-1]["sources"][0] == f"page@{run}/0/1"
    shown = world.ring0("show", run).out
    assert "declassified by sanitiser integer" in shown
    assert world.ring0("show", run, "--json").json["calls"][0]["declassified"][0]["values"] == 1


def test_labels_of_one_call_are_the_whole_way_back(world: World) -> None:
    run = read(world)
    told = world.ring0("labels", run, "0/5").out
    assert told.index("files.write") < told.index("files.read") and "page  r-" in told
    assert "told elsewhere in this tree" in told
    way = world.ring0("labels", run, "0/5", "--json").json["way"]
    assert way["call"] == f"{run}/0/5"
    summed = world.ring0("labels", run, "0/6", "--json").json["way"]
    assert {"task"} <= {inner["what"] for one in summed["behind"] for inner in one["behind"]}


def test_labels_of_a_source_are_what_came_of_it(world: World) -> None:
    run = read(world)
    told = world.ring0("labels", run, "--source", "page").out
    assert "a.txt" in told and "b.txt" in told and "came from it" in told
    found = world.ring0("labels", run, "--source", f"page@{run}/0/1", "--json").json
    assert list(found["runs"]) == [run]
    nothing = world.ring0("labels", run, "--source", "nothing").out
    assert "No run has got anything of a source nothing" in nothing


SENDER = """
name = "sender"
entry = "labelled.py:sender"
models = { default = { provider = "scripted", script = "puppet.toml" } }

[functions.page]
confidentiality = "private"
"""


def test_labels_of_a_held_call_are_told_before_anybody_answers(world: World) -> None:
    world.write("labelled.py", AGENT)
    world.write("puppet.toml", "rules = []")
    world.write("agent.toml", SENDER)
    first = world.start("run", "--manifest", "agent.toml", "--task", "go")
    approval = world.pending()
    run = world.live()[0]["id"]
    told = world.ring0("labels", run).out
    assert "0/3" in told and "send  pending" in told and f"DE-6666: page@{run}/0/1" in told
    way = world.ring0("labels", run, "0/3").out
    assert "to = DE-6666" in way and "page  r-" in way
    # The question to a model is the whole conversation: where it came from is one line.
    assert f"its question: page@{run}/0/1" in told and "messages[0]" not in told
    assert "messages[0].content" in world.ring0("labels", run, "0/2").out
    # Who answers is told how private it is, too.
    assert "untrusted, private" in world.ring0("approvals", approval).out
    assert "has read: untrusted, private" in world.ring0("show", run).out
    assert world.ring0("deny", approval).code == 0
    world.finish(first)
    assert "send  refused" in world.ring0("labels", run).out


def test_labels_that_cant_be_told_say_why(world: World) -> None:
    run = read(world)
    assert world.ring0("labels", run, "0/1", "--source", "page").code == 2
    assert world.ring0("labels", run, "0/99").code == 2
    assert world.ring0("labels", "r-none").code == 2


def test_a_quarantine_is_shown_first_then_done_then_lifted(world: World) -> None:
    run = read(world)
    recalled = ("run", "labelled.py:recaller", "what")
    asked = world.ring0("quarantine", "page")
    assert "Nothing was done" in asked.out and "memory" in asked.out and asked.code == 2
    assert world.ring0("quarantine").out.strip() == "Nothing is quarantined."
    done = world.ring0("quarantine", "page", "--yes", "--note", "odd", "--json").json
    assert list(done["found"]["runs"]) == [run]
    assert "odd" in world.ring0("quarantine").out
    assert world.ring0("quarantine", "--json").json["quarantined"][0]["source"] == "page"
    assert world.ring0(*recalled).code == 0
    changes = world.ring0("audit", "changes").out
    assert "quarantine" in changes and "1 runs saw it" in changes
    assert world.ring0("quarantine", "page", "--lift").code == 0
    assert "lifted" in world.ring0("audit", "changes").out
    assert world.ring0("quarantine", "page", "--lift").code == 2
    assert world.ring0("audit", "verify").code == 0


def test_a_quarantine_reaches_the_kernel_that_is_at_work(world: World) -> None:
    world.write("labelled.py", AGENT)
    first = world.start("run", "labelled.py:waiter", "wait")
    run = world.waits_for("message")
    done = world.ring0("quarantine", "page", "--yes")
    assert done.code == 0 and f"paused  {run}" in done.out
    assert world.live()[0]["paused_by"]
    ended = world.ring0("quarantine", "page", "--yes", "--kill")
    assert f"killed  {run}" in ended.out
    assert world.finish(first).code != 0


def test_what_is_no_quarantine_is_an_error(world: World) -> None:
    read(world)
    assert world.ring0("quarantine", "--lift").code == 2
    assert world.ring0("quarantine", "page", "--lift", "--kill").code == 2
    assert world.ring0("quarantine", "a\nb", "--yes").code == 2


def test_a_quarantine_finds_runs_whose_values_are_archived_or_erased(world: World) -> None:
    run = read(world)
    for verb in (("archive", run), ("unarchive", run), ("audit", "erase", run)):
        assert world.ring0(*verb).code == 0
        asked = world.ring0("quarantine", "page")
        assert "Nothing was done" in asked.out and run in asked.out, (verb, asked.all)


def test_what_was_erased_keeps_no_list_from_being_shown(world: World) -> None:
    world.write("labelled.py", AGENT)
    world.write("puppet.toml", "rules = []")
    world.write("agent.toml", SENDER)
    first = world.start("run", "--manifest", "agent.toml", "--task", "go")
    approval, run = world.pending(), world.live()[0]["id"]
    assert world.ring0("deny", approval).code == 0
    world.finish(first)
    assert world.ring0("audit", "erase", run).code == 0
    for verb in (("approvals", "--all"), ("approvals", approval), ("approvals", "--standing")):
        shown = world.ring0(*verb)
        assert shown.code == 0 and "DE-6666" not in shown.out, shown.all
    assert "erased" in world.ring0("approvals", approval).out
    world.write("other.cedar", "permit (principal, action, resource);\n")
    told = world.ring0("policy", "diff", "other.cedar", "other.cedar")
    assert told.code == 0 and "could not be decided again" in told.out, told.all
