"""A blob's address is HMAC-SHA-256, however it is computed."""

from __future__ import annotations

import hmac

import pytest

from ring0.store import address

SIZES = (0, 1, 63, 64, 65, 1_982, 1_983, 1_984, 2_047, 2_048, 5_000)


@pytest.mark.parametrize("key_bytes", [0, 1, 32, 63, 64, 65, 200])
def test_an_address_is_the_hmac_that_others_compute(key_bytes: int) -> None:
    key = bytes(range(key_bytes))
    for size in SIZES:
        value = bytes(number % 251 for number in range(size))
        assert address(key, value) == hmac.new(key, value, "sha256").hexdigest()
