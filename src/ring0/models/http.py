"""Providers over HTTP, each in its dialect: OpenAI and whoever speaks like it, Anthropic, …

One request, one answer, whole or in pieces, bounded in size, time and retries. The key is put in on
each request, here and nowhere else, and is in no message, `repr` or exception.
"""

from __future__ import annotations

import email.utils
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from ring0 import errors, limits
from ring0.models.base import (
    Again,
    ModelAnswer,
    ModelRequest,
    Sink,
    SlowDown,
    is_loopback,
)
from ring0.models.dialects import Dialect
from ring0.models.names import NameMap, names_of
from ring0.models.redact import Redactor
from ring0.models.wire import error_text, one_line
from ring0.runtime import Runtime
from ring0.types import ModelConfig

RETRY_DELAY_S_FIRST: Final = 0.5
RETRY_AFTER_S_MAX: Final = 60.0
"""A provider that asks for more is not waited for: the error says how long it asked."""
_RETRIED: Final = frozenset({429, 500, 502, 503, 504, 529})
_TOO_MANY: Final = 429
_CHUNK_BYTES: Final = 64 * limits.KIB


class _Retry(Exception):
    """An attempt failed in a way that another may not."""

    def __init__(self, why: str, *, unspent: bool, after_s: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.unspent = unspent
        """Nothing can have been paid for: it never got there, or was turned away."""
        self.after_s = after_s


class _Exchange:
    """What one call of a provider is made of, over all its attempts."""

    __slots__ = ("begun", "body", "key", "names", "request", "sink")

    def __init__(
        self, request: ModelRequest, names: NameMap, body: bytes, key: str, sink: Sink | None
    ) -> None:
        self.request = request
        self.names = names
        self.body = body
        self.key = key
        self.sink = sink
        self.begun = False
        """Pieces of an answer are out: no other attempt can be its beginning."""


class HttpProvider:
    """One model at one address. Raises `ManifestInvalid` for an address that it can't use."""

    __slots__ = (
        "_config",
        "_dialect",
        "_headers",
        "_official",
        "_redact",
        "_runtime",
        "_session",
        "_slow_down",
        "_url",
    )

    def __init__(
        self,
        config: ModelConfig,
        dialect: Dialect,
        official: str,
        key: str,
        runtime: Runtime,
        slow_down: SlowDown = lambda after_s: None,
    ) -> None:
        """`official`: the base address of the dialect's own maker, who is asked where the
        configuration names no other."""
        base = config.base_url or official
        self._redact = Redactor(key)
        self._url = _checked_url(base, has_key=bool(key), like=official) + dialect.path
        self._official = urlsplit(base).hostname == urlsplit(official).hostname
        self._dialect = dialect
        self._headers = lambda: dialect.headers(key)  # Not an object whose `repr` shows it.
        self._config = config
        self._runtime = runtime
        self._slow_down = slow_down
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"HttpProvider({self._config.model!r} at {self._url!r})"

    async def answer(
        self,
        request: ModelRequest,
        idempotency_key: str,
        again: Again | None = None,
        sink: Sink | None = None,
    ) -> ModelAnswer:
        names = names_of(request)
        body = msgspec.json.encode(
            self._dialect.payload(
                request,
                self._config.model,
                names,
                official=self._official,
                stream=sink is not None,
            )
        )
        exchange = _Exchange(request, names, body, idempotency_key, sink)
        for attempt in range(limits.MODEL_RETRIES_MAX + 1):
            try:
                return await self._attempt(exchange)
            except errors.ModelFailed as failed:
                # Also what is wrong with an answer is told in the provider's words.
                told = errors.ModelFailed(
                    failed.what, why=self._redact(failed.why), todo=failed.todo
                )
                told.unspent = failed.unspent
                raise told from None
            except _Retry as failed:
                delay_s, unspent = self._delay_s(attempt, failed.after_s), failed.unspent
                last = attempt == limits.MODEL_RETRIES_MAX or exchange.begun
                if last or delay_s is None:
                    raise self._failed(failed.why, tried=attempt + 1, unspent=unspent) from None
            await self._runtime.sleep(delay_s)
            if again is not None and not unspent:
                await again()
        raise AssertionError("the last attempt returns or raises")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _attempt(self, exchange: _Exchange) -> ModelAnswer:
        try:
            return await self._runtime.wait_for(self._exchange(exchange), limits.MODEL_TIMEOUT_S)
        except TimeoutError:
            raise self._failed(f"no answer in {limits.MODEL_TIMEOUT_S} s", tried=1) from None
        except (aiohttp.ClientError, OSError) as error:
            never_there = isinstance(error, aiohttp.ClientConnectorError)
            raise _Retry(f"{type(error).__name__}: {error}", unspent=never_there) from None

    async def _exchange(self, exchange: _Exchange) -> ModelAnswer:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json" if exchange.sink is None else "text/event-stream",
            "Accept-Encoding": "identity",
            "Idempotency-Key": exchange.key,
            **self._headers(),
            **self._dialect.headers_of(exchange.request),
        }
        # No redirects: the key is for this address only.
        async with self._opened().post(
            self._url, data=exchange.body, headers=headers, allow_redirects=False
        ) as response:
            self._check_plain(response)
            if response.status == 200:
                model = self._config.model
                if exchange.sink is not None and response.content_type == "text/event-stream":
                    return await self._pieces(response, exchange, exchange.sink)
                found = await self._body(response)
                return self._dialect.read_answer(found, exchange.request, model, exchange.names)
            why = f"status {response.status}: {error_text(await self._body(response))}"
            if response.status in _RETRIED:
                after_s = _retry_after_s(response.headers, self._runtime.now_us())
                if response.status == _TOO_MANY and after_s:
                    self._slow_down(after_s)
                raise _Retry(why, unspent=response.status == _TOO_MANY, after_s=after_s)
            # Turned away: 4xx (of redirects nobody knows what is behind them).
            raise self._failed(why, tried=1, unspent=400 <= response.status < 500)

    async def _pieces(
        self, response: aiohttp.ClientResponse, exchange: _Exchange, sink: Sink
    ) -> ModelAnswer:
        reader = self._dialect.reader(exchange.request, self._config.model, exchange.names)
        async for chunk in response.content.iter_any():
            for delta in reader.feed(chunk):
                exchange.begun = True
                await sink(delta)
        return reader.end()

    def _check_plain(self, response: aiohttp.ClientResponse) -> None:
        """A packed body could unfold without end."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise self._failed("the answer is compressed, which was not asked for", tried=1)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        """The body, as far as it is bounded."""
        found = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            found += chunk
            if len(found) > limits.MODEL_ANSWER_SIZE_BYTES_MAX:
                response.close()
                raise self._failed(
                    f"status {response.status}: the answer is larger than"
                    f" {limits.MODEL_ANSWER_SIZE_BYTES_MAX:,} bytes",
                    tried=1,
                )
        return bytes(found)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _delay_s(self, attempt: int, asked_s: float | None) -> float | None:
        """How long to wait; None where the provider asks for longer than we wait."""
        if asked_s is not None:
            return asked_s if asked_s <= RETRY_AFTER_S_MAX else None
        jitter = 1 + self._runtime.random_bytes(1)[0] / 255
        return float(RETRY_DELAY_S_FIRST * 2**attempt * jitter)

    def _failed(self, why: str, *, tried: int, unspent: bool = False) -> errors.ModelFailed:
        times = "" if tried == 1 else f" ({tried} attempts)"
        failed = errors.ModelFailed(
            f"The model {self._config.model!r} did not answer{times}.",
            why=self._redact(one_line(why)),
            todo="see the provider's status, the model's name, its base_url and the key",
        )
        failed.unspent = unspent
        return failed


def _retry_after_s(headers: Any, now_us: int) -> float | None:
    """Retry-After in seconds: a number, or an HTTP date (RFC 9110, 10.2.3)."""
    text = str(headers.get("Retry-After", "")).strip()
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        at = email.utils.parsedate_to_datetime(text)
        return max(0.0, at.timestamp() - now_us / 1_000_000)
    except (TypeError, ValueError, OverflowError):
        return None


def _checked_url(base: str, *, has_key: bool, like: str) -> str:
    try:
        parts = urlsplit(base)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise _bad_url(like, "it is not a URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise _bad_url(like, "it must begin with https:// (or http://) and a host")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise _bad_url(like, "it must have no user, password, query or fragment")
    if parts.scheme == "http" and has_key and not is_loopback(host):
        raise _bad_url(like, "a key is never sent over http to another machine")
    return base.rstrip("/")


def _bad_url(like: str, why: str) -> errors.ManifestInvalid:
    # The address itself is not shown: it may hold a password.
    return errors.ManifestInvalid(
        "The model's base_url can't be used.", why=why, todo=f"write it as in {like}"
    )
