"""The process from which a sandbox of the other tiers comes, where `ns` has its zygote.

One for each sandbox: beside it (`bare`: landlock) or around it (`contain`: OCI runtimes).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from ring0.errors import SandboxFailed, SandboxUnavailable
from ring0.tools.sandbox import trouble
from ring0.tools.sandbox.control import Control
from ring0.tools.sandbox.process import Exit, Identity, Init, identify, readable

LAUNCHER: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "beside.py")


class Leash(Init):
    """The process beside a sandbox. SIGKILL would leave what it watches over: it is let go, and
    ends all of that before itself."""

    def __init__(self, pidfd: int, identity: Identity, leash: Control) -> None:
        super().__init__(pidfd, identity)
        self._leash = leash

    def kill(self) -> None:
        self._leash.close()

    async def gone(self) -> Exit:
        await super().gone()
        self._leash.close()
        return Exit(None, signal.SIGKILL)  # where it said nothing else


class Starter:
    """Makes one sandbox's first process; see `host.Maker`."""

    def __init__(self, mode: str) -> None:
        self._mode = mode

    async def clone(self, fds: Sequence[int], *, user_namespace: bool) -> Init:
        """`fds`: control, the program's socket, the three streams; they stay the caller's too."""
        control, go, stdin, stdout, stderr = fds
        ours, theirs = Control.pair()
        passed = (control, go, theirs)
        try:
            process = subprocess.Popen(  # noqa: ASYNC220  # a fork and an exec: 1 ms
                [sys.executable, "-I", LAUNCHER, self._mode, *map(str, passed)],
                env={},  # the program may be a fork of it
                cwd="/",
                stdin=stdin, stdout=stdout, stderr=stderr,
                pass_fds=passed,
                start_new_session=True,  # Ctrl-C is for the kernel, not for its sandboxes
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise SandboxUnavailable(
                "The sandbox's launcher can't be started.",
                why=f"{sys.executable}: {error.strerror}",
                todo="Run ring0 with a Python that is a file on this machine.",
            ) from None
        finally:
            os.close(theirs)
        pidfd = os.pidfd_open(process.pid)
        if self._mode == "bare":
            process.returncode = 0  # who has the pidfd waits for it
            return Leash(pidfd, identify(process.pid), ours)
        try:
            return await _born(ours)
        finally:
            ours.close()
            await readable(pidfd)
            os.close(pidfd)
            process.wait()

    def kill(self) -> None:
        """It is at its end already, or ends when its sockets do."""


async def _born(leash: Control) -> Init:
    while (heard := await leash.receive()) is not None:
        message, fds = heard
        if message.step == "born" and fds:
            return Init(fds[0], identify(message.pid))
        raise trouble.refused_by_linux(message.at, message.errno, message.detail)
    raise SandboxFailed("The sandbox's launcher ended without a word.")
