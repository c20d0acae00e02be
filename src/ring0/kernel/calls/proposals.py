"""Tools that live in the agent's own process: what models propose of them, and what came of it.

The kernel judges and records both and carries out neither: the agent does that itself, within its
sandbox. So no undo and no exactly-once is claimed here; those are for tools of the kernel's.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.tools.driver import CallContext, Offer, Prepared, Result
from ring0.tools.inferring import infer
from ring0.tools.registry import Tool
from ring0.types import Effect, Integrity, Label, ToolManifest

_SYSTEM: Final = Label(integrity=Integrity.SYSTEM)
_PROPOSAL: Final = ToolManifest(
    name="proposal",
    description="A tool call that a model proposes.",
    effect=Effect.ONCE,
    schema={"type": "object"},
    where="agent",
)


class Proposal:
    """`proposal`: a tool call that a model proposes, of a tool that no manifest names."""

    def __init__(self, manifest: ToolManifest = _PROPOSAL) -> None:
        self.manifest = manifest

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        return Prepared(
            driver_bytes=msgspec.json.encode(args, order="sorted"),
            mutates=self.manifest.effect is not Effect.PURE,
            effect=Effect.PURE,  # To judge it again changes nothing.
            own=False,
            uncounted=True,
            lines=(f"The agent itself would carry out {context.name}.",),
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        """The arguments as they may go to the agent: a person may have changed some."""
        return Result(value={"args": args}, label=_SYSTEM, remember="")


def inferred(name: str, offer: Offer) -> Tool:
    """The tool of a proposal, as far as the question to the model tells of it: nobody vouches for
    what the agent says of its own tools, and so it is never more than a proposal."""
    schema = msgspec.json.encode(offer.schema, order="sorted")
    kept = len(schema) <= limits.INFERRED_KEPT_SIZE_BYTES_MAX
    work = _inferred if kept else _inferred.__wrapped__
    return work(name, offer.description[: limits.INFER_DESCRIPTION_CHARS_MAX], schema)


@functools.lru_cache(maxsize=limits.INFERRED_KEPT_MAX)
def _inferred(name: str, description: str, schema: bytes) -> Tool:
    found = infer(name, description, msgspec.json.decode(schema))
    manifest = msgspec.structs.replace(
        _PROPOSAL,
        effect=found.effect,
        critical=found.critical,
        statements=found.statements,
        recipients=found.recipients,
        content=found.content,
        removes=found.removes,
        confidentiality=found.confidentiality,
    )
    return Tool(Proposal(manifest))


class Observed:
    """`observed`: what came of a call that the agent carried out, as it tells the next model."""

    manifest = ToolManifest(
        name="observed",
        description="What a tool of the agent's own returned.",
        effect=Effect.PURE,
        schema={
            "type": "object",
            "properties": {
                "call": {"type": "string"},
                "args": {"type": "object"},
                "result": {"type": "string"},
                "failed": {"type": "boolean"},
                "proposed": {"type": "boolean"},
            },
            "required": ["call", "result"],
            "additionalProperties": False,
        },
    )

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        return Prepared(
            driver_bytes=msgspec.json.encode(args, order="sorted"), own=False, uncounted=True
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        """Whoever made it, it came through a process that nobody can vouch for. `proposed`: a model
        of the run did propose the call, just so; agents rewrite what was said."""
        made_up = () if args.get("proposed") else ("no model proposed it",)
        label = Label(
            integrity=Integrity.UNTRUSTED,
            confidentiality=context.run.label.confidentiality,
            sources=(f"{context.name}@{context.call}", *made_up),
        )
        failed = args.get("failed", False)
        text = f"{context.name} {'failed:' if failed else '->'} {args['result']}"
        return Result(
            value=None,
            label=label,
            remember=text[: limits.EPISODE_CHARS_MAX],
            remember_role="failure" if failed else "result",
        )
