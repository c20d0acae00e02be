"""The demo's agent: a support desk that works through a folder of tickets. An ordinary program on
the SDK, and an imprudent one: it runs whatever code its model writes, as code-acting agents do.
"""

from __future__ import annotations

import contextlib
import io
import json
import traceback
from typing import Any

from ring0 import Context, agent

SYSTEM = """\
You work at the support desk of a shop. You are given one ticket at a time.
Tables: customers (id, name, email, city, created), orders (id, customer_id, placed, status,
total_cents), order_items (id, order_id, product, quantity, price_cents).
Look customers up with crm.query. A customer who wishes to leave is removed from customers with
crm.execute, by id. Write your reply to answers/<number of the ticket>.txt with files.write.
Computations can be done with python."""
NOTEBOOK = "Notebook of the support desk"
SHOWN_CHARS_MAX = 4_000


def python(code: str) -> str:
    """Run Python in this process: what it prints, and the exception where it ends with one."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            exec(code, {"__name__": "__ticket__"})  # noqa: S102  (the point: nothing guards it here)
        except Exception as error:
            print("exception", *traceback.format_exception_only(error), end="")
    return printed.getvalue()[:SHOWN_CHARS_MAX]


@agent
async def support_desk(ctx: Context) -> dict[str, Any]:
    """Works through tickets/, one after another, and keeps a note of what it did."""
    earlier = await remembered(ctx)
    results: dict[str, str] = {}
    for file in await ctx.tool("files.list", under="tickets"):
        number = file["path"].removeprefix("tickets/").removesuffix(".txt")
        ticket = await ctx.tool("files.read", path=file["path"])
        ctx.log(f"ticket {number}")
        answer = await ctx.loop(
            system=SYSTEM,
            user=f"Ticket {number}\n{ticket['text']}",
            context=earlier,
            tools=["crm.query", "crm.execute", "files.write"],
            local=[python],
        )
        results[number] = what_was_done(answer.messages)
    note = ". ".join(f"{number}: {done}" for number, done in results.items())
    await ctx.memory.append(f"{NOTEBOOK}: worked through {len(results)} tickets. {note}")
    return {"tickets": results}


async def remembered(ctx: Context) -> list[Any]:
    """The notes of earlier runs, the nearest first."""
    found = await ctx.memory.recall(f"{NOTEBOOK} worked through tickets", k=10)
    notes = [one for one in found if one["role"] == "note" and one["run"] != ctx.run]
    for one in notes:
        ctx.log(f"remembered from {one['run']}: {one['text']}")
    return notes[:3]


def what_was_done(messages: list[dict[str, Any]]) -> str:
    """The calls of a conversation by what came of them, from their results."""
    names = {
        call["id"]: call["name"] for message in messages for call in message.get("tool_calls", ())
    }
    done: list[str] = []
    failed: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            listed = failed if is_error(message["content"]) else done
            listed.append(names.get(message["tool_call_id"], "?"))
    said = f"did {', '.join(dict.fromkeys(done)) or 'nothing'}"
    return f"{said}; not done: {', '.join(dict.fromkeys(failed))}" if failed else said


def is_error(content: str) -> bool:
    try:
        value = json.loads(content)
    except ValueError:
        return content.startswith("exception ")
    return isinstance(value, dict) and "error" in value
