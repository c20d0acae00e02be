"""`ring0`: the entry point, and nothing else. It imports the rest inside, so that Ctrl-C while
Python still loads it is one line, too, and no traceback. The commands are in `app`.
"""

import os
import signal
import sys

INTERRUPTED_EXIT = 130


def main() -> None:
    """The entry point `ring0`."""
    try:
        # A handler that leaves: an exception in the middle of an import may come out as any other.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _leave)
        from ring0.cli import app

        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = app.main(sys.argv[1:])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # All is done; only Python has to end.
    except KeyboardInterrupt:
        _leave()
    sys.exit(code)


def _leave(*_: object) -> None:
    """Nothing has begun yet, or all has ended: nothing is lost."""
    try:
        os.write(2, b"\nring0: Interrupted.\n")
    except OSError:
        pass
    os._exit(INTERRUPTED_EXIT)
