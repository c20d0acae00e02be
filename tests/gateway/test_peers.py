"""Who is at the other end of a run's unix socket: looked at, though the listener names the run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from gateway_world import NOW, doors

from ring0.gateway import peers
from ring0.gateway.door import Door


def accepted(path: Path, program: str) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A connection that another process has made."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    code = f"import socket, sys; s = socket.socket(1); s.connect({str(path)!r}); {program}"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    connection, _ = listener.accept()
    listener.close()
    return connection, process


def test_a_process_is_of_the_namespace_that_it_lives_in_and_of_no_other(tmp_path: Path) -> None:
    connection, process = accepted(tmp_path / "s", "sys.stdin.read()")
    with connection:
        own = peers.namespace_of(os.getpid())
        assert own.startswith("pid:[") and peers.uid_of(connection) == os.getuid()
        assert peers.is_of_namespace(connection, own)
        assert not peers.is_of_namespace(connection, "pid:[1]")
        process.communicate()


def test_a_process_that_has_ended_is_of_none(tmp_path: Path) -> None:
    connection, process = accepted(tmp_path / "s", "pass")
    with connection:
        process.communicate()
        assert not peers.is_of_namespace(connection, peers.namespace_of(os.getpid()))


async def test_a_door_answers_nobody_who_lives_elsewhere(tmp_path: Path) -> None:
    async with doors(tmp_path) as d:
        assert (await d.ask("/v1/call", NOW)).status == 200
        assert isinstance(d.door, Door)
        d.door._namespace = "pid:[1]"
        with pytest.raises((EOFError, ConnectionError)):
            await d.ask("/v1/call", {**NOW, "counter": 2})
        d.door._namespace = peers.namespace_of(os.getpid())
        assert (await d.ask("/v1/call", {**NOW, "counter": 3})).status == 200
