"""How many files this process may have open. Not here: who opens them."""

from __future__ import annotations

import resource

from ring0 import limits


def raise_open_files() -> None:
    """Lets this process open as many files as it may (at most KERNEL_OPEN_FILES_MAX).

    Every connection of every run is one; the usual 1,024 are too few for many runs at once.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = limits.KERNEL_OPEN_FILES_MAX
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
