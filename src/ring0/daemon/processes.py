"""A worker as a real process: started, heard, killed, confirmed dead. The service manager, told.

Not here: when any of that is done (supervisor.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from ring0.daemon.channel import Channel, Go, Message, Options, Stop, pair

NOTIFY: Final = "NOTIFY_SOCKET"


class RealWorker:
    """A process of ours, by a descriptor that names it and never another of the same number."""

    def __init__(
        self,
        home: Path,
        environment: Mapping[str, str],
        *,
        hooks: str = "",
        hooks_hosts: tuple[str, ...] = (),
    ) -> None:
        ours, its = pair()
        options = Options(home=str(home), parent=os.getpid(), hooks=hooks, hooks_hosts=hooks_hosts)
        with its:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",  # Nothing of the folder that we were started in is code of ours.
                    "-m",
                    "ring0.daemon.worker",
                    msgspec.json.encode(options).decode(),
                    str(its.fileno()),
                ],
                env={key: text for key, text in environment.items() if key != NOTIFY},
                stdin=subprocess.DEVNULL,
                pass_fds=(its.fileno(),),
            )
        self.pid = self._process.pid
        self.news = asyncio.Event()
        self._channel = Channel(ours)
        self._handle = os.pidfd_open(self.pid)
        loop = asyncio.get_running_loop()
        for descriptor in (self._channel.fileno(), self._handle):
            loop.add_reader(descriptor, self._stirred, descriptor)

    def _stirred(self, descriptor: int) -> None:
        if descriptor == self._handle:  # It stays readable: once is enough.
            asyncio.get_running_loop().remove_reader(descriptor)
        self.news.set()

    def receive(self) -> list[Message]:
        found = self._channel.receive()
        if found is None:  # It has closed its end; its death is told by its handle.
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            return []
        return found

    def go(self, died_young: int) -> None:
        self._channel.send(Go(died_young=died_young))

    def stop(self) -> None:
        self._channel.send(Stop())

    def kill(self) -> None:
        if self._process.poll() is None:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def ended(self) -> int | None:
        return self._process.poll()

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for descriptor in (self._channel.fileno(), self._handle):
            loop.remove_reader(descriptor)
        self._channel.close()
        os.close(self._handle)


def notify(state: str, environment: Mapping[str, str]) -> None:
    """Tells the service manager (systemd's sd_notify), where there is one."""
    path = environment.get(NOTIFY, "")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        try:
            to.connect("\0" + path[1:] if path.startswith("@") else path)
            to.send(state.encode())
        except OSError:
            pass  # It does not listen: nothing depends on it.
