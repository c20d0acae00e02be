"""50 calls: 10 `once` effects in an outside ledger, 20 files written, 20 reads of the clock."""

import json

from ring0 import Context, agent

# The effect takes a while, so that a kill meets it between its intent and its outcome.
ENTRY = """
INSERT INTO ledger (entry)
SELECT ? WHERE (WITH RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + ? FROM n WHERE i < ?)
SELECT count(*) FROM n) > ?
"""


@agent
async def clerk(ctx: Context, task: str) -> str:
    order = json.loads(task)
    written: list[str] = []
    for entry in order["entries"]:
        moment = await ctx.now()
        await ctx.tool("files.write", path=f"notes/{entry}.md", text=f"{entry} at {moment}")
        written.append(f"{entry} at {moment}")
        try:
            await ctx.tool(
                "bank.execute", statement=ENTRY, parameters=[entry, 1, 1, order["work"], 1]
            )
        except Exception as error:
            ctx.log(f"{entry}: {error}")
        await ctx.tool("files.write", path="notes/all.md", text="\n".join(written))
        await ctx.random()
    return json.dumps(written)
