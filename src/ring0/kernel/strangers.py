"""Fetches from login servers that an MCP server named: by the egress's rules, since nobody of ours
chose the address.

Addresses that are private or of this machine are refused, unless `[network] allow_private` names
them; one connection a request, no redirects, bounded in size and time.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ring0 import limits
from ring0.errors import CallInvalid, EffectUnknown, LoginFailed, ToolFailed
from ring0.identity.fetching import trusting
from ring0.identity.oauth_answers import Fetched, told
from ring0.runtime import Runtime
from ring0.tools.egress import Addresses, Egress, Rule, canonical, split_url

if TYPE_CHECKING:
    from ring0.kernel.agent.manifests import NetworkTable


class Strangers:
    """A `Fetch` of identity/discovery.py."""

    def __init__(self, network: NetworkTable, runtime: Runtime) -> None:
        self._network = network
        self._runtime = runtime

    @functools.cached_property
    def _egress(self) -> Egress:
        """Made when it is first needed: the system's roots take a while to load."""
        addresses = Addresses(self._runtime, allow_private=self._network.allow_private)
        return Egress(self._runtime, addresses, trust=trusting(self._network.authorities))

    async def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Fetched:
        """Raises OSError in words of ours, CallDenied for an address that is not for egress,
        LoginFailed for what is none."""
        # What it says of who asks is ours to say: there is no other credential here.
        try:
            request = canonical(method, *split_url(url), headers.items(), body, own_auth=True)
        except CallInvalid as error:
            raise LoginFailed(
                f"{told(url)} is nowhere that one logs in.",
                why=error.why,
                todo="Ask whoever runs the MCP server.",
                error="bad_discovery",
            ) from None
        rule = Rule(
            text=f"{method} {request.origin}{request.path} own_auth",
            methods=(method,),
            scheme=request.scheme,
            host=request.host,
            port=request.port,
            path=request.path,
            beneath=False,
            own_auth=True,
        )
        try:
            answer = await self._runtime.wait_for(
                self._egress.send(request, rule), limits.OAUTH_ANSWER_S_MAX
            )
        except TimeoutError:
            raise TimeoutError(f"no answer in {limits.OAUTH_ANSWER_S_MAX} s") from None
        except (ToolFailed, EffectUnknown) as error:
            raise ConnectionError(error.why.rstrip(".") or "no connection") from None
        if len(answer.body) > limits.OAUTH_ANSWER_SIZE_BYTES_MAX:
            raise ConnectionError(
                f"it answers with more than {limits.OAUTH_ANSWER_SIZE_BYTES_MAX:,} bytes"
            )
        named = dict(reversed(answer.headers))
        return Fetched(answer.status, named, answer.body)
