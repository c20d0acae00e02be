"""Fetches from a login server: one connection a request, no redirects, bounded in size and time.

Nothing of the environment goes along: no proxies, no cookies, no .netrc.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping

import aiohttp

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.identity.oauth_answers import Fetched
from ring0.runtime import Runtime


class Fetcher:
    """A `Fetch` of `oauth.py`, over the network."""

    def __init__(self, runtime: Runtime, authorities: Iterable[str] = ()) -> None:
        """`authorities`: files (PEM) that are trusted beside the system's roots."""
        self._runtime = runtime
        self._authorities = tuple(authorities)
        self._trust: ssl.SSLContext | None = None

    async def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Fetched:
        """Raises OSError (TimeoutError is one) in words of ours, ManifestInvalid."""
        if self._trust is None:  # When it is first needed: the system's roots take a while.
            self._trust = await self._runtime.in_thread(trusting, self._authorities)
        try:
            return await self._runtime.wait_for(
                self._exchange(method, url, headers, body, self._trust), limits.OAUTH_ANSWER_S_MAX
            )
        except TimeoutError:
            raise TimeoutError(f"no answer in {limits.OAUTH_ANSWER_S_MAX} s") from None
        except aiohttp.ClientConnectorCertificateError:
            raise ConnectionError("its certificate is not good") from None
        except aiohttp.ClientConnectorError as error:
            raise ConnectionError(error.os_error.strerror or "no connection") from None
        except aiohttp.ClientError as error:  # Its words could quote a header.
            raise ConnectionError(f"the connection failed ({type(error).__name__})") from None

    async def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        trust: ssl.SSLContext,
    ) -> Fetched:
        connector = aiohttp.TCPConnector(ssl=trust, force_close=True)
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.request(
                method,
                url,
                headers={**headers, "Accept-Encoding": "identity"},
                data=body or None,
                allow_redirects=False,
            ) as answer,
        ):
            found = bytearray()
            async for piece in answer.content.iter_chunked(64 * limits.KIB):
                found += piece
                if len(found) > limits.OAUTH_ANSWER_SIZE_BYTES_MAX:
                    raise ConnectionError(
                        f"it answers with more than {limits.OAUTH_ANSWER_SIZE_BYTES_MAX:,} bytes"
                    )
            return Fetched(
                answer.status,
                {name.lower(): value for name, value in answer.headers.items()},
                bytes(found),
            )


def trusting(authorities: Iterable[str]) -> ssl.SSLContext:
    """The system's roots, and those of these files (PEM). Takes a while. Raises ManifestInvalid."""
    trust = ssl.create_default_context()
    trust.minimum_version = max(trust.minimum_version, ssl.TLSVersion.TLSv1_2)
    for path in authorities:
        try:
            trust.load_verify_locations(path)
        except OSError as error:  # ssl.SSLError is one
            raise ManifestInvalid(
                f"ring0.toml: [network] authorities names {path[:200]!r}, which can't be read.",
                why=str(error)[:200],
                todo="Name files with certificates in PEM.",
            ) from None
    return trust
