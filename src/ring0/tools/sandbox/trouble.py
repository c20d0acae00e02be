"""Turns a step that Linux refused into an error that says what to do about it."""

from __future__ import annotations

import errno
import os
from typing import Final

from ring0.errors import InvalidInput, Ring0Error, SandboxFailed, SandboxUnavailable

_CONTAINER: Final = (
    "In Docker or Podman: start the container with --security-opt seccomp=unconfined and "
    "--security-opt systempaths=unconfined (as root also --cap-add SYS_ADMIN)."
)
_ALLOW_NAMESPACES: Final = (
    "Allow user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), "
    "kernel.unprivileged_userns_clone=1 (Debian), user.max_user_namespaces=15000 (RHEL). "
    + _CONTAINER
)
_TODO: Final = {
    "namespaces": _ALLOW_NAMESPACES,
    "user namespace": _ALLOW_NAMESPACES,
    "mounts": _ALLOW_NAMESPACES,
    "privileges": "As root, give the kernel CAP_SETUID and CAP_SETGID, and a uid that exists in "
    "this container's user namespace; or run it as an ordinary user.",
    "seccomp": "This Linux must be built with CONFIG_SECCOMP_FILTER.",
}
_REFUSALS: Final = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOSPC, errno.EUSERS)


def refused_by_linux(step: str, number: int, detail: str) -> Ring0Error:
    """A step of the making failed: `step` as inside/ names it, errno, and the path or so."""
    why = f"Step '{step}'{': ' + detail if detail else ''}: {_name(number)}."
    if step in _TODO and number in (*_REFUSALS, errno.EINVAL):
        return SandboxUnavailable("This machine can't make the sandbox.", why=why, todo=_TODO[step])
    return SandboxFailed(
        "The sandbox could not be made.",
        why=why,
        todo="Run `ring0 doctor`; if it is clean, report this.",
    )


def not_started(step: str, number: int, program: str, cwd: str, detail: str = "") -> Ring0Error:
    """The sandbox stands, but its program could not be started in it."""
    if step == "cwd":
        return InvalidInput(
            f"The sandbox has no folder {cwd!r} to start in.",
            why=_name(number),
            todo="Name a folder that is mounted, or /tmp.",
        )
    if step == "exec":
        return InvalidInput(
            f"The program {program!r} can't be started in the sandbox.",
            why=f"{_name(number)}. Only /usr, Python's own folders and what is mounted are there, "
            "and files must be readable for everyone.",
            todo="Mount the folder that holds the program.",
        )
    return SandboxFailed(
        "The sandbox's program could not be started.",
        why=f"Step '{step}': {detail or _name(number)}",
        todo="Look at the limits that were asked for.",
    )


def _name(number: int) -> str:
    return f"{errno.errorcode.get(number, 'no errno')} ({os.strerror(number)})"
