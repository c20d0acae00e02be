"""Makes one sandbox and becomes its init. Run as a script by host.py, never imported by ring0.

Start it with `-I -S` and an empty environment, because a tenant could read /proc/1/environ where
init is its own. This file only finds `inside`, so that Python keeps the rest compiled (3 ms).

Usage: launcher.py <fd of the control socket> <fd of the spec>
"""

import os
import sys

if __name__ == "__main__":
    try:
        # At the end of the path: nothing beside this file may stand in for the standard library.
        sys.path.append(os.path.dirname(os.path.abspath(__file__)))
        from inside.init import main  # type: ignore[import-not-found]

        main()
    finally:
        os._exit(0)
