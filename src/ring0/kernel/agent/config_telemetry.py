"""[otlp] and [metrics] of ring0.toml: who is told of runs, and in what words."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Final, Literal

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid, Ring0Error
from ring0.kernel.agent.config_notify import SECRET
from ring0.tools.egress.hosts import is_loopback
from ring0.tools.egress.request import split_url
from ring0.tools.egress.rules import Rule
from ring0.tools.egress.targets import canonical_target
from ring0.types import Frozen

_HEADER: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
_NEEDS: Final = {"http": ("opentelemetry.proto",), "grpc": ("opentelemetry.proto", "grpclib")}


class OtlpTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[otlp]: where spans of runs are sent."""

    endpoint: str
    """The whole address: `https://otel.example.com/v1/traces`; for gRPC without a path."""
    protocol: Literal["http", "grpc"] = "http"
    headers: dict[str, str] = {}
    """A value may end with `secret://NAME`: `"Bearer secret://OTLP_TOKEN"`."""
    content: bool = False
    """With what people and models wrote, where it is public; else names, rules and numbers only."""
    service: str = "ring0"
    """What this ring0 is called there."""
    attributes: dict[str, str] = {}
    """Others of its resource."""


class MetricsTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[metrics]: where Prometheus asks, beside the operators' socket."""

    listen: str
    """`127.0.0.1:9464`: an address of this machine alone."""
    token: str
    """The name of the secret that whoever asks shows: `Authorization: Bearer …`."""


class Target(Frozen, frozen=True, kw_only=True):
    """The place of `[otlp]`, ready to be sent to."""

    name: str
    """As it is on record and shown: without its query and headers."""
    rule: Rule
    target: str
    headers: dict[str, str]
    """With secrets: shown nowhere."""
    table: OtlpTable

    def __repr__(self) -> str:
        return f"Target({self.name})"


def secrets_of(otlp: OtlpTable | None, metrics: MetricsTable | None) -> list[str]:
    """Names of the secrets that they name: kept in like every other."""
    found = [] if metrics is None else [metrics.token]
    for value in () if otlp is None else otlp.headers.values():
        _, there, name = value.partition(SECRET)
        found += [name] if there else []
    return found


def target(table: OtlpTable, secret: Callable[[str], str]) -> Target:
    """Raises ManifestInvalid."""
    _check_is_installed(table.protocol)
    try:
        scheme, host, port, rest = split_url(table.endpoint)
        path, query = canonical_target(rest)
    except Ring0Error as error:
        raise ManifestInvalid(
            "ring0.toml: [otlp] endpoint is none.",
            why=f"{error}"[:300],
            todo="Write it like https://otel.example.com/v1/traces.",
        ) from None
    if scheme != "https" and not is_loopback(host):
        raise ManifestInvalid(
            f"ring0.toml: [otlp] endpoint: {host} is no https.",
            why="What is told names agents, tools and rules: everybody on the way could read it.",
            todo="Use https; plain http only to 127.0.0.1.",
        )
    if table.protocol == "grpc" and (path != "/" or query):
        raise ManifestInvalid(
            "ring0.toml: [otlp] endpoint has a path, and gRPC has none.",
            todo=f'Write {scheme}://{host}:{port}, or protocol = "http".',
        )
    rule = Rule(
        text=f"POST to {host} as [otlp] says",
        methods=("POST",),
        scheme=scheme,
        host=host,
        port=port,
        path=path,
        beneath=False,
        own_auth=True,  # Its headers go through as they are.
    )
    name = f"{scheme}://{host}:{port}{'' if path == '/' else path} ({table.protocol})"
    return Target(
        name=name, rule=rule, target=rest or "/", headers=_headers(table, secret), table=table
    )


def listening_at(table: MetricsTable) -> tuple[str, int]:
    """Raises ManifestInvalid."""
    host, _, port = table.listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port) if port.isascii() and port.isdigit() else -1
    except ValueError:
        number = -1
    if not 0 < number < 65_536 or not address.is_loopback:
        raise ManifestInvalid(
            f"ring0.toml: [metrics] listen = {table.listen[:60]!r} is no address of this machine"
            " alone.",
            why="What is asked there is not encrypted, and so is the token that is shown.",
            todo='Write it like "127.0.0.1:9464"; a reverse proxy with TLS may stand before it.',
        )
    return str(address), number


def check(
    otlp: OtlpTable | None, metrics: MetricsTable | None, secret: Callable[[str], str]
) -> None:
    """Raises ManifestInvalid."""
    if otlp is not None:
        target(otlp, secret)
    if metrics is None:
        return
    listening_at(metrics)
    if len(secret(metrics.token)) < limits.METRICS_TOKEN_CHARS_MIN:
        raise ManifestInvalid(
            f"ring0.toml: [metrics] token names {metrics.token[:60]!r}, which is no secret of"
            f" {limits.METRICS_TOKEN_CHARS_MIN} letters or more.",
            why="Every process of this machine can ask there.",
            todo=f"`ring0 secret set {metrics.token[:60] or 'METRICS_TOKEN'}`.",
        )


def _check_is_installed(protocol: str) -> None:
    for module in _NEEDS[protocol]:
        try:
            found = find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ManifestInvalid(
                f"ring0.toml: [otlp] needs {module}, which is not installed.",
                todo="Install its extra `otel`"
                " (in a checkout: `.venv/bin/pip install -e '.[otel]'`), or take [otlp] out.",
            )


def _headers(table: OtlpTable, secret: Callable[[str], str]) -> dict[str, str]:
    if len(table.headers) > limits.OTLP_HEADERS_MAX:
        raise ManifestInvalid(
            f"ring0.toml: [otlp] has more than {limits.OTLP_HEADERS_MAX} headers.",
            todo="Take some out.",
        )
    found = {}
    for key, value in table.headers.items():
        before, is_secret, name = value.partition(SECRET)
        kept = secret(name) if is_secret else ""
        whole = before + kept
        if not _HEADER.fullmatch(key) or not whole.isascii() or not whole.isprintable():
            raise ManifestInvalid(
                f"ring0.toml: [otlp] headers has {key[:60]!r}, which is no header.",
                why="Its name has small letters, digits and `-`, its value nothing but ASCII.",
                todo='Write it like {"authorization" = "Bearer secret://OTLP_TOKEN"}.',
            )
        if is_secret and not kept:
            raise ManifestInvalid(
                f"ring0.toml: [otlp] names the secret {name[:60]!r}, which is not there.",
                todo=f"`ring0 secret set {name[:60] or 'NAME'}`, or take it out.",
            )
        found[key] = whole
    return found
