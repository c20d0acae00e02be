"""A certificate authority for one sandbox: lets the proxy end TLS for the hosts of its rules.

Made anew for each sandbox, constrained to those hosts, short-lived. Its key is never written
anywhere and never leaves the kernel's memory; the sandbox sees the certificate alone.
"""

from __future__ import annotations

import os
import ssl
from collections import OrderedDict
from typing import Final

from ring0 import limits
from ring0.runtime import Runtime
from ring0.tools.egress.rules import Rules

CERTIFICATE_VARIABLES: Final = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "CARGO_HTTP_CAINFO",
)


class Authority:
    """Ends TLS for hosts. Its `repr` shows no key."""

    def __init__(self, rules: Rules, runtime: Runtime) -> None:
        # Imported here: it is slow to load, and most of ring0 does without.
        from ring0.tools.egress.certificates import Signer

        hosts = [rule.host for rule in rules.rules if rule.scheme == "https" and not rule.tunnel]
        self._signer = Signer(hosts, runtime)
        self._contexts: OrderedDict[str, ssl.SSLContext] = OrderedDict()

    def __repr__(self) -> str:
        return "Authority()"

    @property
    def certificate_pem(self) -> bytes:
        """What the sandbox has to trust."""
        return self._signer.certificate_pem

    def context(self, host: str) -> ssl.SSLContext:
        """The server's side of TLS for one canonical host: HTTP/1.1 only, TLS 1.2 or newer."""
        if host in self._contexts:
            self._contexts.move_to_end(host)
            return self._contexts[host]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        context.num_tickets = 0
        _load(context, self._signer.leaf(host))
        self._contexts[host] = context
        while len(self._contexts) > limits.EGRESS_LEAVES_MAX:
            self._contexts.popitem(last=False)
        return context


def proxy_environment(certificate_path: str) -> dict[str, str]:
    """What a program in the sandbox needs to find its proxy and to trust it."""
    proxy = f"http://127.0.0.1:{limits.PROXY_PORT}"
    found = dict.fromkeys(CERTIFICATE_VARIABLES, certificate_path)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        found[name] = proxy
        found[name.upper()] = proxy
    found["no_proxy"] = found["NO_PROXY"] = "127.0.0.1,localhost,::1"
    found["NODE_USE_ENV_PROXY"] = "1"
    return found


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Python's ssl reads certificates from files only: this one has no name and no disk."""
    memory = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        os.write(memory, pem)
        context.load_cert_chain(f"/proc/self/fd/{memory}")
    finally:
        os.close(memory)
