"""What an operator asks of crons and hooks, as one verb of the operator's socket: `order`.

Not here: the socket (control.py), the other verbs (operations.py), what an order does.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid, InvalidInput
from ring0.identity.vault import secret_name
from ring0.kernel import keeping
from ring0.kernel.agent.agents import Family
from ring0.kernel.kernel import Kernel
from ring0.kernel.life.orders import Told
from ring0.types import AgentManifest, HookScheme, Missed, Overlap, Schedule

Priority = Annotated[int, msgspec.Meta(ge=0, le=limits.PRIORITY_LAST)]


class Change(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="do"):
    """Base of all changes."""


class Described(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An agent as far as files say it."""

    manifest: AgentManifest
    around: tuple[str, ...] = ()
    priority: Priority | None = None


class SetCron(Change, tag="set-cron"):
    told: Told
    agent: Described
    schedule: Schedule
    missed: Missed = Missed.SKIP
    overlap: Overlap = Overlap.SKIP


class SetHook(Change, tag="set-hook"):
    told: Told
    agent: Described
    secret: str
    scheme: HookScheme = HookScheme.STANDARD


class Pause(Change, tag="pause"):
    order: str
    name: str
    note: str = ""


class Resume(Change, tag="resume"):
    order: str
    name: str


class Remove(Change, tag="remove"):
    order: str
    name: str


class RunNow(Change, tag="run-now"):
    name: str


AnyChange = SetCron | SetHook | Pause | Resume | Remove | RunNow


async def do(kernel: Kernel, by: str, change: AnyChange) -> Any:
    """The row of what was set; of a run that was started; None otherwise. Raises what keeps it
    from being done."""
    orders = kernel.orders
    tenant = kernel.config.tenant
    match change:
        case SetCron():
            return await orders.set_cron(
                await _described(kernel, change.agent),
                change.told,
                change.schedule,
                principal=by,
                tenant=tenant,
                missed=change.missed,
                overlap=change.overlap,
            )
        case SetHook():
            # Set just now, as a rule: it is to be kept back from here on.
            secret = secret_name(change.secret)
            if secret not in await keeping.take_up(kernel, by=by):
                raise InvalidInput(
                    f"The vault holds no secret {secret[:40]!r}.",
                    why="Deliveries are signed with it; unsigned ones start nothing.",
                    todo=f"`ring0 secret set {secret[:40]}`, or leave --secret out.",
                )
            return await orders.set_hook(
                await _described(kernel, change.agent),
                change.told,
                principal=by,
                tenant=tenant,
                secret=secret,
                scheme=change.scheme,
            )
        case Pause():
            await orders.pause(_kind(change.order), change.name, by=by, note=change.note)
        case Resume():
            await orders.resume(_kind(change.order), change.name, by=by)
        case Remove():
            await orders.remove(_kind(change.order), change.name, by=by)
        case RunNow():
            return await orders.fire_now(change.name, by=by)
    return None


def _kind(order: str) -> str:
    if order not in ("cron", "hook"):
        raise CallInvalid(f"There is no kind of order {order[:40]!r}.", todo="cron, or hook.")
    return order


async def _described(kernel: Kernel, agent: Described) -> Family:
    if not os.path.isabs(agent.manifest.folder):
        raise CallInvalid(
            "The agent's folder is no absolute path.",
            why="The kernel works in another folder than whoever asks.",
            todo="Use the `ring0` command of the same version.",
        )
    family = await kernel.describe(agent.manifest, agent.around)
    if agent.priority is None:
        return family
    manifest = msgspec.structs.replace(family.manifest, priority=agent.priority)
    return msgspec.structs.replace(family, manifest=manifest)
