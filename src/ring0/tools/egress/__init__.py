"""The way out of a sandbox: a proxy inward (`serve`), a sender outward (`Egress`), rules between.

Each request that comes out of a sandbox becomes one canonical `EgressRequest`; the gate judges it;
`Egress.send` carries it out with a credential that only this folder ever sees. See proxy.py first.
"""

from ring0.tools.egress.address import Addresses
from ring0.tools.egress.authority import Authority, proxy_environment
from ring0.tools.egress.credential import Credential, Source, bind, check_value, choose
from ring0.tools.egress.kept import Keeper, Kept
from ring0.tools.egress.proxy import Ask, Proxy, serve
from ring0.tools.egress.request import (
    EgressAnswer,
    EgressRequest,
    answer_from,
    canonical,
    from_args,
    split_url,
)
from ring0.tools.egress.rules import Rule, Rules, parse_rule, parse_rules
from ring0.tools.egress.send import Egress

__all__ = [
    "Addresses",
    "Ask",
    "Authority",
    "Credential",
    "Egress",
    "EgressAnswer",
    "EgressRequest",
    "Keeper",
    "Kept",
    "Proxy",
    "Rule",
    "Rules",
    "Source",
    "answer_from",
    "bind",
    "canonical",
    "check_value",
    "choose",
    "from_args",
    "parse_rule",
    "parse_rules",
    "proxy_environment",
    "serve",
    "split_url",
]
