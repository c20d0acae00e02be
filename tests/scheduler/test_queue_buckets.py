"""Token buckets: a provider is never asked for more a minute than it takes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ring0 import limits
from ring0.scheduler.buckets import Bucket

S = 1_000_000
NOW = 1_000 * S


def test_a_bucket_begins_full_and_fills_at_its_rate() -> None:
    bucket = Bucket("b", requests_per_min=60)
    for _ in range(limits.BUCKET_BURST_S):
        assert bucket.ready_us(0, NOW) == NOW
        bucket.reserve(0, NOW)
    assert bucket.ready_us(0, NOW) == NOW + S
    assert bucket.ready_us(0, NOW + S) == NOW + S


def test_both_requests_and_tokens_have_to_be_there() -> None:
    bucket = Bucket("b", requests_per_min=60, tokens_per_min=60)
    bucket.reserve(10, NOW)
    assert bucket.ready_us(0, NOW) == NOW
    assert bucket.ready_us(5, NOW) == NOW + 5 * S


def test_what_was_estimated_too_high_comes_back() -> None:
    bucket = Bucket("b", tokens_per_min=60)
    bucket.reserve(10, NOW)
    bucket.settle(10, 2, NOW)
    assert bucket.ready_us(8, NOW) == NOW and bucket.ready_us(9, NOW) > NOW


def test_what_was_estimated_too_low_is_owed() -> None:
    bucket = Bucket("b", tokens_per_min=60)
    bucket.reserve(1, NOW)
    bucket.settle(1, 31, NOW)
    assert bucket.ready_us(1, NOW) == NOW + 22 * S  # 9 were left, 30 are owed, one is wanted.


def test_a_call_larger_than_the_bucket_goes_when_it_is_full() -> None:
    bucket = Bucket("b", tokens_per_min=60)
    bucket.reserve(1, NOW)
    ready = bucket.ready_us(1_000, NOW)
    assert ready == NOW + S
    bucket.reserve(1_000, ready)
    assert bucket.ready_us(1, ready) == ready + S, "its own word kept others waiting"
    bucket.settle(1_000, 15, ready)
    assert bucket.ready_us(1, ready) == ready + 6 * S, "of what it came to, 5 are owed"


def test_nobody_owes_more_than_a_minutes_worth() -> None:
    bucket = Bucket("b", tokens_per_min=60)
    bucket.reserve(1, NOW)
    bucket.settle(1, 100_000_000, NOW)
    assert bucket.ready_us(1, NOW) == NOW + 61 * S


def test_a_call_that_was_not_made_took_nothing() -> None:
    bucket = Bucket("b", requests_per_min=6, tokens_per_min=60)
    for _ in range(100):
        assert bucket.ready_us(4_000_000, NOW) == NOW
        bucket.reserve(4_000_000, NOW)
        bucket.undo(4_000_000, NOW)


def test_a_provider_that_refuses_empties_its_bucket_until_then() -> None:
    bucket = Bucket("b", requests_per_min=60)
    bucket.empty(NOW + 30 * S, NOW)
    assert bucket.ready_us(0, NOW) == NOW + 31 * S, "what refilled meanwhile counted"
    unlimited = Bucket("b")
    unlimited.empty(NOW + 30 * S, NOW)
    assert unlimited.ready_us(5, NOW) == NOW + 30 * S
    unlimited.empty(NOW + 10 * S, NOW)
    assert unlimited.ready_us(5, NOW) == NOW + 30 * S, "an earlier word cut it short"


def test_a_clock_that_is_set_back_fills_nothing_and_takes_nothing() -> None:
    bucket = Bucket("b", requests_per_min=60)
    assert bucket.ready_us(0, NOW) == NOW
    assert bucket.ready_us(0, NOW - 60 * S) == NOW - 60 * S
    for _ in range(limits.BUCKET_BURST_S):
        bucket.reserve(0, NOW)
    for back in range(1, 20):
        assert bucket.ready_us(0, NOW - back * S) > NOW - back * S
    assert bucket.ready_us(0, NOW + S - 1) == NOW + S


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 600),
    st.integers(1, 100_000),
    st.lists(st.tuples(st.integers(0, 20 * S), st.integers(0, 5_000)), max_size=60),
)
def test_over_any_time_no_more_goes_than_the_burst_and_the_rate(
    requests: int, tokens: int, asked: list[tuple[int, int]]
) -> None:
    bucket, now, went = Bucket("b", requests, tokens), NOW, []
    for pause, amount in asked:
        now += pause
        ready = bucket.ready_us(amount, now)
        assert ready >= now
        assert bucket.ready_us(amount, ready) == ready, "it named a time at which it was not ready"
        now = ready
        bucket.reserve(amount, now)
        went.append((now, amount))
    for begin in range(len(went)):
        for end in range(begin, len(went)):
            _within(went[begin : end + 1], requests, tokens)


def _within(went: list[tuple[int, int]], requests: int, tokens: int) -> None:
    lasted_us = went[-1][0] - went[0][0]
    burst = max(1, requests * limits.BUCKET_BURST_S / 60)
    assert len(went) <= burst + requests * lasted_us / (60 * S) + 1e-6
    # What is larger than the bucket goes when it is full, and takes all of it.
    burst = max(1, tokens * limits.BUCKET_BURST_S / 60)
    held = sum(min(amount, burst) for _, amount in went)
    assert held <= burst + tokens * lasted_us / (60 * S) + 1e-6
