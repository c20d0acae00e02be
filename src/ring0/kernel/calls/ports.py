"""What the kernel's own drivers need of the kernel, each as a plain function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ring0 import models
from ring0.kernel.steps.slots import Needs
from ring0.memory.window import Directive
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.types import ModelConfig, Run


class Ports(msgspec.Struct):
    """Those of one kernel."""

    provider: Callable[[Run, str], models.Provider]
    model_config: Callable[[Run, str], ModelConfig]
    spawn: Callable[[Run, str, str, str, list[str] | None], Awaitable[str]]
    """(parent, agent, task, call id, grant) to the child's id; the same call gives the same
    child."""
    model_fallbacks: Callable[[Run, str], tuple[tuple[str, ModelConfig], ...]]
    """Those that are asked where the model of that name does not answer, in turn."""
    model_needs: Callable[[ModelConfig, str], tuple[tuple[str, ...], str]]
    """(model, what its provider calls it) to the slots and the bucket that a call of it takes."""
    directives: Callable[[Run], Awaitable[tuple[Directive, ...]]]
    """What people say always holds for the run, the oldest first."""
    pass_on: Callable[[Run, str, Needs, bool], Awaitable[None]]
    """(run, call, needs, unspent): the call gives back what it has, of which that was spent or not,
    and waits until it may ask another model. Raises Busy, LimitReached, RunDead."""
    reserve_again: Callable[[Run, str, Prepared], Awaitable[None]]
    """(run, call, prepared): as much once more, before another attempt. Raises LimitReached."""
    wait: Callable[[CallContext, dict[str, Any]], Awaitable[Result]]
    """What became of the children that a `wait` names, once that is clear."""
    receive: Callable[[CallContext, float | None], Awaitable[Result]]
    """The next message to the run; waits for it, at most so many seconds."""
    sleep: Callable[[CallContext, int], Awaitable[None]]
    """Until then (microseconds since 1970)."""
