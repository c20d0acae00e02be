"""Orders that stand: given, paused, taken away, and the runs that they start.

A run that an order starts, and the word that the order has started it, are one transaction: a crash
leaves both or neither, and its id is made of what it is for, so that no second one can be. Not
here: when a moment has come (firing.py), what a delivery is and who sent it (gateway/hooks.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput, KernelBusy, NotFound, StoreDamaged, StoreFull
from ring0.guardrails import Secrets
from ring0.kernel import values
from ring0.kernel.agent import agents
from ring0.kernel.agent.agents import Agent, Family
from ring0.kernel.life.queueing import Beside
from ring0.runtime import id_of
from ring0.scheduler.timetable import Timetable
from ring0.store import GuardFailed, Store, Write, address, base
from ring0.store import events as ev
from ring0.types import (
    Cron,
    Frozen,
    Hook,
    HookScheme,
    Integrity,
    Label,
    Missed,
    Overlap,
    Run,
    Schedule,
)

NAME: Final = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{limits.ORDER_NAME_CHARS_MAX - 1}}}")
EVENT_FILE: Final = "event.json"
"""Where a run that a hook starts finds what was delivered."""
O = TypeVar("O", Cron, Hook)  # noqa: E741


class Told(Frozen, frozen=True, kw_only=True):
    """What a person says of an order, beside its agent."""

    name: str
    task: str
    source: str = ""
    manifest: str = ""
    said_digest: str = ""
    anew: bool = False
    """In place of the one of that name."""


class Orders:
    """The orders of one kernel."""

    def __init__(
        self,
        store: Store,
        secrets: Secrets,
        folder: Path,
        begin: Callable[..., Awaitable[Run]],
        check: Callable[[Agent], Awaitable[None]],
    ) -> None:
        """`folder`: of the snapshots. `begin`: Runs.begin. `check`: raises what keeps an agent from
        starting here."""
        self._store = store
        self._secrets = secrets
        self._folder = folder
        self._begin = begin
        self._check = check
        self.changed: Callable[[], None] | None = None
        """Is told when orders are not what they were. None: here nothing starts by itself."""

    # --- given and taken away -----------------------------------------------------------------

    async def set_cron(
        self,
        family: Family,
        told: Told,
        schedule: Schedule,
        *,
        principal: str,
        tenant: str,
        missed: Missed = Missed.SKIP,
        overlap: Overlap = Overlap.SKIP,
    ) -> Cron:
        """Raises InvalidInput, and what keeps its agent from starting here."""
        if missed is Missed.ALL and overlap is Overlap.SKIP:
            raise InvalidInput(
                "With missed `all` and overlap `skip`, the first run would shut out the others.",
                why="Missed moments get their runs one after another.",
                todo="Give overlap `queue` too.",
            )
        now_us = self._store.now_us()
        Timetable(schedule, now_us)
        if schedule.at_us and schedule.at_us <= now_us:
            raise InvalidInput("That moment is past.", todo="Name one that is to come.")
        before = await self._before(await self._store.crons(), told, _is_over)
        fields, blobs = await self._fields(family, told, principal, tenant, now_us)
        done_us = max(now_us, before.done_us if before else 0)
        cron = Cron(**fields, schedule=schedule, missed=missed, overlap=overlap, done_us=done_us)
        await self._write([ev.CronSet(cron=cron)], blobs=blobs)
        return await self.cron(told.name)

    async def set_hook(
        self,
        family: Family,
        told: Told,
        *,
        principal: str,
        tenant: str,
        secret: str,
        scheme: HookScheme,
    ) -> Hook:
        """Raises InvalidInput, and what keeps its agent from starting here."""
        await self._before(await self._store.hooks(), told)
        now_us = self._store.now_us()
        fields, blobs = await self._fields(family, told, principal, tenant, now_us)
        hook = Hook(**fields, secret=secret, scheme=scheme)
        await self._write([ev.HookSet(hook=hook)], blobs=blobs)
        return await self.hook(told.name)

    async def _before(
        self, there: Sequence[O], told: Told, over: Callable[[O], bool] = lambda _: False
    ) -> O | None:
        """The order of that name that is about to be replaced. Raises InvalidInput."""
        if not NAME.fullmatch(told.name):
            raise InvalidInput(
                f"{told.name[:40]!r} is no name for an order.",
                why=f"It has at most {limits.ORDER_NAME_CHARS_MAX} characters: a-z, 0-9 and . _ -",
                todo="Call it like nightly-report.",
            )
        before = next((order for order in there if order.name == told.name), None)
        if before is None and len(there) >= limits.ORDERS_MAX:
            raise InvalidInput(
                f"There are {limits.ORDERS_MAX} of them already.", todo="Remove one."
            )
        if before is not None and not told.anew and not over(before):
            raise InvalidInput(
                f"There is a {told.name} already, of agent {before.agent}.",
                todo="Give it another name, or add --force to put this one in its place.",
            )
        return before

    async def _fields(
        self, family: Family, told: Told, principal: str, tenant: str, now_us: int
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """What all orders hold, and the values of it."""
        values.check(told.task, what="The task")
        task = self._secrets.redact_text(told.task).encode()
        if len(task) > limits.TASK_SIZE_BYTES_MAX:
            raise InvalidInput(
                f"The task has {len(task)} bytes.",
                why=f"At most {limits.TASK_SIZE_BYTES_MAX} are taken.",
                todo="Put what is long into files of the workspace.",
            )
        agent = agents.snapshot(family, self._folder)
        await self._check(agent)
        encoded = msgspec.json.encode(family)
        blobs = {address(b"", value): value for value in (task, encoded)}
        fields = {
            "name": told.name,
            "tenant": tenant,
            "principal": principal,
            "agent": agent.manifest.name,
            "agent_digest": agent.digest,
            "family": address(b"", encoded),
            "task": address(b"", task),
            "source": told.source,
            "manifest": told.manifest,
            "said_digest": told.said_digest,
            "set_us": now_us,
        }
        return fields, blobs

    async def cron(self, name: str) -> Cron:
        """Raises NotFound."""
        return _found(await self._store.crons(), name, "cron")

    async def hook(self, name: str) -> Hook:
        """Raises NotFound."""
        return _found(await self._store.hooks(), name, "hook")

    async def _named(self, order: str, name: str) -> Cron | Hook:
        return await (self.hook(name) if order == "hook" else self.cron(name))

    async def pause(self, order: str, name: str, *, by: str, note: str = "") -> None:
        """Raises NotFound, InvalidInput."""
        row = await self._named(order, name)
        if row.paused_by:
            raise InvalidInput(f"{name} is paused already, by {row.paused_by}.", todo="Nothing.")
        await self._write([ev.OrderPaused(order=order, name=name, by=by, note=note)], order, row)

    async def resume(self, order: str, name: str, *, by: str) -> None:
        """What was missed meanwhile is dealt with by the cron's own rule. Raises NotFound,
        InvalidInput."""
        row = await self._named(order, name)
        if not row.paused_by:
            raise InvalidInput(f"{name} is not paused.", todo="Nothing.")
        await self._write([ev.OrderResumed(order=order, name=name, by=by)], order, row)

    async def remove(self, order: str, name: str, *, by: str) -> None:
        """The runs that it started go on. Raises NotFound."""
        row = await self._named(order, name)
        await self._write([ev.OrderRemoved(order=order, name=name, by=by)], order, row)

    async def killed(self, scope: str, target: str, *, by: str) -> None:
        """A kill of an agent, a tenant or all pauses what would start more of the same. On record
        before the kill is; a disk that is full keeps no kill back."""
        rows: list[tuple[str, Cron | Hook]] = [("cron", row) for row in await self._store.crons()]
        rows += [("hook", row) for row in await self._store.hooks()]
        for order, row in rows:
            names = {"agent": row.agent, "tenant": row.tenant, "all": target}
            if not row.paused_by and names.get(scope) == target:
                event = ev.OrderPaused(order=order, name=row.name, by=by, note=f"kill of {scope}")
                try:
                    await self._write([event], order, row)
                except (StoreFull, InvalidInput):
                    pass  # Then it starts no run either; or somebody else was quicker.

    async def _write(
        self,
        events: Sequence[ev.AnyEvent],
        order: str = "",
        row: Cron | Hook | None = None,
        blobs: dict[str, bytes] | None = None,
    ) -> None:
        guards = [_stands(order, row, paused=True)] if row else []
        if row is not None and not row.paused_by and isinstance(events[0], ev.OrderPaused):
            guards = [_stands(order, row)]
        write = Write(run=ev.KERNEL, events=events, guards=guards, blobs=blobs or {}, durable=True)
        try:
            await self._store.append(write)
        except GuardFailed as failure:
            raise InvalidInput(
                "Somebody else was quicker.", why=failure.detail, todo="Try again."
            ) from None
        if self.changed is not None:
            self.changed()

    # --- the runs that they start -------------------------------------------------------------

    async def fire(self, cron: Cron, due_us: int, skipped: int) -> Run:
        """The run for that moment. Raises GuardFailed (dealt with already, paused, given anew, or
        there is such a run), and what keeps it from starting."""
        run = id_of("r", _digest("cron", cron.tenant, cron.name, str(due_us)))
        event = ev.CronFired(cron=cron.name, version=cron.version, due_us=due_us, skipped=skipped)
        guards = (_stands("cron", cron, due_us=due_us), base.RunNew(run=run))
        return await self._start(cron, run, Beside(events=(event,), guards=guards))

    async def fire_now(self, name: str, *, by: str) -> Run:
        """A run that a person asks for, beside those that are due. Raises NotFound, KernelBusy,
        and what keeps it from starting."""
        if self.changed is None:
            raise KernelBusy(
                "No daemon serves this folder, so nobody would see the run through.",
                todo="Start one: `ring0 serve`.",
            )
        cron = await self.cron(name)
        event = ev.CronFired(cron=cron.name, version=cron.version, by=by)
        guards = (_stands("cron", cron, paused=True),)
        try:
            return await self._start(cron, "", Beside(events=(event,), guards=guards))
        except GuardFailed as failure:
            raise InvalidInput(
                f"{name} was changed just now.", why=failure.detail, todo="Try again."
            ) from None

    async def skip(self, cron: Cron, through_us: int, moments: int, why: str) -> None:
        """Puts on record that these moments get no run. Raises GuardFailed."""
        await self._store.append(
            Write(
                run=ev.KERNEL,
                guards=[_stands("cron", cron, due_us=through_us)],
                events=[
                    ev.CronSkipped(
                        cron=cron.name,
                        version=cron.version,
                        through_us=through_us,
                        moments=max(1, moments),
                        why=why[: limits.ORDER_WHY_CHARS_MAX],
                    )
                ],
                durable=True,
            )
        )

    def run_of(self, hook: Hook, delivery: str) -> str:
        """The id of the run for a delivery: the same delivery, the same run."""
        return id_of("r", _digest("hook", hook.tenant, hook.name, delivery))

    async def deliver(self, hook: Hook, delivery: str, body: bytes) -> Run:
        """The run for a delivery that was not there yet, its body in the workspace and labelled
        untrusted. Raises GuardFailed, and what keeps it from starting."""
        run = self.run_of(hook, delivery)
        label = Label(integrity=Integrity.UNTRUSTED, sources=(f"hook {hook.name}",))
        content = self._secrets.redact_text(body.decode()).encode()
        event = ev.HookFired(hook=hook.name, version=hook.version, delivery=delivery)
        beside = Beside(
            events=(event,),
            guards=(_stands("hook", hook), base.RunNew(run=run)),
            files=((EVENT_FILE, content, label),),
        )
        return await self._start(hook, run, beside)

    async def _start(self, order: Cron | Hook, run: str, beside: Beside) -> Run:
        family = msgspec.json.decode(await self._as_given(order.family), type=Family)
        task = (await self._as_given(order.task)).decode()
        agent = agents.restore(family, order.agent_digest, self._folder)
        await self._check(agent)
        return await self._begin(
            agent, task, principal=order.principal, tenant=order.tenant, run=run, beside=beside
        )

    async def _as_given(self, where: str) -> bytes:
        """A value of an order. Raises StoreDamaged where it is another than was put there."""
        found = await self._store.blob(where)
        if address(b"", found) != where:
            raise StoreDamaged(
                f"The value {where[:16]}… is not what it was.",
                why="It was changed behind the kernel's back.",
                todo="`ring0 audit verify` names what else was; give the order anew.",
            )
        return found


def _found(rows: Sequence[O], name: str, kind: str) -> O:
    for row in rows:
        if row.name == name:
            return row
    raise NotFound(f"There is no {kind} {name[:40]!r}.", todo=f"`ring0 {kind} list` names them.")


def _is_over(cron: Cron) -> bool:
    return 0 < cron.schedule.at_us <= cron.done_us


def _stands(
    order: str, row: Cron | Hook, *, due_us: int = 0, paused: bool = False
) -> base.OrderStands:
    return base.OrderStands(
        order=order, name=row.name, version=row.version, due_us=due_us, paused=paused
    )


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\n".join(parts).encode()).digest()[:8]
