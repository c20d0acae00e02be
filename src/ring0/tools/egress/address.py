"""Addresses that may be dialled: resolved once, every answer judged, and dialled as they were
judged. Python's `is_global` is not trusted alone: it calls several of the ranges below global.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final, TypeAlias

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.runtime import Runtime
from ring0.tools.egress.hosts import is_address
from ring0.tools.egress.refusals import failed, forbidden

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
LookUp: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to addresses as text."""

NEVER: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "169.254.169.254/32",  # metadata of most clouds
        "169.254.170.0/24",  # credentials of containers
        "168.63.129.16/32",
        "100.100.100.200/32",
        "192.0.0.192/32",
        "fd00:ec2::/32",
        "fd20:ce::254/128",
        "fd00:42::42/128",
        "0.0.0.0/8",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/128",
        "ff00::/8",
    )
)
"""Refused whatever an operator allows."""

NOT_GLOBAL: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
        "::/8",  # loopback, v4-mapped, v4-compatible
        "64:ff9b::/96",  # NAT64: any IPv4 address, private ones too
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",  # Teredo and other protocols
        "2001:db8::/32",
        "2002::/16",  # 6to4: any IPv4 address
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
    )
)
_GLOBAL_V6: Final = ip_network("2000::/3")
"""All that was ever given out."""


class Addresses:
    """Resolves and judges. `allow_private`: networks that an operator names in so many words."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        allow_private: Iterable[str] = (),
        own: Iterable[tuple[str, int]] = (),
        look_up: LookUp | None = None,
    ) -> None:
        """`own`: addresses and ports of ring0 itself, refused always. Raises InvalidInput."""
        self._runtime = runtime
        self._private = tuple(_network(text) for text in allow_private)
        self._own = frozenset((ip_address(address), port) for address, port in own)
        self._look_up = look_up or self._ask_the_system
        self._free = asyncio.Semaphore(limits.EGRESS_DNS_AT_ONCE_MAX)

    async def find(self, host: str, port: int) -> list[str]:
        """The addresses of a canonical host, each of them judged good; in the order to dial them.

        One bad answer refuses all: a name that points here and there is an attack. Raises
        CallDenied for an address that is not for egress, ToolFailed where the name has none.
        """
        answers = [host] if is_address(host) else await self._resolve(host, port)
        if not answers:
            raise failed(f"{host} has no address.", why="The name does not resolve.")
        if len(answers) > limits.EGRESS_ADDRESSES_MAX:
            raise forbidden(f"{host} has more addresses than are looked at.")
        found = []
        for answer in dict.fromkeys(answers):
            if why := self.refuses(answer, port):
                raise forbidden(
                    f"{host} is not let out to.",
                    why=f"It resolves to an address that is {why}.",
                    todo="Ask for a public host. A private network has to be named by the operator"
                    " in `allow_private`.",
                )
            found.append(answer)
        return found

    def refuses(self, text: str, port: int) -> str:
        """Why this address is not for egress; empty: it is."""
        try:
            address = ip_address(text)
        except ValueError:
            return "not readable"
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return "bound to an interface"
        if (address, port) in self._own:
            return "ring0's own"
        if _in(address, NEVER):
            return "never let out to (metadata, multicast or none at all)"
        if _in(address, self._private):
            return ""
        if not is_global(address):
            return "not global (private, local, reserved or translated)"
        return "this machine's own" if is_own(address) else ""

    async def _resolve(self, host: str, port: int) -> list[str]:
        """Bounded in time, and in how many threads can hang."""

        async def within_bounds() -> list[str]:
            async with self._free:
                return await self._look_up(host, port)

        looking = self._runtime.start(within_bounds(), name=f"egress look-up of {host}")
        # A thread can't be stopped: its place stays taken until it ends by itself.
        looking.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await self._runtime.wait_for(asyncio.shield(looking), limits.EGRESS_DNS_S_MAX)
        except TimeoutError:
            raise failed(
                f"{host} could not be looked up.",
                why=f"No answer within {limits.EGRESS_DNS_S_MAX} s.",
            ) from None
        except (OSError, UnicodeError):
            raise failed(f"{host} has no address.", why="The name does not resolve.") from None

    async def _ask_the_system(self, host: str, port: int) -> list[str]:
        return await self._runtime.in_thread(_addresses, host, port)


def _addresses(host: str, port: int) -> list[str]:
    """What the system's resolver says. With a dot at its end, no search domain is tried first; a
    name of one label is this machine's own matter, and asked as it is."""
    try:
        asked = host + "." if "." in host else host
        infos = socket.getaddrinfo(asked, port, 0, socket.SOCK_STREAM)
    except socket.gaierror:
        infos = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)  # As in /etc/hosts.
    return [str(info[4][0]) for info in infos]


def is_global(address: Address) -> bool:
    """Reachable from everywhere, and standing for nothing else."""
    if _in(address, NOT_GLOBAL) or _in(address, NEVER):
        return False
    if isinstance(address, IPv6Address) and address not in _GLOBAL_V6:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def is_own(address: Address) -> bool:
    """An address of this very machine: a packet to it would come from it. Nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
        except OSError:
            return False  # No way there at all.
        return bool(ip_address(probe.getsockname()[0]) == address)


def _in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise InvalidInput(
            f"allow_private names {text[:60]!r}, which is no network.",
            why=f"{error}.",
            todo='Write it like "10.1.0.0/16".',
        ) from None
