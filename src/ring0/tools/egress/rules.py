"""What a tool may reach: its `egress` list. What no rule allows does not go out.

api.example.com                               GET and HEAD over https
https://api.example.com/v1/*                  the same, beneath one path
POST,PATCH https://api.example.com/v1/items   these methods, that very path
GET https://*.example.com                     `*` stands for one or more whole labels
POST https://login.example.com/* own_auth     the program's own credentials go through
https://mail.example.com:993 tunnel           not looked into, never with a credential
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NoReturn

from ring0 import limits
from ring0.errors import CallInvalid, ManifestInvalid
from ring0.tools.egress.hosts import (
    canonical_host,
    is_address,
    is_beneath,
    is_model_host,
    split_authority,
)
from ring0.tools.egress.request import CONNECT, METHODS, EgressRequest
from ring0.tools.egress.targets import canonical_path
from ring0.types import Frozen

_RULE: Final = re.compile(
    r"(?:(?P<methods>[A-Z]+(?:,[A-Z]+)*) )?"
    r"(?:(?P<scheme>https?)://)?(?P<authority>[^/?#@\s]+)(?P<path>/[^?#\s]*)?"
    r"(?P<words>(?: (?:own_auth|tunnel))*)"
)
_READING: Final = ("GET", "HEAD")


class Rule(Frozen, frozen=True, kw_only=True):
    """One line of an `egress` list."""

    text: str
    """As it was written."""
    methods: tuple[str, ...]
    scheme: str
    host: str
    """Without the `*.` of a wildcard."""
    wildcard: bool = False
    port: int
    path: str = "/"
    beneath: bool = True
    """Everything beneath `path`; False: that very path."""
    own_auth: bool = False
    """The program's own credentials go through."""
    tunnel: bool = False
    """TLS is not ended here: what is said inside is not seen."""

    def reaches(self, scheme: str, host: str, port: int) -> bool:
        """This place is the rule's, whatever is asked of it."""
        if (scheme, port) != (self.scheme, self.port) or is_model_host(host):
            return False
        if self.wildcard:
            return host != self.host and is_beneath(host, self.host)
        return host == self.host

    def allows(self, request: EgressRequest) -> bool:
        """This very request is the rule's."""
        if not self.reaches(request.scheme, request.host, request.port):
            return False
        if self.tunnel or request.method == CONNECT:
            return self.tunnel and request.method == CONNECT
        return request.method in self.methods and self.covers(request.path)

    def covers(self, path: str) -> bool:
        """A canonical path is the rule's."""
        if not self.beneath:
            return path == self.path
        return path.startswith(self.path)


class Rules:
    """An `egress` list, read. No rules: nothing goes out."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)

    def allows(self, request: EgressRequest) -> Rule | None:
        """The rule that allows this request: one with `own_auth` first, since it says more."""
        found = [rule for rule in self.rules if rule.allows(request)]
        return max(found, key=lambda rule: rule.own_auth, default=None)

    def reaches(self, scheme: str, host: str, port: int) -> bool:
        """Some request to this place could be allowed."""
        return any(r.reaches(scheme, host, port) and not r.tunnel for r in self.rules)

    def own_auth(self, scheme: str, host: str, port: int, method: str, path: str) -> bool:
        """A request of this form keeps its own credentials."""
        probe = EgressRequest(method=method, scheme=scheme, host=host, port=port, path=path)
        rule = self.allows(probe)
        return rule is not None and rule.own_auth

    def tunnels(self, host: str, port: int) -> Rule | None:
        """The rule that lets an opaque tunnel through to this place."""
        return next((r for r in self.rules if r.tunnel and r.reaches("https", host, port)), None)


def parse_rules(texts: Sequence[str], place: str) -> Rules:
    """An `egress` list. `place`: where it stands. Raises ManifestInvalid with that place."""
    if len(texts) > limits.EGRESS_RULES_MAX:
        _bad(place, "", f"it has more than {limits.EGRESS_RULES_MAX} rules")
    return Rules(parse_rule(text, f"{place}[{at}]") for at, text in enumerate(texts))


def parse_rule(text: str, place: str) -> Rule:
    """One rule. Raises ManifestInvalid with its place."""
    if not isinstance(text, str) or len(text) > limits.EGRESS_RULE_CHARS_MAX:
        _bad(place, str(text), "it is not a line of text")
    found = _RULE.fullmatch(text)
    if found is None:
        _bad(place, text, "it is not of the form `[METHOD[,METHOD] ]https://host[:port][/path/*]`")
    try:
        return _rule(text, place, found)
    except CallInvalid as error:
        _bad(place, text, error.why)


def _rule(text: str, place: str, found: re.Match[str]) -> Rule:
    scheme = found["scheme"] or "https"
    words = found["words"].split()
    tunnel = "tunnel" in words
    if len(set(words)) != len(words) or (tunnel and len(words) > 1):
        _bad(place, text, "its words do not go together")
    if tunnel and (found["methods"] or found["path"] or scheme != "https"):
        _bad(place, text, "a tunnel is not looked into: no method, path or http can be asked of it")
    methods = _methods(found["methods"], text, place)
    authority = found["authority"]
    wildcard = authority.startswith("*.")
    host, port = split_authority(authority.removeprefix("*."), scheme)
    _check_host(host, wildcard, text, place)
    path, beneath = _path(found["path"], text, place)
    return Rule(
        text=text,
        methods=(CONNECT,) if tunnel else methods,
        scheme=scheme,
        host=host,
        wildcard=wildcard,
        port=port,
        path=path,
        beneath=beneath,
        own_auth="own_auth" in words,
        tunnel=tunnel,
    )


def _methods(named: str | None, text: str, place: str) -> tuple[str, ...]:
    if named is None:
        return _READING
    methods = tuple(named.split(","))
    for method in methods:
        if method not in METHODS:
            _bad(place, text, f"{method} is none of {', '.join(METHODS)}")
    if len(set(methods)) != len(methods):
        _bad(place, text, "a method stands twice")
    return methods


def _check_host(host: str, wildcard: bool, text: str, place: str) -> None:
    if is_model_host(host):
        _bad(place, text, "a model is asked at the model door, never through `egress`")
    if wildcard and (is_address(host) or "." not in host):
        _bad(place, text, "`*.` stands before a domain of two labels or more")
    assert canonical_host(host) == host


def _path(given: str | None, text: str, place: str) -> tuple[str, bool]:
    """The path without its `*`, and whether all beneath it is meant."""
    if given is None:
        return "/", True
    beneath = given.endswith("/*")
    path = given[:-1] if beneath else given
    if "*" in path:
        _bad(place, text, "`*` in a path stands at its end, after a `/`")
    return canonical_path(path), beneath


def _bad(place: str, text: str, why: str) -> NoReturn:
    raise ManifestInvalid(
        f"{place}: {text[:200]!r} is no egress rule.",
        why=f"As {why[:1].lower()}{why[1:].rstrip('.')}.",
        todo="Write it like `api.example.com` or `GET,POST https://api.example.com/v1/*`.",
    )
