"""Tries to reach somebody: the host, its network, another sandbox."""

# An attack: what a linter warns of is meant.
# ruff: noqa: S104

from __future__ import annotations

import socket

from ring0.tools.sandbox.selftest.programs.inside import Missing, Target, ask


def tcp(target: Target) -> str:
    """A service of the host's. `given` names its address."""
    host, port = target[target["given"]] or _no_address(target["given"])
    connection = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    connection.settimeout(3)
    connection.connect((host, port))
    return ask(connection)


def _no_address(name: str) -> tuple[str, int]:
    raise Missing(f"this machine has no {name} address")


def udp(target: Target) -> str:
    """A datagram, as a name is asked for."""
    host, port = target[target["given"]] or _no_address(target["given"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as question:
        question.settimeout(1.5)
        question.connect((host, port))
        question.send(
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04evil\x00\x00\x01\x00\x01"
        )
        try:
            return question.recv(4096).decode("utf-8", "replace")
        except TimeoutError:
            return ""


def abstract(target: Target) -> str:
    """A Unix socket without a file: only the network namespace keeps it."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(3)
    connection.connect("\0" + target["abstract"])
    return ask(connection)


def family(target: Target) -> str:
    """A socket of a kind that reaches past the network namespace, or deep into Linux."""
    socket.socket(*target["given"]).close()
    return "a socket"


def interfaces(target: Target) -> str:
    """Any way out other than the loopback."""
    return " ".join(name for _, name in socket.if_nameindex() if name != "lo")


def inbound(target: Target) -> str:
    """Waits for somebody from outside."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", target["free_port"]))
        listener.listen()
        listener.settimeout(1.2)
        try:
            _, address = listener.accept()
        except TimeoutError:
            return ""
        return f"{address[0]} came in"
