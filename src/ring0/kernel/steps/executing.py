"""Step 8 of the gate: the driver does what it prepared, and whatever it raises becomes a value."""

from __future__ import annotations

from ring0.errors import EffectUnknown, Ring0Error, ToolFailed
from ring0.kernel.steps.judging import Judged
from ring0.tools.driver import CallContext, Result
from ring0.types import Effect


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
