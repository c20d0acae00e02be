"""From a server's address to the kernel's egress: one rule for that very address, the operator's
credentials for it, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ring0.runtime import Runtime
from ring0.tools.egress import Kept, canonical, choose, parse_rules, split_url
from ring0.tools.mcp.settings import Settings
from ring0.tools.reach import Outside

if TYPE_CHECKING:
    from ring0.tools.mcp.http import HttpAnswer, Send

_WANTS: Final = (401, 403)
"""Answers by which a server may want another token."""


def sender(outside: Outside, instance: str, said: Settings, runtime: Runtime) -> Send:
    """What sends the requests of one server's client. Raises ManifestInvalid."""
    place = f"[tools.{instance}]"
    parts = urlsplit(said.url)
    address = f"{parts.scheme}://{parts.netloc}{parts.path or '/'}"
    # `own_auth`: the headers are this client's and no agent's; one of them names the session.
    rules = parse_rules([f"GET,POST,DELETE {address} own_auth"], f"{place} url")
    credentials = outside.of(said.secrets, place)
    kept = Kept(runtime)

    async def send(
        method: str, url: str, headers: dict[str, str], body: bytes, /, *,
        by: Any = None, hear: Callable[[bytes], bool] | None = None,
    ) -> HttpAnswer:  # fmt: skip
        from ring0.tools.mcp.http import HttpAnswer  # Slow to import: only where one is asked.

        request = canonical(
            method, *split_url(url), headers=headers.items(), body=body, own_auth=True
        )
        rule = rules.rules[0]
        credential = choose(credentials, request)
        answer = await outside.egress.send(request, rule, credential, keeper=kept, by=by, hear=hear)
        if answer.status == 401 and credential is not None and credential.refused is not None:
            # A login's token may be over before its time: it is renewed, and tried once more.
            # Nothing was done yet.
            answer = await outside.egress.send(
                request, rule, credential, keeper=kept, by=by, hear=hear
            )
        named = {name.lower(): value for name, value in reversed(answer.headers)}
        if answer.status in _WANTS and method != "DELETE":
            challenge = named.get("www-authenticate", "")
            wanted = outside.refusal(instance, answer.status, challenge, credential)
            if wanted is not None:
                raise wanted
        return HttpAnswer(status=answer.status, headers=named, body=answer.body)

    return send
