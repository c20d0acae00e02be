"""What a simulated kernel is booted with in the place of the machine's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import jsonschema_rs
import msgspec

from ring0 import models
from ring0.governance import Policies
from ring0.kernel import boot
from ring0.runtime import Runtime
from ring0.tools import registry, schemas
from sim.outside import SimulatedModel

if TYPE_CHECKING:
    from sim.world import World

_policies: list[Policies] = []


def _load(extra: Any = (), profile: Any = "") -> Policies:
    """The policies are the same in all seeds, and take longer than a kernel's boot."""
    if not _policies:
        _policies.append(_load_policies(extra, profile))
    return _policies[0]


_load_policies = Policies.load


_validators: dict[bytes, Any] = {}


def _validator(schema: Any, **options: Any) -> Any:
    """As `jsonschema_rs.validator_for`; schemas are the same in all seeds."""
    key = msgspec.json.encode(schema)
    if key not in _validators:
        _validators[key] = jsonschema_rs.validator_for(schema, **options)
    return _validators[key]


def _parts(schema: Any) -> int:
    key = b"parts" + msgspec.json.encode(schema)
    if key not in _validators:
        _validators[key] = _parts_of(schema)
    return int(_validators[key])


_parts_of = schemas.parts


@contextmanager
def instead(world: World) -> Iterator[None]:
    """For as long as the block lasts."""
    with ExitStack() as patched:
        for where, what, other in _instead(world):
            patched.enter_context(mock.patch.object(where, what, other))
        yield


def _instead(world: World) -> list[tuple[Any, str, Any]]:
    def lock(home: Path) -> int:
        assert world.life is not None
        opened = os.open(os.devnull, os.O_RDONLY)
        world.life.locks.append(opened)
        return opened

    def provider(config: Any, folder: str, key: str, runtime: Runtime, **more: Any) -> Any:
        return SimulatedModel(world, more.get("slow_down", lambda after_s: None))

    compiles = mock.Mock(wraps=jsonschema_rs, validator_for=_validator)
    compiles.ValidationError = jsonschema_rs.ValidationError
    return [
        (boot, "open_store", world.disk.open),
        (boot, "lock_folder", lock),
        (boot, "raise_open_files", lambda: None),
        (models, "provider", provider),
        (Policies, "load", _load),
        (os, "getpid", lambda: 1),
        (schemas, "parts", _parts),
        (registry, "jsonschema_rs", compiles),
    ]
