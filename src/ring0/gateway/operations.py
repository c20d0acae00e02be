"""What an operator does, on a kernel in this process or on the one that has the folder's socket.

Each verb is a struct that says what a request for it holds, and does it. Not here: the socket
itself, and who may use it (control.py).
"""

from __future__ import annotations

import os
from itertools import islice
from typing import Any, Final, Protocol

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid
from ring0.gateway import (
    approving,
    consolidating,
    ending,
    entering,
    exporting,
    forking,
    ingesting,
    memorising,
    ordering,
    proving,
    quarantining,
    roles,
    storing,
    tokening,
    vaulting,
)
from ring0.kernel.kernel import Kernel
from ring0.types import AgentManifest, Approval, Call, Operator, Run


class Operations(Protocol):
    """What an operator does, on a kernel at work or on one opened for it."""

    async def answer(self, approval: str, *, yes: bool, note: str = "") -> Approval: ...

    async def settle(self, call: str, *, happened: bool, note: str = "") -> Call: ...

    async def kill(self, scope: str, target: str) -> list[str]: ...

    async def undo(self, run: str, call: str = "") -> Run: ...

    async def pause(self, run: str, *, tree: bool = False, note: str = "") -> list[str]: ...

    async def resume(self, run: str, *, tree: bool = False) -> list[str]: ...

    async def send(self, run: str, text: str) -> None: ...

    async def budget(self, run: str, more: dict[str, int], *, note: str = "") -> Run: ...

    async def order(self, change: ordering.AnyChange) -> Any: ...

    async def load(self) -> Any: ...

    async def ask(self, verb: str, body: Any) -> Any:
        """A verb of a module of its own, by what its request holds."""
        ...


class Direct:
    """Operations on a kernel in this process, by `by`: each looks whether that one may."""

    def __init__(
        self, kernel: Kernel, by: Operator, *, uid: int | None = None, presented: str = ""
    ) -> None:
        """`uid`: of the process that asks, where it is another; `presented`: the value of the
        login that `by` is known by, if it is by one."""
        self.kernel = kernel
        self.by = by
        self.uid = os.getuid() if uid is None else uid
        self.presented = presented

    def may(self, verb: str) -> Operator:
        """Who asks. Raises RoleMissing."""
        roles.check(self.by, verb)
        return self.by

    async def answer(self, approval: str, *, yes: bool, note: str = "") -> Approval:
        return await self.kernel.answer(approval, yes=yes, by=self.may("answer"), note=note)

    async def settle(self, call: str, *, happened: bool, note: str = "") -> Call:
        return await self.kernel.settle(
            call, happened=happened, by=self.may("settle").name, note=note
        )

    async def kill(self, scope: str, target: str) -> list[str]:
        return await self.kernel.kill(scope, target, by=self.may("kill").name)

    async def undo(self, run: str, call: str = "") -> Run:
        return await self.kernel.undo(run, by=self.may("undo").name, only=call)

    async def pause(self, run: str, *, tree: bool = False, note: str = "") -> list[str]:
        return await self.kernel.pause(run, by=self.may("pause").name, note=note, tree=tree)

    async def resume(self, run: str, *, tree: bool = False) -> list[str]:
        return await self.kernel.resume(run, by=self.may("resume").name, tree=tree)

    async def send(self, run: str, text: str) -> None:
        await self.kernel.send(run, text, by=self.may("send").name)

    async def budget(self, run: str, more: dict[str, int], *, note: str = "") -> Run:
        return await self.kernel.raise_budget(run, more, by=self.may("budget").name, note=note)

    async def order(self, change: ordering.AnyChange) -> Any:
        """Crons and hooks."""
        return await ordering.do(self.kernel, self.may("order").name, change)

    async def ask(self, verb: str, body: Any) -> Any:
        """A verb that has no method here."""
        self.may(verb)
        return msgspec.to_builtins(await asked_for(verb, msgspec.to_builtins(body)).do(self))

    async def load(self) -> Any:
        """What only the kernel's memory holds: slots and their queues, who waits for locks, which
        runs could not go on."""
        self.may("load")
        kernel = self.kernel
        found: dict[str, Any] = msgspec.to_builtins(kernel.load())
        left = islice(kernel.runs.not_recovered.items(), limits.NOT_RECOVERED_SHOWN_MAX)
        return {
            **found,
            "lock_waits": kernel.locking.snapshot(),
            "not_recovered": {
                run: str(error)[: limits.NOT_RECOVERED_CHARS_MAX] for run, error in left
            },
        }

    async def start(
        self,
        manifest: AgentManifest,
        around: tuple[str, ...],
        task: str,
        priority: int | None,
        only: tuple[str, ...] | None = None,
        traceparent: str = "",
    ) -> Run:
        """Describes the agent and starts a run of it. Raises what keeps it from starting."""
        by = self.may("run")
        if not os.path.isabs(manifest.folder):
            raise CallInvalid(
                "The agent's folder is no absolute path.",
                why="The kernel works in another folder than whoever asks.",
                todo="Use the `ring0` command of the same version.",
            )
        family = prioritised(await self.kernel.describe(manifest, around), priority)
        return await self.kernel.start(
            family, task, principal=by.name, only=only, traceparent=traceparent
        )


