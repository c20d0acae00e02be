"""Wires a kernel's parts together, where each is known only once all are there: who carries out a
kind of call, who wakes whom.

Not here: what the parts are (boot.py).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ring0.errors import RunDead
from ring0.kernel.calls import kinds
from ring0.kernel.calls.asking import Ask
from ring0.kernel.calls.egress import EgressKind
from ring0.kernel.calls.lockcalls import LockCall
from ring0.kernel.calls.messages import Send
from ring0.kernel.memory import calls as remembering
from ring0.kernel.memory import windows
from ring0.kernel.memory.consolidating import Consolidating
from ring0.kernel.memory.embedders import Embedders
from ring0.kernel.memory.framing import directives_of
from ring0.kernel.memory.indexing import Indexing, embedded_of
from ring0.kernel.memory.manager import VECTORS
from ring0.kernel.steps import slots
from ring0.memory.embedding.base import Embedder
from ring0.memory.vectors import VectorStore
from ring0.memory.vectors.lance import LanceVectors
from ring0.tools.registry import Tool
from ring0.types import AgentManifest, CallKind, Run

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel


def wire(kernel: Kernel) -> None:
    """Once, at the end of a kernel's making."""

    def manifest_of(run: Run) -> AgentManifest:
        return kernel.gate.live[run.id].agent.manifest

    kernel.gate.kinds = kinds.kinds(
        kernel.runtime,
        kinds.Ports(
            provider=lambda run, name: kernel.providers.of(manifest_of(run), name),
            model_config=lambda run, name: kernel.providers.config_of(manifest_of(run), name),
            model_fallbacks=lambda run, name: kernel.providers.fallbacks(manifest_of(run), name),
            model_needs=slots.ModelSlots(kernel.config, kernel.admission).of,
            spawn=kernel.runs.children.spawn,
            directives=functools.partial(directives_of, kernel.store),
            pass_on=functools.partial(_pass_on, kernel),
            reserve_again=kernel.spending.reserve_again,
            wait=kernel.runs.children.wait,
            receive=kernel.mail.receive,
            sleep=kernel.runs.sleep,
        ),
    )
    kernel.gate.kinds |= remembering.kinds(kernel.memory) | windows.kinds(kernel.memory)
    kernel.gate.kinds |= {
        CallKind.EGRESS: Tool(EgressKind(kernel.outside)),
        CallKind.LOCK: Tool(LockCall(kernel.locking, kernel.runtime)),
        CallKind.SEND: Tool(Send(kernel.mail)),
        CallKind.ASK: Tool(Ask(kernel.store, kernel.gate.live)),
    }
    _wire_vectors(kernel)
    kernel.memory.consolidating = Consolidating(kernel.memory, kernel.runs)
    kernel.waiting.asked = kernel.notifying.asked
    kernel.waiting.wake = kernel.mail.wake = kernel.runs.wake
    kernel.waiting.check_room = kernel.runs.check_room
    kernel.waiting.told_no = functools.partial(kernel.pausing.told_no_to, kernel.waiting)
    kernel.turns.waiting = kernel.waiting
    kernel.turns.locking = kernel.locking
    kernel.turns.mail = kernel.mail


def _wire_vectors(kernel: Kernel) -> None:
    """Who makes vectors of what is remembered, and of what is asked. Raises ManifestInvalid."""
    memory = kernel.memory
    memory.embedders = Embedders(
        kernel.config.memory, kernel.sandboxes, kernel.runtime, kernel.secret
    )
    memory.folder = kernel.home / VECTORS

    def open_place(embedder: Embedder) -> VectorStore:
        return LanceVectors(memory.folder / embedder.name, embedder.dimensions, kernel.runtime)

    memory.indexing = Indexing(
        kernel.store,
        kernel.runtime,
        memory.embedders,
        embedded_of,
        told=memory.indexes.indexed,
        open_place=open_place if kernel.config.memory.vectors == "lance" else None,
    )
    memory.indexes.places = memory.indexing.placing.places
    memory.indexes.broken = memory.indexing.broken


async def _pass_on(kernel: Kernel, row: Run, call: str, needs: slots.Needs, unspent: bool) -> None:
    """A call's turn at another model. Raises RunDead where its run has ended meanwhile."""
    run = kernel.gate.live.get(row.id)
    if run is None:
        raise RunDead(f"{row.id} goes on no more.", todo="Start a new run.")
    await kernel.turns.pass_on(run, call, needs, unspent)
    kernel.gate.handles.check(run.handle)
