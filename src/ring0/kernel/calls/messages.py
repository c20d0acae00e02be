"""Messages between the runs of a tree, and from a person to a run: the driver of `send`, receiving.

A message is a row from the write that records the sender's call, and is received in the write that
records the receiver's: each is told once, whatever crashes. What waits in memory here is only who
asks for the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ring0 import limits
from ring0.errors import (
    CallDenied,
    CallInvalid,
    InvalidInput,
    LimitReached,
    NotFound,
    RunDead,
)
from ring0.guardrails import Secrets
from ring0.kernel import values
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.steps.waiting import Waiting
from ring0.runtime import Runtime
from ring0.store import GuardFailed, Store, Write, address, base
from ring0.store import events as ev
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.types import ENDED, Effect, Integrity, Label, Message, Run, ToolManifest

_SYSTEM = Label(integrity=Integrity.SYSTEM)
_US = 1_000_000


class Mail:
    """The mailboxes of one kernel's runs."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        waiting: Waiting,
        secrets: Secrets,
        live: Mapping[str, LiveRun],
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._waiting = waiting
        self._secrets = secrets
        self._live = live
        self.wake: Callable[[str], None] = lambda run: None
        """Tells the kernel that something is there for a run that may have been put away."""
        self._count: dict[str, int] = {}
        """By receiver: messages that wait or are on their way."""
        self._on_way: dict[str, str] = {}
        """By the sender's call: the receiver."""
        self._taking: dict[str, tuple[str, int]] = {}
        """By the receiver's call: the message that it is about to have."""
        self._arrived: dict[str, asyncio.Event] = {}

    # --- sending ------------------------------------------------------------------------------

    async def send(self, context: CallContext, to: str, value: Any) -> Result:
        """Puts a message on its way: it is sent when the call's end is on record."""
        await self._receiver(context.run, to)
        await self._reserve(to)
        self._on_way[context.call] = to
        sender = self._live[context.run.id]
        body = values.canonical(value)
        where = address(sender.key, body)
        # A run's word is no principal's, whatever it has read.
        label = sender.row.label.join(Label(integrity=Integrity.UNTRUSTED))
        label = msgspec.structs.replace(label, sources=(f"run {sender.id}",))
        sent = ev.MessageSent(to=to, sender=sender.id, body=where, key_of=sender.id, label=label)
        return Result(value=None, label=_SYSTEM, events=(sent,), blobs={where: body})

    async def _receiver(self, sender: Run, to: str) -> Run:
        row = await self._store.run(to)
        if row is None or row.root != sender.root:
            raise CallDenied(
                f"{to[:40]!r} is no run of this tree.",
                why="A run tells its parents, children and their like, and nobody else.",
                todo="Use the id that `spawn` gave, or that a message came from.",
            )
        _check_goes_on(row)
        return row

    async def _reserve(self, to: str, more: int = 0) -> None:
        """A place in the mailbox. Raises LimitReached."""
        if to not in self._count:
            await self._store.flush()
            waiting = len(await self._store.messages(to))
            self._count.setdefault(to, waiting)
        if self._count[to] >= limits.MESSAGES_WAITING_MAX + more:
            raise LimitReached(
                f"{self._count[to]} messages wait for {to} already.",
                why="It does not receive as quickly as it is told.",
                todo="Wait until it has received some, then send again.",
            )
        self._count[to] += 1

    async def tell(self, to: str, text: str, by: str) -> None:
        """A person's word to a run. Raises NotFound, InvalidInput (it has ended), CallInvalid,
        LimitReached, RunDead."""
        values.check(text, what="The message")
        body = values.canonical(self._secrets.redact_text(text))
        _check_size(body)
        for _ in range(limits.MESSAGE_TOLD_TRIES_MAX):
            await self._store.flush()
            row = await self._store.run(to)
            if row is None:
                raise NotFound(f"There is no run {to[:40]!r}.", todo="`ring0 ps` lists them.")
            if row.state in ENDED:  # What a person asked for wrongly, as with pause and kill.
                raise InvalidInput(
                    f"{to} has ended already: it is {row.state}.",
                    why="An ended run receives nothing.",
                    todo="Start a new run, or tell another.",
                )
            await self._reserve(to, more=limits.MESSAGES_OF_PEOPLE_MAX)
            where = address(await self._store.run_key(to), body)
            label = Label(integrity=Integrity.USER, sources=(by,))
            sent = ev.MessageSent(to=to, sender=by, body=where, key_of=to, label=label)
            try:
                await self._store.append(
                    Write(
                        run=to,
                        events=[sent],
                        blobs={where: body},
                        durable=True,
                        guards=[base.RunLive(run=to, epoch=row.epoch)],
                    )
                )
            except GuardFailed:
                self._count.pop(to, None)
                continue  # It was started again, or has ended.
            except BaseException:
                self._count.pop(to, None)  # Counted anew from the rows.
                raise
            self._runtime.reached("message.told")
            return self._deliver(to)
        raise RunDead(f"{to} was started again and again.", todo="Send it once more.")

    # --- receiving ----------------------------------------------------------------------------

    async def receive(self, context: CallContext, timeout_s: float | None) -> Result:
        """The next message for the run of this call, once there is one. Raises LimitReached."""
        run = self._live[context.run.id]
        until_us = run.row.deadline_us
        if timeout_s is not None:
            until_us = min(until_us, context.begun_us + int(timeout_s * _US))
        message = await self._next(run, context.call)
        if message is None and self._runtime.now_us() < until_us:
            async with self._waiting.state(run, "message", until_us):
                message = await self._come(run, context.call, until_us)
        if message is None:
            raise LimitReached(
                f"No message came for {run.id} in time.",
                why=f"It waited for {timeout_s} s." if timeout_s is not None else "",
                todo="Receive again, or with a longer `timeout_s`.",
            )
        value = {
            "value": msgspec.json.decode(await self._store.blob(message.body)),
            "sender": message.sender,
            "number": message.number,
        }
        return Result(value=value, label=message.label, received=message.number)

    async def _come(self, run: LiveRun, call: str, until_us: int) -> Message | None:
        while True:
            arrived = self._arrived.setdefault(run.id, asyncio.Event())
            if (message := await self._next(run, call)) is not None:
                return message
            left_us = until_us - self._runtime.now_us()
            if left_us <= 0:
                return None
            try:
                await self._runtime.wait_for(arrived.wait(), left_us / _US)
            except TimeoutError:
                pass

    async def _next(self, run: LiveRun, call: str) -> Message | None:
        """The oldest that no other call of the run is about to have."""
        await self._store.flush()
        found = await self._store.messages(run.id)
        taken = {number for to, number in self._taking.values() if to == run.id}
        for message in found:
            if message.number not in taken:
                self._taking[call] = (run.id, message.number)
                return message
        return None

    # --- what became of it --------------------------------------------------------------------

    def recorded(self, call: str, events: Sequence[ev.AnyEvent], received: int) -> None:
        """A call's end is on record, and these with it."""
        for event in events:
            if isinstance(event, ev.MessageSent):
                self._runtime.reached("message.sent")
                self._on_way.pop(call, None)
                self._deliver(event.to)
        if received and call in self._taking:
            self._runtime.reached("message.received")
            to = self._taking[call][0]
            self._count[to] = max(0, self._count.get(to, 0) - 1)

    def give_back(self, held: Held) -> None:
        """The call is over, however it ended."""
        to = self._on_way.pop(held.id, None)
        if to is not None:
            # It was not sent; or it was, and its sender was stopped before it could say so.
            self._count.pop(to, None)
            self._deliver(to)
        taking = self._taking.pop(held.id, None)
        if taking is not None:
            self._ring(taking[0])  # Another call of the run may have it now.

    def forget(self, run: str) -> None:
        """The run has ended."""
        self._count.pop(run, None)
        self._arrived.pop(run, None)

    def _deliver(self, to: str) -> None:
        self._ring(to)
        self.wake(to)

    def _ring(self, run: str) -> None:
        """Who waits for a message here looks again."""
        if (arrived := self._arrived.pop(run, None)) is not None:
            arrived.set()


def _check_goes_on(row: Run) -> None:
    if row.state in ENDED:
        raise CallDenied(
            f"{row.id} has ended: it is {row.state}.",
            why="An ended run receives nothing.",
            todo="Start a new run, or tell another.",
        )


def _check_size(body: bytes) -> None:
    if len(body) > limits.MESSAGE_SIZE_BYTES_MAX:
        raise CallInvalid(
            f"The message has {len(body)} bytes.",
            why=f"At most {limits.MESSAGE_SIZE_BYTES_MAX} are taken.",
            todo="Put what is long into a file, and tell its name.",
        )


class Send:
    """`send`: tells another run of the tree something."""

    manifest = ToolManifest(
        name="send",
        description="Tell a run of the same tree something.",
        effect=Effect.IDEMPOTENT,
        schema={
            "type": "object",
            "properties": {"run": {"type": "string"}, "value": {}},
            "required": ["run", "value"],
            "additionalProperties": False,
        },
    )

    def __init__(self, mail: Mail) -> None:
        self._mail = mail

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        _check_size(values.canonical(args["value"]))
        return Prepared(driver_bytes=values.canonical(args))

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        return await self._mail.send(context, args["run"], args["value"])
