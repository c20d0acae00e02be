"""Real `ring0` processes that need not load Python first: one process has loaded what every command
loads, and is forked for each. What a command imports beyond that, its own process imports. For
commands that one waits for; whoever sends a signal or lets go on starts a process from nothing.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LIBRARIES = (
    "aiohttp.web",
    "biscuit_auth",
    "cedarpy",
    "cryptography.x509",
    "joserfc.jwk",
    "joserfc.jws",
    "typer._adapters",
)
"""What commands load of others' code."""
OURS = ("ring0.cli.app", "ring0.cli.starting", "ring0.gateway.control", "ring0.kernel.boot")
"""Of ring0's own, what brings the rest along. Started from nothing is each verb once, by
test_cli_verbs."""
STREAMS = 3
PIPE_SIZE_BYTES = 65_536
"""What a pipe takes before anybody reads."""


class Forking:
    """The process that is forked; it ends with this one."""

    def __init__(self, ring0: str) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Its streams are pipes as those of the commands are: Python looks once what they are.
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), ring0],
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        atexit.register(self.close)

    def close(self) -> bytes:
        """Ends it; what it had to say."""
        self._control.close()
        return self._process.communicate()[1]

    def run(
        self,
        arguments: tuple[str, ...],
        cwd: Path,
        environment: dict[str, str],
        stdin: bytes,
        wait_s: float,
    ) -> tuple[int, bytes, bytes]:
        """One command to its end: its exit code, and what it said."""
        order = os.memfd_create("order")
        content = json.dumps([arguments, str(cwd), environment]).encode()
        assert os.write(order, content) == len(content)
        given, gives = os.pipe()
        assert len(stdin) <= PIPE_SIZE_BYTES
        os.write(gives, stdin)
        os.close(gives)
        pipes = [os.pipe() for _ in range(STREAMS)]  # Standard output and error, and its end.
        theirs = [order, given, *(writes for _, writes in pipes)]
        socket.send_fds(self._control, [b"go"], theirs)
        for fd in theirs:
            os.close(fd)
        out, err, told = _all_of([reads for reads, _ in pipes], wait_s)
        assert len(told.split()) == 2, self.close().decode()
        return int(told.split()[1]), out, err


def _all_of(pipes: list[int], wait_s: float) -> list[bytes]:
    """What comes out of each until it ends. The last one begins with whom to kill if none does."""
    ends, pieces = time.monotonic() + wait_s, dict.fromkeys(pipes, b"")
    with selectors.DefaultSelector() as waiting:
        for fd in pipes:
            waiting.register(fd, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(max(0, ends - time.monotonic()))
            if not ready:
                os.kill(int(pieces[pipes[-1]].split()[0]), signal.SIGKILL)
                raise subprocess.TimeoutExpired("ring0", wait_s, *list(pieces.values())[:2])
            for key, _ in ready:
                piece = os.read(key.fd, PIPE_SIZE_BYTES)
                pieces[key.fd] += piece
                if not piece:
                    waiting.unregister(key.fd)
                    os.close(key.fd)
    return list(pieces.values())


@functools.cache
def forking(ring0: str) -> Forking:
    """The one of this test process."""
    return Forking(ring0)


def _next_command(control: socket.socket) -> list[Any] | None:
    """Forks for each order. Returns in each command's process, with what it is to do; and at the
    end, in its own, with None."""
    at_work: dict[int, tuple[int, int]] = {}
    while True:
        for ready in select.select([control, *at_work], [], [])[0]:
            if ready in at_work:
                pid, told = at_work.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.write(told, f" {code}".encode())
                os.close(ready)
                os.close(told)
                continue
            _, fds, *_ = socket.recv_fds(control, 16, 2 + STREAMS)
            if not fds:
                return None
            order, *streams, told = fds
            pid = os.fork()
            if pid == 0:
                return _taken(order, streams)
            os.write(told, str(pid).encode())
            at_work[os.pidfd_open(pid)] = pid, told
            for fd in (order, *streams):
                os.close(fd)


def _taken(order: int, streams: list[int]) -> list[Any]:
    """In a command's process: its streams, and no other descriptor."""
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    content = os.pread(order, os.fstat(order).st_size, 0)
    os.closerange(STREAMS, max(map(int, os.listdir("/proc/self/fd"))) + 1)
    wanted: list[Any] = json.loads(content)
    return wanted


def main(control: int, ring0: str) -> None:
    """As `ring0` itself begins; then it waits."""
    sys.path[0] = str(Path(ring0).parent)
    for name in (*OURS, *LIBRARIES):
        importlib.import_module(name)
    import typer.main

    from ring0.cli.app import app
    from ring0.cli.main import main as begin

    # Most of what a small command does is to make all the others ready, too.
    typer.main.get_command = functools.cache(typer.main.get_command)
    typer.main.get_command(app)

    gc.freeze()
    orders = socket.socket(fileno=control)
    wanted = _next_command(orders)
    if wanted is None:
        return
    orders.detach()  # It is closed here, or another's by now.
    arguments, cwd, environment = wanted
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [ring0, *arguments]
    codes: list[Any] = []
    atexit.register(_leave, codes)
    try:
        begin()
    except SystemExit as end:
        codes.append(end.code)
        raise


def _leave(codes: list[Any]) -> None:
    """The last of what a process does at its end; but for taking Python to pieces, which is five
    times the work of a small command."""
    if codes and isinstance(codes[0], int):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
