"""The attacks on the proxy, from a sandbox that has one."""

from __future__ import annotations

from ring0.tools.sandbox.selftest.attack import Attack, Proof


def _proxy(name: str, tries: str, program: str) -> Attack:
    return Attack(
        name=name, family="proxy", tries=tries, program=program, proof=Proof.CANARY, egress=True
    )


PROXY = (
    _proxy("proxy-other-host", "a host that no rule names", "other_hosts"),
    _proxy("proxy-private", "a host whose address is not global", "private_addresses"),
    _proxy("proxy-literals", "127.0.0.1 in other letters", "odd_literals"),
    _proxy("proxy-rebinding", "a name that changes its address", "rebinding"),
    _proxy("proxy-nul", "a NUL in the host's name", "nul_in_host"),
    _proxy("proxy-user", "a host where a user's name belongs", "user_in_url"),
    _proxy("proxy-host", "another Host than the URL's", "host_field"),
    _proxy("proxy-sni", "another name in TLS than CONNECT's (fronting)", "fronting"),
    _proxy("proxy-host-in-tls", "another Host inside TLS", "host_in_tls"),
    _proxy("proxy-relay", "a CONNECT within a CONNECT", "relayed_connect"),
    _proxy("proxy-tunnel", "a tunnel to where no rule leads", "opaque_tunnel"),
    _proxy("proxy-plain", "without TLS, where a rule says https", "plain_http"),
    _proxy("proxy-method", "POST, where a rule says GET", "method"),
    _proxy("proxy-override", "the same by X-HTTP-Method-Override", "method_override"),
    _proxy("proxy-path", "out of the allowed path by dots and escapes", "path"),
    _proxy("proxy-smuggling", "a second request hidden in the first", "smuggling"),
    _proxy("proxy-own-key", "the attacker's key on an allowed host", "own_key"),
    _proxy("proxy-echo", "a credential that a host says back, also encoded", "echo"),
    _proxy("proxy-redirect", "a redirect to an internal host", "redirect"),
    _proxy("proxy-upgrade", "another protocol after the first request", "upgrade"),
    _proxy("proxy-dns", "data in a name that is looked up", "name_as_message"),
)
