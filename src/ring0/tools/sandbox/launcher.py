"""Makes sandboxes. Run as a script by zygote.py (the kernel's side), never imported by ring0.

Start it with `-I` and an empty environment, because a tenant could read /proc/1/environ where init
is its own. This file only finds `inside`, so that Python keeps the rest compiled (3 ms).

Usage: launcher.py <fd of the socket on which the kernel asks>
"""

import os
import sys

if __name__ == "__main__":
    try:
        # At the end of the path: nothing beside this file may stand in for the standard library.
        sys.path.append(os.path.dirname(os.path.abspath(__file__)))
        from inside.zygote import main  # type: ignore[import-not-found]

        sys.path.pop()  # and nothing of it is there for what is imported later
        main(int(sys.argv[1]))
    finally:
        os._exit(0)
