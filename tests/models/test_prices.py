"""What a model costs: the operator's word, else nothing here, else the packaged table, else nobody
knows and it is refused."""

from __future__ import annotations

import pytest

from ring0 import models
from ring0.models import prices
from ring0.types import ModelConfig


def test_the_table_has_a_date_a_source_and_sane_prices() -> None:
    table = prices.table()
    assert table.source and table.read.year >= 2026
    assert len(table.openai) > 20
    for name, price in table.openai.items():
        least = 0 if name.startswith("text-embedding-") else price.in_  # They say nothing.
        assert 0 < price.in_ < 1_000_000_000 and least <= price.out < 1_000_000_000, name
        if price.long_from_tokens:
            assert price.long_in >= price.in_ and price.long_out >= price.out, name


def test_the_default_model_has_a_price() -> None:
    price = models.price_of(ModelConfig(provider="openai", model="gpt-5-mini"))
    assert price is not None
    assert price.cost_microusd(1_000_000, 0) == 250_000
    assert price.cost_microusd(0, 1_000_000) == 2_000_000


def test_what_the_operator_says_comes_before_the_table() -> None:
    config = ModelConfig(
        provider="openai",
        model="gpt-5-mini",
        price_in_microusd_per_mtok=7,
        price_out_microusd_per_mtok=0,
    )
    assert models.price_of(config) == prices.Price(in_=7, out=0)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]/"]
)
def test_a_model_on_this_machine_is_free(url: str) -> None:
    config = ModelConfig(provider="openai", model="llama", base_url=url)
    assert models.price_of(config) == prices.FREE


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(provider="openai", model="gpt-5-mini-but-new"),
        ModelConfig(provider="openai", model="gpt-5-mini", base_url="https://resold.example/v1"),
        ModelConfig(provider="openai", model="gpt-5-mini", base_url="https://api.openai.com.evil/"),
        ModelConfig(provider="openai", model="x", base_url="http://127.0.0.1.evil.example/v1"),
        ModelConfig(
            provider="openai",
            model="x",
            base_url="http://127.0.0.1/v1",
            price_in_microusd_per_mtok=1,
        ),
    ],
    ids=["new model", "resold", "looks like it", "looks local", "half a price"],
)
def test_nobody_knows_the_price_of_what_is_in_no_table(config: ModelConfig) -> None:
    assert models.price_of(config) is None


def test_a_price_is_rounded_up_and_a_long_request_pays_the_long_price() -> None:
    price = prices.Price(in_=1, out=1, long_from_tokens=10, long_in=3_000_000, long_out=5_000_000)
    assert price.cost_microusd(1, 0) == 1
    assert price.cost_microusd(10, 1) == 1
    assert price.cost_microusd(11, 1) == 38


def test_what_was_read_before_costs_less_where_the_table_says_so() -> None:
    price = models.price_of(ModelConfig(provider="anthropic", model="claude-sonnet-5-5"))
    assert price is not None and price.cached is not None
    assert price.cost_microusd(1_000_000, 0) == 2_000_000
    assert price.cost_microusd(1_000_000, 0, 1_000_000) == 100_000
    long = prices.Price(in_=2, out=2, cached=1, long_from_tokens=10, long_in=4, long_out=4)
    assert long.cost_microusd(1_000_000, 0, 1_000_000) == 4


def test_a_provider_is_paid_by_its_own_makers_table() -> None:
    here = {"provider": "anthropic", "model": "gpt-5-mini"}
    assert models.price_of(ModelConfig(**here)) is None
    far = {"provider": "anthropic", "model": "claude-opus-5-5", "base_url": "https://x.example/v1"}
    assert models.price_of(ModelConfig(**far)) is None
    for name, price in prices.table().anthropic.items():
        assert 0 < price.in_ <= price.out < 1_000_000_000, name
        assert price.cached is not None and price.cached < price.in_, name
