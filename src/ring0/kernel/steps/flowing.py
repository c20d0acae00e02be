"""Step 5 of the gate, before the policy: where a call's arguments came from, and what that means.

The rules are guardrails/flows.py; here they meet what people changed of a held call, and what its
driver found out about it.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec.structs import replace

from ring0.guardrails import flows
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.steps import editing
from ring0.tools.driver import Prepared
from ring0.tools.registry import Tool
from ring0.types import Origin


def into(
    run: LiveRun, held: Held, tool: Tool, prepared: Prepared
) -> tuple[tuple[Origin, ...], flows.Flow]:
    """The origins of what chooses its target, and the facts for the policy."""
    manifest = tool.manifest
    origins = flows.origins(run.seen, manifest, held.args, run.row.started_us)
    if held.edited:
        origins = editing.authored(origins, held, flows.choosing(manifest, held.args))
    flow = flows.facts(
        run.seen, manifest, held.args, origins, mutates=prepared.mutates, host=prepared.host
    )
    if manifest.statements and flow.unfounded:
        own = {o.argument for o in origins if not o.sources and _own_words(o, held, tool, prepared)}
        left = tuple(name for name in flow.unfounded if name not in own)
        flow = replace(flow, unfounded=left)
    return origins, flow


def beside(run: LiveRun, held: Held, tool: Tool) -> tuple[Origin, ...]:
    """Where its other arguments came from, for whoever is asked: they are judged by nothing."""
    found = flows.origins_beside(run.seen, tool.manifest, held.args)
    if held.edited:
        chosen = flows.choosing(tool.manifest, held.args)
        found = editing.authored(found, held, (n for n in held.args if n not in chosen))
    return found


_LIMITS: Final = re.compile(r"\b(limit|offset)\s+\d+", re.IGNORECASE)
_LITERAL: Final = re.compile(r"['\"]|\$(?!\d)|(?<![\w$])\.?\d")
"""A value in a statement: a quoted one, PostgreSQL's `$$text$$`, a number. `$1` is a parameter."""


def _own_words(origin: Origin, held: Held, tool: Tool, prepared: Prepared) -> bool:
    """A statement that the agent wrote itself, as a whole, with no value in it: what it targets
    comes from its parameters. Not one that copies values from elsewhere."""
    if origin.argument not in tool.manifest.statements or prepared.copies:
        return False
    text = str(held.args.get(origin.argument, ""))
    if _LITERAL.search(_LIMITS.sub("", text)):
        return False
    shown = " ".join(origin.value.rstrip("…").casefold().split())
    return " ".join(text.casefold().split()).startswith(shown)
