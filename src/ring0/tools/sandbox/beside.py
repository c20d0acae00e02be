"""Starts a sandbox of the tiers `landlock`, `container` and `gvisor`. A script, never imported.

Start it with `-I` and an empty environment. This file only finds `inside`.

Usage: beside.py bare|contain <fd of the control socket> <fd for the program> <fd of the leash>
"""

import os
import sys

if __name__ == "__main__":
    try:
        # At the end of the path: nothing beside this file may stand in for the standard library.
        sys.path.append(os.path.dirname(os.path.abspath(__file__)))
        if sys.argv[1] == "bare":
            from inside.bare import main  # type: ignore[import-not-found]
        else:
            from inside.contain import main  # type: ignore[import-not-found]

        sys.path.pop()  # and nothing of it is there for what is imported later
        main(*map(int, sys.argv[2:]))
    finally:
        os._exit(0)
