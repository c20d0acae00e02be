"""Who somebody at this machine is: as the operating system names them."""

from __future__ import annotations

import pwd


def operator_name(uid: int) -> str:
    """`user (uid N)`; `uid N` where nobody has that number."""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
