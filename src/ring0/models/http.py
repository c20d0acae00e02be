"""Providers over HTTP, each in its dialect: OpenAI and whoever speaks like it, Anthropic, …

One request, one answer, whole or in pieces, bounded in size, time and retries. The key is put in on
each request, here and nowhere else, and is in no message, `repr` or exception.
"""

from __future__ import annotations

import email.utils
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from ring0 import errors, limits
from ring0.models import dialects
from ring0.models.base import (
    Again,
    ModelAnswer,
    ModelRequest,
    Sink,
    SlowDown,
    called,
    is_loopback,
)
from ring0.models.dialects import AtProvider
from ring0.models.makers import Maker
from ring0.models.names import NameMap, names_of
from ring0.models.redact import Redactor
from ring0.models.refused import Refused, Words
from ring0.models.wire import error_text, error_told, one_line
from ring0.runtime import Runtime
from ring0.types import ModelConfig

RETRY_DELAY_S_FIRST: Final = 0.5
_RETRIED: Final = frozenset({429, 500, 502, 503, 504, 529})
_TOO_MANY: Final = 429
_CHUNK_BYTES: Final = 64 * limits.KIB
_TURN_BYTES: Final = 8 * limits.KIB
"""Of a stream, before all others have their turn: a millisecond's work."""


class _Retry(Exception):
    """An attempt failed in a way that another may not."""

    def __init__(
        self, why: str, *, unspent: bool, after_s: float | None = None, status: int = 0
    ) -> None:
        super().__init__(why)
        self.why = why
        self.status = status
        self.unspent = unspent
        """Nothing can have been paid for: it never got there, or was turned away."""
        self.after_s = after_s


class _Exchange:
    """What one call of a provider is made of, over all its attempts."""

    __slots__ = ("begun", "body", "key", "model", "names", "request", "sink")

    def __init__(
        self,
        request: ModelRequest,
        model: str,
        names: NameMap,
        body: bytes,
        key: str,
        sink: Sink | None,
    ) -> None:
        self.request = request
        self.model = model
        """As the provider calls it."""
        self.names = names
        self.body = body
        self.key = key
        self.sink = sink
        self.begun = False
        """Pieces of an answer are out: no other attempt can be its beginning."""


