"""The built-in tool `http`: requests to the hosts that its `egress` names, and to no other.

`NAME.get` reads; `NAME.request` does the rest. The call itself is what policy judges, with the
canonical URL; credentials are the kernel's, and the operator binds them to operations.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.runtime import Runtime
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.tools.egress.credential import Credential, choose
from ring0.tools.egress.headers import TOKEN, is_secret
from ring0.tools.egress.kept import Kept
from ring0.tools.egress.request import (
    METHODS,
    SAFE_METHODS,
    EgressAnswer,
    EgressRequest,
    canonical,
    from_args,
    split_url,
)
from ring0.tools.egress.rules import Rules, parse_rules
from ring0.tools.egress.send import Egress
from ring0.types import Effect, Integrity, Label, ToolManifest

_URL: Final = {"type": "string", "description": "https://host/path?query"}
_HEADERS: Final = {"type": "object", "additionalProperties": {"type": "string"}}


class Beyond(Protocol):
    """What the kernel has beyond itself: the sender, and the operator's credentials."""

    @property
    def egress(self) -> Egress: ...

    def of(self, names: tuple[str, ...], place: str) -> list[Credential]:
        """The credentials of these names. Raises ManifestInvalid."""
        ...


class HttpConfig(msgspec.Struct, forbid_unknown_fields=True):
    """`[tools.NAME]` with `use = "http"`."""

    use: str
    egress: list[str]
    secrets: list[str] = msgspec.field(default_factory=list)
    """Names of credentials that the operator has bound to operations in ring0.toml."""
    idempotency_header: str = ""
    """Set where the hosts promise to carry out a request once for each value of this header: the
    kernel sends the call's own key in it, and the call is `idempotent`."""


class _Web:
    """What both operations share: rules, credentials, what is kept for each run."""

    def __init__(self, instance: str, config: HttpConfig, beyond: Beyond, runtime: Runtime) -> None:
        self.rules: Rules = parse_rules(config.egress, f"[tools.{instance}] egress")
        self.config = config
        self._beyond = beyond
        self._credentials = beyond.of(tuple(config.secrets), f"[tools.{instance}] secrets")
        self._runtime = runtime
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def prepare(self, request: EgressRequest, effect: Effect) -> Prepared:
        """What the call would do. Nothing is resolved before policy has seen it."""
        rule = self.rules.allows(request)
        credential = choose(self._credentials, request)
        lines = [f"{request.method} {request.url}: {len(request.body)} bytes"]
        if credential is not None:
            lines.append(f"with the credential {credential.name}")
        no = f"no rule of its `egress` allows {request.method} {request.url[:200]}"
        return Prepared(
            driver_bytes=msgspec.json.encode(request.args(), order="sorted"),
            mutates=request.method not in SAFE_METHODS,
            own=False,
            forbidden="" if rule is not None else no,
            lines=tuple(lines),
            host=request.host,
            method=request.method,
            effect=effect,
            state=request,
        )

    async def execute(self, request: EgressRequest, context: CallContext) -> Result:
        rule = self.rules.allows(request)
        assert rule is not None, "a request without a rule is forbidden, and never gets here"
        answer = await self._beyond.egress.send(
            request,
            rule,
            choose(self._credentials, request),
            keeper=self._keeper(context.run.id),
            repeatable=self.config.idempotency_header in request.headers,
            by=context,
        )
        source = f"{request.scheme}://{request.authority}{request.path[:200]}"
        return Result(
            value=_value(answer), label=Label(integrity=Integrity.UNTRUSTED, sources=(source,))
        )

    def own_auth(self, method: str, url: str) -> bool:
        scheme, host, port, target = split_url(url)
        probe = canonical(method, scheme, host, port, target)
        rule = self.rules.allows(probe)
        return rule is not None and rule.own_auth

    def _keeper(self, run: str) -> Kept:
        """Cookies and tokens of one run; no other run gets at them."""
        kept = self._kept.pop(run, None) or Kept(self._runtime)
        self._kept[run] = kept
        while len(self._kept) > limits.EGRESS_KEEPERS_MAX:
            self._kept.popitem(last=False)
        return kept


