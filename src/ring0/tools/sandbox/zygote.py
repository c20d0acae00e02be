"""The kernel's side of the zygotes: one small process for each image, cloned for each sandbox.

A zygote that died, or has made its share, is replaced. Sandboxes do not depend on the one that
made them. What a zygote does is inside/zygote.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final

from ring0 import limits
from ring0.errors import InvalidInput, SandboxFailed, SandboxUnavailable
from ring0.runtime import Runtime
from ring0.tools.sandbox import trouble
from ring0.tools.sandbox.control import Control, Message
from ring0.tools.sandbox.process import Init, identify, readable
from ring0.tools.sandbox.spec import check_image

LAUNCHER: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")


class ZygoteGone(SandboxFailed):
    """The zygote died before it answered. Nobody knows whether it made a sandbox; if so, that one
    ends by itself."""


class Zygote:
    """One such process. `close` it."""

    def __init__(self, image: Sequence[str] = (), *, site: bool = True) -> None:
        """`site`: with the packages of this Python's environment, as `python -I` has them."""
        self.made = 0
        self._over = False
        self._turn = asyncio.Lock()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = Control(ours)
        nothing, end = os.pipe()
        os.close(end)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", *([] if site else ["-S"]), LAUNCHER, str(theirs.fileno())],
                env={},  # a tenant's init must not hold the kernel's environment
                cwd="/",
                # Ended pipes: what a tenant's Python later finds in their place can't be sought.
                stdin=nothing, stdout=nothing, stderr=nothing,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for the kernel, not for its sandboxes
            )  # fmt: skip
        except OSError as error:
            self._control.close()
            raise SandboxUnavailable(
                "The sandbox's launcher can't be started.",
                why=f"{sys.executable}: {error.strerror}",
                todo="Run ring0 with a Python that is a file on this machine.",
            ) from None
        finally:
            theirs.close()
            os.close(nothing)
        with contextlib.suppress(OSError):  # it died: the first request finds out
            self._control.send(list(image))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Can it be asked? (What it made lives in any case.)"""
        return not self._over and self._process.poll() is None

    async def clone(self, fds: Sequence[int], *, user_namespace: bool) -> Init:
        """A new sandbox's init with these descriptors: control, go, stdin, stdout, stderr. They
        stay the caller's too. Raises ZygoteGone, what Linux refused, what the image lacks.

        Not to be cancelled: the answer would be lost."""
        async with self._turn:
            with contextlib.suppress(OSError):  # it died; perhaps it has said why
                self._control.send(user_namespace, fds)
            while (heard := await self._control.receive()) is not None:
                message, received = heard
                if message.step == "born" and received:
                    self.made += 1
                    return Init(received[0], identify(message.pid))
                if message.step != "ready":
                    self._over = message.at in ("image", "zygote")
                    raise _refused(message)
            self._over = True
        raise ZygoteGone(
            "The process that makes sandboxes died.",
            why="It gave no answer: it was killed, or there was no memory for it.",
            todo="Try again; if it goes on, look at the machine's memory.",
        )

    async def close(self, runtime: Runtime) -> None:
        """End it and see it gone. Its sandboxes live on. It leaves by itself, in the middle of
        nothing: killed between making a process and naming it, it would leave one unknown."""
        async with contextlib.AsyncExitStack() as stack:
            with contextlib.suppress(TimeoutError):  # stuck in a clone: then nobody waits for that
                await runtime.wait_for(
                    stack.enter_async_context(self._turn), limits.SANDBOX_KILL_S_MAX
                )
            self._control.close()
            if self._process.poll() is not None:
                return
            pidfd = os.pidfd_open(self._process.pid)
            try:
                await runtime.wait_for(readable(pidfd), limits.SANDBOX_KILL_S_MAX)
            except TimeoutError:
                self._process.kill()
            finally:
                os.close(pidfd)
            self._process.wait()  # it is dead

    def kill(self) -> None:
        """At once. Who waits for an answer hears that it is gone."""
        self._process.kill()


class Zygotes:
    """The zygotes of one kernel, by image. `close` them."""

    def __init__(self, runtime: Runtime, trusted: Collection[str] = ()) -> None:
        """`trusted`: modules that the operator lets be imported ahead, by their first names."""
        self._runtime = runtime
        self._trusted = frozenset(trusted)
        self._ready: OrderedDict[tuple[str, ...], Zygote] = OrderedDict()
        self._leaving: set[asyncio.Task[None]] = set()

    def of(self, image: tuple[str, ...]) -> Zygote:
        """The zygote for an image, started where there is none. `InvalidInput` for an image that
        the kernel does not make."""
        check_image(image, self._trusted)
        zygote = self._ready.get(image)
        if zygote is not None and (zygote.made >= limits.ZYGOTE_SANDBOXES_MAX or not zygote.alive):
            self._give_up(image)
            zygote = None
        if zygote is None:
            while len(self._ready) >= limits.ZYGOTES_MAX:
                self._give_up(next(iter(self._ready)))
            zygote = self._ready[image] = Zygote(image)
        self._ready.move_to_end(image)
        return zygote

    async def close(self) -> None:
        for image in list(self._ready):
            self._give_up(image)
        await asyncio.gather(*self._leaving)

    def _give_up(self, image: tuple[str, ...]) -> None:
        zygote = self._ready.pop(image)
        leaving = self._runtime.start(zygote.close(self._runtime), name=f"zygote-{zygote.pid}")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)


def _refused(message: Message) -> Exception:
    if message.at == "image":
        return InvalidInput(
            "The sandbox's image can't be made.",
            why=message.detail,
            todo="Correct the names of its modules, or install what they need.",
        )
    return trouble.refused_by_linux(message.at, message.errno, message.detail)
