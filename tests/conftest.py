"""What all tests share."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ring0 import limits


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=8, help="how many kill -9 of the kernel")


def pytest_configure(config: pytest.Config) -> None:
    """What RING0_TEST_REQUIRE names must be there: whole modules are skipped without it."""
    required = os.environ.get("RING0_TEST_REQUIRE", "").split(",")
    for module in ("grpc", "grpclib", "spiffe") if "spiffe" in required else ():
        if importlib.util.find_spec(module) is None:
            raise pytest.UsageError(f"RING0_TEST_REQUIRE names spiffe: there is no {module}")
    if "schemathesis" in required and importlib.util.find_spec("schemathesis") is None:
        raise pytest.UsageError(
            "RING0_TEST_REQUIRE names schemathesis: `make optional` installs it"
        )
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    vectors = Path(os.environ.get("RING0_DATA", shared)) / "vectors"
    if "data" in required and not vectors.is_dir():
        raise pytest.UsageError(f"RING0_TEST_REQUIRE names data: there is no {vectors}")


@pytest.fixture(autouse=True, scope="session")
def small_reserves() -> Iterator[None]:
    """Each data folder holds some disk back: a thousand of them on one machine, a little each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "DISK_RESERVE_SIZE_BYTES", 256 * limits.KIB)
        yield