class HttpGet:
    """`NAME.get`: the answer to a GET."""

    def __init__(self, instance: str, web: _Web) -> None:
        self.manifest = _manifest(
            f"{instance}.get",
            "Fetch a URL with GET.",
            Effect.IDEMPOTENT,
            web,
            {"url": _URL, "headers": _HEADERS},
            ["url"],
        )
        self._web = web

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        request = _request(self._web, {**args, "method": "GET"})
        return self._web.prepare(request, Effect.IDEMPOTENT)

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        return await self._web.execute(prepared.state, context)


class HttpRequest:
    """`NAME.request`: any method that a rule allows; `once`, unless the hosts promise better."""

    def __init__(self, instance: str, web: _Web) -> None:
        properties = {
            "method": {"enum": list(METHODS)},
            "url": _URL,
            "headers": _HEADERS,
            "body": {"type": "string"},
            "body_base64": {"type": "string"},
        }
        self.manifest = _manifest(
            f"{instance}.request",
            "Send an HTTP request.",
            Effect.ONCE,
            web,
            properties,
            ["method", "url"],
        )
        self._web = web

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        keyed = self._web.config.idempotency_header
        safe = args["method"] in SAFE_METHODS
        if keyed and not safe:
            key = hashlib.sha256(context.call.encode()).hexdigest()
            others = {n: v for n, v in args.get("headers", {}).items() if n.lower() != keyed}
            args = {**args, "headers": {**others, keyed: key}}
        effect = Effect.IDEMPOTENT if safe or keyed else Effect.ONCE
        return self._web.prepare(_request(self._web, args), effect)

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        return await self._web.execute(prepared.state, context)


def drivers(
    instance: str, config: Mapping[str, Any], beyond: Beyond | None, runtime: Runtime
) -> list[Any]:
    """The operations of one `http` instance. Raises ManifestInvalid."""
    if beyond is None:
        raise ManifestInvalid(
            f"[tools.{instance}] needs the network, and this kernel gives tools none.",
            todo="Run it with `ring0 run`; the embedded library has no egress.",
        )
    try:
        read = msgspec.convert(dict(config), HttpConfig)
    except msgspec.ValidationError as error:
        raise ManifestInvalid(
            f"[tools.{instance}]: {error}.",
            why="`http` takes `egress`, `secrets` and `idempotency_header`.",
            todo='Write it like `egress = ["GET https://api.example.com/v1/*"]`.',
        ) from None
    header = read.idempotency_header
    if header and (not TOKEN.fullmatch(header) or is_secret(header)):
        raise ManifestInvalid(
            f"[tools.{instance}]: idempotency_header names no header that goes out.",
            why="It is not spelled as one, or it is one for credentials.",
            todo='Write it like "Idempotency-Key".',
        )
    read.idempotency_header = header.lower()
    web = _Web(instance, read, beyond, runtime)
    return [HttpGet(instance, web), HttpRequest(instance, web)]


def _manifest(
    name: str,
    description: str,
    effect: Effect,
    web: _Web,
    properties: dict[str, Any],
    required: list[str],
) -> ToolManifest:
    return ToolManifest(
        name=name,
        description=description,
        effect=effect,
        schema={
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        },
        critical=("url",),
        recipients=("url",),
        content=tuple(name for name in ("headers", "body", "body_base64") if name in properties),
        egress=tuple(web.config.egress),
        secrets=tuple(web.config.secrets),
    )


def _request(web: _Web, args: dict[str, Any]) -> EgressRequest:
    return from_args(args, own_auth=web.own_auth(args["method"], args["url"]))


def _value(answer: EgressAnswer) -> dict[str, Any]:
    """The answer for an agent: cut where it is too long for one, and it says so."""
    headers: dict[str, str] = {}
    for name, value in answer.headers:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    result: dict[str, Any] = {"status": answer.status, "headers": headers}
    body = answer.body[: limits.EGRESS_TEXT_SIZE_BYTES_MAX]
    cut = len(answer.body) > len(body)
    try:
        # A cut may have gone through the middle of a character.
        result["text"] = body.decode("utf-8", "ignore" if cut and _is_text(body) else "strict")
    except UnicodeDecodeError:
        result["base64"] = base64.b64encode(body).decode()
    if cut:
        result["cut_from_size_bytes"] = len(answer.body)
    return result


def _is_text(body: bytes) -> bool:
    """All of it is UTF-8 but for a last character that was cut."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(body) - 3
    return True
