"""Step 8 of the gate: the driver does what it prepared, and whatever it raises becomes a value."""

from __future__ import annotations

from ring0.errors import EffectUnknown, Ring0Error, ToolFailed
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.sandboxes import Sandboxes
from ring0.kernel.steps import looping
from ring0.kernel.steps.judging import Judged
from ring0.kernel.steps.turns import Turns
from ring0.observability.telemetry import ids
from ring0.tools.driver import CallContext, Result
from ring0.types import Effect


def context(run: LiveRun, held: Held, sandboxes: Sandboxes, turns: Turns) -> CallContext:
    """What the driver may know of the call."""
    return CallContext(
        call=held.id,
        name=held.name,
        begun_us=held.begun_us,
        traceparent=ids.traceparent(run.row, held.id),
        run=run.row,
        workspace=run.workspace,
        sandboxes=sandboxes,
        operator=run.agent.operator,
        within=held.within,
        sink=held.said.sink if held.said else None,
        fences=turns.fences(run),
        notice=looping.told(run, held),
        origins=run.seen.origins,
    )


async def carried_out(judged: Judged, context: CallContext) -> Result | Ring0Error:
    """What came of it; EffectUnknown where nobody can tell. Raises CancelledError."""
    held = judged.held
    try:
        return await judged.tool.driver.execute(held.args, judged.prepared, context)
    except Ring0Error as error:
        return error
    except Exception as error:
        broke = f"{held.name or held.kind} broke: {type(error).__name__}."
        if judged.effect is Effect.ONCE:
            return EffectUnknown(broke)
        return ToolFailed(broke, why="A fault of ring0 or of the driver.", todo="Report it.")
