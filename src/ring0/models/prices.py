"""What a model's tokens cost: from its configuration, else from the packaged table `prices.toml`.

A price that nobody knows is None, and whoever asks for that model is refused: spending that can't
be bounded is not begun. A model at a loopback address is free unless its configuration says more.
"""

from __future__ import annotations

import datetime
import functools
import tomllib
from importlib import resources
from typing import Final
from urllib.parse import urlsplit

import msgspec

from ring0.models.base import is_loopback
from ring0.models.makers import OVER_HTTP
from ring0.types import Frozen, ModelConfig

_MTOK: Final = 1_000_000


class Price(Frozen, frozen=True, kw_only=True, rename={"in_": "in"}):
    """Millionths of a US dollar per million tokens."""

    in_: int
    out: int
    long_from_tokens: int = 0
    """Requests with more tokens than that pay `long_in` and `long_out`; 0: none do."""
    long_in: int = 0
    long_out: int = 0
    cached: int | None = None
    """Of what the provider had read before; None: as all else. (Not of long requests.)"""

    def cost_microusd(self, tokens_in: int, tokens_out: int, tokens_cached: int = 0) -> int:
        """Rounded up."""
        long = 0 < self.long_from_tokens < tokens_in
        price_in, price_out = (self.long_in, self.long_out) if long else (self.in_, self.out)
        cost = tokens_in * price_in + tokens_out * price_out
        if self.cached is not None and not long:
            cost -= tokens_cached * (price_in - self.cached)
        return -(-cost // _MTOK)


FREE: Final = Price(in_=0, out=0)


class Table(Frozen, frozen=True, kw_only=True):
    """The packaged table."""

    read: datetime.date
    """When its source was read."""
    source: str
    openai: dict[str, Price]
    anthropic: dict[str, Price]
    gemini: dict[str, Price]

    def age_days(self, now_us: int) -> int:
        today = datetime.datetime.fromtimestamp(now_us / 1_000_000, datetime.UTC).date()
        return (today - self.read).days


@functools.cache
def table() -> Table:
    """Read once."""
    text = resources.files("ring0.models").joinpath("prices.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), Table)


def price_of(config: ModelConfig) -> Price | None:
    """What the operator says; else nothing for what runs here; else the table's, by exact name, for
    the provider's own address. None: nobody knows."""
    said = (config.price_in_microusd_per_mtok, config.price_out_microusd_per_mtok)
    if said[0] is not None and said[1] is not None:
        return Price(in_=said[0], out=said[1])
    if config.provider in ("scripted", "local"):
        return FREE
    maker = OVER_HTTP.get(config.provider)
    own = maker.base_url if maker else ""
    host = urlsplit(config.base_url or own).hostname or ""
    if is_loopback(host):
        return FREE if said == (None, None) else None
    if maker is not None and maker.prices and host == urlsplit(own).hostname:
        prices: dict[str, Price] = getattr(table(), maker.prices)
        return prices.get(config.model)
    return None
