"""What a world of desks is made of: a ledger outside, and kernels as processes that can be killed.

Not here: who uses them, and what is done to them (desk_world.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec

from ring0.daemon.channel import Channel, Go, Options, Ready, Stop, pair
from ring0.gateway.holding import holder


class Ledger:
    """The ledger that is reached over HTTP: what was entered, and when it came in."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, int]] = []
        self.holds_s = 0.05
        """So that a kill meets it between its intent and its outcome."""
        ledger = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                entry = self.rfile.read(int(self.headers["Content-Length"])).decode()
                ledger.entries.append((entry, time.time_ns() // 1_000))
                time.sleep(ledger.holds_s)
                with contextlib.suppress(OSError):
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.2", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Worker:
    """One kernel's process."""

    def __init__(self, home: Path, environment: dict[str, str], stderr: int) -> None:
        ours, its = pair()
        options = msgspec.json.encode(Options(home=str(home), parent=os.getpid())).decode()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ring0.daemon.worker", options, str(its.fileno())],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            pass_fds=(its.fileno(),),
        )
        its.close()
        self.channel = Channel(ours)
        self.heard: list[Any] = []
        self.gone_us = 0

    def go(self) -> None:
        self.channel.send(Go())

    @property
    def is_ready(self) -> bool:
        self.heard += self.channel.receive() or ()
        return any(isinstance(one, Ready) for one in self.heard)

    @property
    def lives(self) -> bool:
        if self.process.poll() is None:
            return True
        self.gone_us = self.gone_us or time.time_ns() // 1_000
        return False

    def stop(self) -> None:
        self.channel.send(Stop())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.channel.close()


class Served:
    """`ring0 serve`: a supervisor with its worker."""

    def __init__(self, home: Path, environment: dict[str, str], log: Path) -> None:
        self._home, self._log = home, log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ring0", "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        )

    @property
    def heard(self) -> list[str]:
        return self._log.read_text().splitlines()

    def go(self) -> None:
        pass

    @property
    def is_ready(self) -> bool:
        """The worker that has the folder is at work."""
        pid = self.pid
        return pid is not None and f"worker {pid} is at work" in self._log.read_text()

    @property
    def pid(self) -> int | None:
        """The worker's process."""
        return holder(self._home / "kernel.lock")

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
