"""Which slots and which bucket a call takes, from what the operator says in ring0.toml.

`call`: every call of a tool or a model while it is carried out. `sandbox`: of them, those with a
sandbox of their own. `model:PROVIDER` (`…@HOST` at an address of its own): those of one provider;
`model:PROVIDER/MODEL` too, where the operator bounds that model. No other kind takes a slot: what
waits for a run, a person or a clock would hold it meanwhile, and what is made inside a tool's call
(`egress`) would wait for a slot while that call holds one: two such calls could wait for each
other for ever.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from ring0 import limits
from ring0.kernel.agent.manifests import Config
from ring0.runtime import Runtime
from ring0.scheduler.admission import Admission
from ring0.scheduler.buckets import Bucket
from ring0.scheduler.queue import FairQueue
from ring0.types import CallKind, Frozen, ModelConfig

CALL = "call"
SANDBOX = "sandbox"
TAKE_SLOTS = frozenset({CallKind.TOOL, CallKind.MODEL})


class Needs(Frozen, frozen=True, kw_only=True):
    """What a call takes while it is carried out, beside the slot that every call has."""

    slots: tuple[str, ...]
    bucket: str
    tokens: int
    """The estimate that it reserves in its bucket."""


class ModelSlots:
    """What calls of models need, and how much their providers take a minute."""

    def __init__(self, config: Config, admission: Admission) -> None:
        self._bounded = frozenset(config.scheduler.models)
        self._admission = admission
        strictest: dict[str, tuple[int, int]] = {}
        for model in config.models.values():
            name = bucket_name(model)
            requests, tokens = strictest.get(name, (0, 0))
            strictest[name] = (
                _stricter(requests, model.requests_per_min),
                _stricter(tokens, model.tokens_per_min),
            )
        for name, (requests, tokens) in strictest.items():
            if requests or tokens:
                admission.add_bucket(Bucket(name, requests, tokens))

    def of(self, model: ModelConfig, called: str = "") -> tuple[tuple[str, ...], str]:
        """The slots and the bucket of a call; `called`: what the provider calls a model that has
        any name (`*`). What ring0.toml says of a bucket stands. Such a model has one bucket for all
        names: a client can't get around it with another."""
        bucket = bucket_name(model)
        if model.requests_per_min or model.tokens_per_min:
            self._admission.add_bucket(Bucket(bucket, model.requests_per_min, model.tokens_per_min))
        named = f"{model.provider}/{called or model.model}"
        provider = f"model:{_at(model)}"
        if named in self._bounded:
            return (provider, f"model:{named}"), bucket
        return (provider,), bucket


def admission(config: Config, runtime: Runtime) -> Admission:
    """The turns of all calls of a kernel."""
    table = config.scheduler
    sizes = {CALL: table.calls_at_once, SANDBOX: table.sandboxes_at_once}
    sizes |= {f"model:{name}": model.at_once for name, model in table.models.items()}
    weights = {tenant: one.weight for tenant, one in table.tenants.items()}
    return Admission(runtime, FairQueue(sizes=sizes, weights=weights))


def bucket_name(model: ModelConfig) -> str:
    """Who counts together at the provider: (provider and its address, model). The key is the
    kernel's, one for a provider."""
    return f"{_at(model)}/{model.model}"


def bucket_tokens(request_bytes: int, answer_tokens: int) -> int:
    """The estimate for a bucket, which is put right afterwards: a token has about four bytes.
    (The budget's is an upper bound, and would leave three quarters of a bucket unused.)"""
    return -(-request_bytes // limits.BYTES_PER_TOKEN) + answer_tokens


def _at(model: ModelConfig) -> str:
    host = urlsplit(model.base_url).netloc if model.base_url else ""
    return f"{model.provider}@{host}" if host else model.provider


def _stricter(one: int, other: int) -> int:
    return min(one, other) if one and other else one or other
