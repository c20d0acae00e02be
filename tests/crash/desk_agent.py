"""Calls of every kind, with effects in two ledgers outside. PORT is filled in by the test."""

import json
import os
import urllib.request

from ring0 import Context, agent, tool

INSERT = "INSERT INTO ledger (entry) VALUES (?)"


@tool(effect="once", egress=["POST http://127.0.0.2:PORT/ledger"], wall_s=15)
def post(entry: str) -> int:
    """Enters something into the ledger that is reached over HTTP."""
    proxy = urllib.request.ProxyHandler({"http": os.environ["HTTP_PROXY"]})
    asked = urllib.request.Request("http://127.0.0.2:PORT/ledger", entry.encode(), method="POST")
    with urllib.request.build_opener(proxy).open(asked, timeout=30) as answer:
        return answer.status


@tool(effect="pure")
def double(number: int) -> int:
    """Runs in a sandbox, and may run twice."""
    return 2 * number


async def compacted(ctx: Context) -> str:
    """The working set, as it was before a compaction and is after it."""
    before = (await ctx.memory.assemble(8_000, recall=0))["text"].partition("# Working set")[2]
    await ctx.memory.compact()
    after = (await ctx.memory.assemble(8_000, recall=0))["text"].partition("# Working set")[2]
    assert before and before == after, (before, after)
    return after


async def tried(ctx: Context, what: str, call) -> list[str]:
    """What an effect came to; one that was cut off and did not happen is no end of the run."""
    try:
        await call
    except Exception as error:
        ctx.log(f"{what}: {error}")
        return [f"{what}: not done"]
    return [what]


@agent(tools=[post, double], builtins={"files": {"use": "files"}})
async def helper(ctx: Context, task: str):
    order = await ctx.receive()
    async with ctx.lock(f"ticket:{task}", lease_s=600):
        done = await tried(ctx, f"{task}-helped", ctx.tool("post", entry=f"{task}-helped"))
        await ctx.tool("files.write", path="mine.md", text=str(done))
    await ctx.send(order.sender, {"from": task, "done": done})
    await ctx.sleep(1.2)
    return done


@agent(tools=[post, double], agents=[helper])
async def desk(ctx: Context, task: str):
    order = json.loads(task)
    name, done, notes = order["name"], [], []
    child = await ctx.spawn(helper, name)
    await ctx.memory.plan([f"{name}-{number}" for number in range(order["rounds"])])
    sets = []
    await ctx.send(child, {"order": name})
    for number in range(order["rounds"]):
        entry = f"{name}-{number}"
        notes.append(f"{entry} at {await ctx.now()} {await ctx.random()}")
        await ctx.tool("files.write", path=f"notes/{entry}.md", text=notes[-1])
        bank = ctx.tool("bank.execute", statement=INSERT, parameters=[f"{entry}-bank"])
        done += await tried(ctx, f"{entry}-bank", bank)
        async with ctx.lock("ledger:http", lease_s=600):
            done += await tried(ctx, f"{entry}-post", ctx.tool("post", entry=f"{entry}-post"))
        assert await ctx.tool("double", number=number) == 2 * number
        await ctx.memory.append(f"{entry} is entered")
        await ctx.memory.recall(f"{entry} entered", k=3)
        await ctx.model([{"role": "user", "content": f"say {entry}"}])
        await tried(ctx, f"{entry}-nothing", ctx.tool("nothing", entry=entry))
        await ctx.memory.step(number + 1)
        sets.append(await compacted(ctx))
    signed = ctx.tool("vault.execute", statement=INSERT, parameters=[f"{name}-signed"])
    done += await tried(ctx, f"{name}-signed", signed)
    await ctx.ask_for_more(why=f"{name} has more to do", calls=10)
    first, second = await ctx.receive(), await ctx.receive()
    await ctx.sleep(1.2)
    helped = await child.wait()
    said = sorted(json.dumps(one.value, sort_keys=True) for one in (first, second))
    return {"done": done, "helped": helped, "notes": notes, "said": said, "sets": sets}