def prioritised(family: Any, priority: int | None) -> Any:
    """The family with the priority that the operator gives its first agent."""
    if priority is None:
        return family
    manifest = msgspec.structs.replace(family.manifest, priority=priority)
    return msgspec.structs.replace(family, manifest=manifest)


# --- what a request for a verb holds, and how it is done ---------------------------------------


class _Verb(msgspec.Struct, forbid_unknown_fields=True):
    """Fields that don't fit are refused, never given a default."""


class _Answer(_Verb):
    approval: str
    yes: bool
    note: str = ""

    async def do(self, to: Direct) -> Any:
        return await to.answer(self.approval, yes=self.yes, note=self.note)


class _Settle(_Verb):
    call: str
    happened: bool
    note: str = ""

    async def do(self, to: Direct) -> Any:
        return await to.settle(self.call, happened=self.happened, note=self.note)


class _Kill(_Verb):
    scope: str
    target: str

    async def do(self, to: Direct) -> Any:
        return await to.kill(self.scope, self.target)


class _Undo(_Verb):
    run: str
    call: str = ""

    async def do(self, to: Direct) -> Any:
        return await to.undo(self.run, self.call)


class _Pause(_Verb):
    run: str
    tree: bool = False
    note: str = ""

    async def do(self, to: Direct) -> Any:
        return await to.pause(self.run, tree=self.tree, note=self.note)


class _Resume(_Verb):
    run: str
    tree: bool = False

    async def do(self, to: Direct) -> Any:
        return await to.resume(self.run, tree=self.tree)


class _Send(_Verb):
    run: str
    text: str

    async def do(self, to: Direct) -> Any:
        return await to.send(self.run, self.text)


class _Budget(_Verb):
    run: str
    more: dict[str, int]
    note: str = ""

    async def do(self, to: Direct) -> Any:
        return await to.budget(self.run, self.more, note=self.note)


class _Load(_Verb):
    async def do(self, to: Direct) -> Any:
        return await to.load()


class _Order(_Verb):
    change: ordering.AnyChange

    async def do(self, to: Direct) -> Any:
        return await to.order(self.change)


class _Start(_Verb):
    manifest: AgentManifest
    task: str
    around: tuple[str, ...] = ()
    priority: ordering.Priority | None = None
    only: tuple[str, ...] | None = None
    traceparent: str = ""

    async def do(self, to: Direct) -> Any:
        return await to.start(
            self.manifest, self.around, self.task, self.priority, self.only, self.traceparent
        )


VERBS: Final[dict[str, Any]] = {
    "answer": _Answer,
    "settle": _Settle,
    "kill": _Kill,
    "undo": _Undo,
    "pause": _Pause,
    "resume": _Resume,
    "send": _Send,
    "budget": _Budget,
    "load": _Load,
    "order": _Order,
    "run": _Start,
    **entering.VERBS,
    **ending.VERBS,
    **tokening.VERBS,
    **approving.VERBS,
    **vaulting.VERBS,
    **quarantining.VERBS,
    **forking.VERBS,
    **storing.VERBS,
    **proving.VERBS,
    **exporting.VERBS,
    **ingesting.VERBS,
    **memorising.VERBS,
    **consolidating.VERBS,
}

STARTING: Final = ("run", "fork")
"""Verbs that start a run: a few at the same time, and only on a kernel that stays."""


def asked_for(verb: str, body: Any) -> Any:
    """The request for a verb. Raises CallInvalid."""
    try:
        return msgspec.convert(body, VERBS[verb])
    except msgspec.ValidationError as error:
        # Never a default: a `happened` that is no bool must not become "it did not happen".
        raise CallInvalid(
            f"{verb} was asked for without what it needs.",
            why=str(error),
            todo="Use the `ring0` command of the same version.",
        ) from None
