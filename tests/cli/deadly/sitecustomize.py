"""Python runs this at its start where a test has put this folder on PYTHONPATH: `ring0` itself,
unchanged, but that a call with the word of `DEADLY` in it kills the process of its kernel, as a
fault in what carries it out would; or that runs are put away after `PARK_AFTER_S`. Sandboxes have
an environment of their own and don't get here.
"""

import os
import signal

if "DEADLY" in os.environ:
    from ring0.kernel.gate import Gate

    _call = Gate.call

    async def _deadly(self, *args, **named):  # type: ignore[no-untyped-def]
        if os.environ["DEADLY"] in repr((args, named)):
            os.kill(os.getpid(), signal.SIGKILL)
        return await _call(self, *args, **named)

    Gate.call = _deadly  # type: ignore[method-assign]

if "PARK_AFTER_S" in os.environ:
    from ring0 import limits

    limits.PARK_AFTER_S = float(os.environ["PARK_AFTER_S"])  # type: ignore[misc,assignment]