class HttpProvider:
    """One model at one address. Raises `ManifestInvalid` for an address that it can't use."""

    __slots__ = (
        "_base",
        "_config",
        "_dialect",
        "_headers",
        "_official",
        "_redact",
        "_runtime",
        "_session",
        "_slow_down",
        "_words",
    )

    def __init__(
        self,
        config: ModelConfig,
        dialect: AtProvider,
        maker: Maker,
        key: str,
        runtime: Runtime,
        slow_down: SlowDown = lambda after_s: None,
    ) -> None:
        base = config.base_url or maker.base_url
        self._redact = Redactor(key)
        self._base = _checked_url(base, has_key=bool(key), like=maker.base_url)
        there = urlsplit(base).hostname == urlsplit(maker.base_url).hostname
        self._official = maker.made and there
        self._dialect = dialect
        # No object whose `repr` shows the key.
        self._headers: Callable[[], dict[str, str]] = lambda: dialect.headers(key)
        named = config.key.removeprefix("secret://") or maker.key
        self._words = Words(config.provider, named, has_key=bool(key))
        self._config = config
        self._runtime = runtime
        self._slow_down = slow_down
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"HttpProvider({self._config.model!r} at {self._base!r})"

    async def answer(
        self,
        request: ModelRequest,
        idempotency_key: str,
        again: Again | None = None,
        sink: Sink | None = None,
    ) -> ModelAnswer:
        names, model, stream = names_of(request), called(self._config, request), sink is not None
        try:
            said = self._spoken(request).payload(
                request, model, names, official=self._official, stream=stream
            )
        except errors.CallInvalid as no:
            no.unspent = True  # Nobody was asked.
            raise
        body = msgspec.json.encode(said)
        exchange = _Exchange(request, model, names, body, idempotency_key, sink)
        for attempt in range(limits.MODEL_RETRIES_MAX + 1):
            try:
                return await self._attempt(exchange)
            except Refused:
                raise
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
                    raise self._failed(
                        model,
                        failed.why,
                        tried=attempt + 1,
                        unspent=unspent,
                        status=failed.status,
                    ) from None
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
            why = f"no answer in {limits.MODEL_TIMEOUT_S} s"
            raise self._failed(exchange.model, why, tried=1) from None
        except (aiohttp.ClientError, OSError) as error:
            never_there = isinstance(error, aiohttp.ClientConnectorError)
            raise _Retry(f"{type(error).__name__}: {error}", unspent=never_there) from None

    def _spoken(self, request: ModelRequest) -> AtProvider:
        """Vectors are asked for in a dialect of their own, at the same address."""
        return dialects.dialect("embeddings") if request.vectors else self._dialect

    async def _exchange(self, exchange: _Exchange) -> ModelAnswer:
        spoken, model = self._spoken(exchange.request), exchange.model
        url = self._base + spoken.path(model, stream=exchange.sink is not None)
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json" if exchange.sink is None else "text/event-stream",
            "Accept-Encoding": "identity",
            "Idempotency-Key": exchange.key,
            **self._headers(),
            **spoken.headers_of(exchange.request),
        }
        if exchange.request.traceparent:
            headers["traceparent"] = exchange.request.traceparent
        # No redirects: the key is for this address only.
        async with self._opened().post(
            url, data=exchange.body, headers=headers, allow_redirects=False
        ) as response:
            self._check_plain(response, model)
            if response.status == 200:
                if exchange.sink is not None and response.content_type == "text/event-stream":
                    return await self._pieces(response, exchange, exchange.sink)
                found = await self._body(response, model)
                try:
                    return spoken.read_answer(found, exchange.request, model, exchange.names)
                except errors.ModelFailed:
                    if said := error_told(found):  # Of many a server the status says nothing.
                        raise self._failed(
                            model, f"its answer is an error: {said}", tried=1
                        ) from None
                    raise
            why = f"status {response.status}: {error_text(await self._body(response, model))}"
            if response.status in _RETRIED:
                after_s = _retry_after_s(response.headers, self._runtime.now_us())
                if response.status == _TOO_MANY and after_s:
                    self._slow_down(after_s)
                raise _Retry(
                    why,
                    unspent=response.status == _TOO_MANY,
                    after_s=after_s,
                    status=response.status,
                )
            # Turned away: 4xx (of redirects nobody knows what is behind them).
            turned_away = 400 <= response.status < 500
            raise self._failed(model, why, tried=1, unspent=turned_away, status=response.status)

    async def _pieces(
        self, response: aiohttp.ClientResponse, exchange: _Exchange, sink: Sink
    ) -> ModelAnswer:
        reader = self._dialect.reader(exchange.request, exchange.model, exchange.names)
        async for chunk in response.content.iter_any():
            for start in range(0, len(chunk), _TURN_BYTES):
                for delta in reader.feed(chunk[start : start + _TURN_BYTES]):
                    exchange.begun = True
                    await sink(delta)
                await self._runtime.sleep(0)  # However much comes, others have their turn.
        return reader.end()

    def _check_plain(self, response: aiohttp.ClientResponse, model: str) -> None:
        """A packed body could unfold without end."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise self._failed(model, "the answer is compressed, which was not asked for", tried=1)

    async def _body(self, response: aiohttp.ClientResponse, model: str) -> bytes:
        """The body, as far as it is bounded."""
        found = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            found += chunk
            if len(found) > limits.MODEL_ANSWER_SIZE_BYTES_MAX:
                response.close()
                raise self._failed(
                    model,
                    f"status {response.status}: the answer is larger than"
                    f" {limits.MODEL_ANSWER_SIZE_BYTES_MAX:,} bytes",
                    tried=1,
                )
        return bytes(found)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # How many at once is the scheduler's to say.
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _delay_s(self, attempt: int, asked_s: float | None) -> float | None:
        """How long to wait; None where the provider asks for longer than we wait."""
        if asked_s is not None:
            return asked_s if asked_s <= limits.MODEL_RETRY_AFTER_S_MAX else None
        jitter = 1 + self._runtime.random_bytes(1)[0] / 255
        return float(RETRY_DELAY_S_FIRST * 2**attempt * jitter)

    def _failed(
        self, model: str, why: str, *, tried: int, unspent: bool = False, status: int = 0
    ) -> errors.ModelFailed:
        """`status`: the provider's own, where it has answered."""
        times = "" if tried == 1 else f" ({tried} attempts)"
        why = self._redact(one_line(why))
        refusal = self._words.refusal(status, one_line(model), why, tried=tried)
        failed = refusal or errors.ModelFailed(
            f"The model {model!r} did not answer{times}.",
            why=why,
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
