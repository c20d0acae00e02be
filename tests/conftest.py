"""What all tests share."""

from collections.abc import Iterator

import pytest

from ring0 import limits


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=8, help="how many kill -9 of the kernel")


@pytest.fixture(autouse=True, scope="session")
def small_reserves() -> Iterator[None]:
    """Each data folder holds some disk back: a thousand of them on one machine, a little each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "DISK_RESERVE_SIZE_BYTES", 256 * limits.KIB)
        yield
