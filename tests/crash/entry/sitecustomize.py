"""Python runs this at its start where a test has put this folder on PYTHONPATH: `ring0` itself,
unchanged, with a runtime that stops at a point. The product knows nothing of it; what the kernel
starts in sandboxes has an environment of its own and does not get here.
"""

import os

if "CRASH_PAGE" in os.environ:
    from page import Page

    from ring0 import limits
    from ring0.runtime import Runtime

    _page = Page(os.environ["CRASH_PAGE"])
    Runtime.reached = lambda _, point: _page.reached(point)  # type: ignore[method-assign]
    # Runs are put away and woken all the time, and no world takes much disk.
    limits.PARK_AFTER_S = 0.3  # type: ignore[misc,assignment]
    limits.DISK_RESERVE_SIZE_BYTES = 256 * limits.KIB  # type: ignore[misc]
    if "CRASH_FROZEN_S" in os.environ:
        limits.FROZEN_S = int(os.environ["CRASH_FROZEN_S"])  # type: ignore[misc,assignment]
        limits.FROZEN_LOOK_S = 1  # type: ignore[misc,assignment]
    if "CRASH_BROKEN" in os.environ:  # A kernel as it must not be: do the checks find it out?
        from msgspec.structs import replace

        from ring0.kernel.gate import Gate
        from ring0.kernel.life import cutting
        from ring0.types import CallState, Effect

        async def _nothing(*_):  # type: ignore[no-untyped-def]
            return []

        async def _anew(gate, run, held):  # type: ignore[no-untyped-def]
            record = run.records.get(held.id)
            if record is not None and record.state is CallState.INTENDED:
                run.records[held.id] = replace(record, effect=Effect.IDEMPOTENT)
            return await _recall(gate, run, held)

        _recall = Gate.recall
        Gate.recall = _anew  # type: ignore[method-assign]
        cutting.cut_off = _nothing  # type: ignore[assignment]
