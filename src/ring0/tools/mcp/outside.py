"""From a server's address to the kernel's egress: one rule for that very address, the operator's
credentials for it, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ring0.runtime import Runtime
from ring0.tools.egress import Kept, canonical, choose, parse_rules, split_url
from ring0.tools.mcp.settings import Settings
from ring0.tools.reach import Outside

if TYPE_CHECKING:
    from ring0.tools.mcp.http import HttpAnswer, Send


def sender(outside: Outside, instance: str, said: Settings, runtime: Runtime) -> Send:
    """What sends the requests of one server's client. Raises ManifestInvalid."""
    place = f"[tools.{instance}]"
    parts = urlsplit(said.url)
    address = f"{parts.scheme}://{parts.netloc}{parts.path or '/'}"
    # `own_auth`: the headers are this client's and no agent's; one of them names the session.
    rules = parse_rules([f"POST,DELETE {address} own_auth"], f"{place} url")
    credentials = outside.of(said.secrets, place)
    kept = Kept(runtime)

    async def send(method: str, url: str, headers: dict[str, str], body: bytes) -> HttpAnswer:
        from ring0.tools.mcp.http import HttpAnswer  # Slow to import: only where one is asked.

        request = canonical(
            method, *split_url(url), headers=headers.items(), body=body, own_auth=True
        )
        rule = rules.rules[0]
        credential = choose(credentials, request)
        answer = await outside.egress.send(request, rule, credential, keeper=kept)
        return HttpAnswer(
            status=answer.status,
            headers={name.lower(): value for name, value in reversed(answer.headers)},
            body=answer.body,
        )

    return send
