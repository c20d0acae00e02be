"""What carries a call out: the interface between the gate and every driver, tools and all else.

A driver first *prepares*: it says what the call would do, without doing it (for a mutation, by a
dry run that is rolled back). Policy and approver judge that. Only then it *executes*, and it does
exactly what it prepared or refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from ring0.tools.sandbox.host import Sandbox, SandboxSpec
from ring0.tools.workspace import Workspace
from ring0.types import Frozen, Integrity, Label, Origin, Run, ToolManifest


class Prepared(Frozen, frozen=True, kw_only=True):
    """What a call would do, as its driver found out."""

    driver_bytes: bytes
    """The canonical arguments, as the driver will take them."""
    mutates: bool = False
    """Changes something outside the run's own workspace and memory."""
    own: bool = True
    """Touches only the run's own workspace and memory, or nothing."""
    changes_schema: bool = False
    forbidden: str = ""
    """What is out of bounds whatever the policy says; empty: nothing."""
    rows: int = 0
    tables: tuple[str, ...] = ()
    title: str = ""
    """What a human reads first; empty: the kernel says it by what the call would change."""
    lines: tuple[str, ...] = ()
    """The dry run, for a human."""
    digest: str = ""
    """Of the dry run; execution checks that it does the very same."""
    copies: bool = False
    """It writes values that it takes from elsewhere: who wrote them, nobody can tell."""
    reversal: str = ""
    """What the driver found; empty: as the manifest says."""
    effect: str = ""
    """What the driver found, where it is milder than the manifest's (a write that only reads)."""
    undoes: str = ""
    """The call that it takes back."""
    reserve_microusd: int = 0
    reserve_tokens: int = 0
    uncounted: bool = False
    """It only gives back what the run holds: no call of its budget, so that it never lacks one."""
    amounts: dict[str, int] = msgspec.field(default_factory=dict)
    """What a cap may count beside calls, money and tokens, as far as the driver can say how many:
    `rows`, `recipients`, …"""
    slots: tuple[str, ...] = ()
    """What it needs one of while it is carried out: `model:openai`, `sandbox`."""
    bucket: str = ""
    """Whose requests and tokens a minute it counts to; empty: nobody's."""
    bucket_tokens: int = 0
    """The estimate that it reserves there."""
    touches: tuple[str, ...] = ()
    """Named resources that it would change: `table:customers`, `file:/x`. A lock that another run
    holds on one of them keeps the call waiting."""
    features: tuple[str, ...] = ()
    """What a model's provider is asked for beyond an answer: `web_search`, `remote_image`, …"""
    host: str = ""
    """Where a request goes; empty for all that goes nowhere."""
    method: str = ""
    state: Any = None
    """The driver's own, handed back to `execute`."""


class FileChange(Frozen, frozen=True, kw_only=True):
    """A workspace file that a call wrote (or removed: value is None)."""

    path: str
    value: bytes | None
    label: Label | None = None
    """None: as the result's."""


class Result(msgspec.Struct, kw_only=True):
    """What a call came to."""

    value: Any
    label: Label
    undo: bytes = b""
    undoes: str = ""
    files: tuple[FileChange, ...] = ()
    cost_microusd: int = 0
    tokens: int = 0
    events: tuple[Any, ...] = ()
    """What goes on record in one write with the call's end: messages sent, a lock freed
    (`store.events`)."""
    blobs: dict[str, bytes] = {}
    """Values that these events name, by address."""
    received: int = 0
    """The number of the message that it took."""
    remember: str | None = None
    """Text for the episodes; None: the gate makes one for tools; empty: nothing."""
    remember_role: str = "result"
    remember_fingerprint: str = ""
    """Of a failure that is remembered: of what was tried."""
    recalled: tuple[str, ...] = ()
    """Ids of records that it brings the run: all that the run writes from here on may come of
    them."""
    reads: bool = True
    """It brings the run something; False: it is made of what the run holds already, and the run's
    own label stays."""
    files_of: str = ""
    """Whose workspace `files` belong to; empty: the caller's own."""


class Sandboxes(Protocol):
    """Starts a sandbox for a run, with its name in the journal before anything runs in it."""

    async def start(
        self,
        run: str,
        spec: SandboxSpec,
        purpose: str,
        before_go: Callable[[Sandbox], Awaitable[None]] | None = None,
    ) -> Sandbox: ...

    async def end(self, sandbox: Sandbox) -> None: ...


class Within(msgspec.Struct, kw_only=True):
    """One request of a tool's sandbox: a call of its own within the tool's call."""

    id: str
    """The request's own call id."""
    tool: ToolManifest
    rules: Any
    """What the tool may reach (`egress.Rules`)."""
    keeper: Any
    """Keeps the cookies and tokens of its answers (`egress.Keeper`)."""
    given: Any = None
    """What the request brought: too large for the journal, handed to who asked."""
    over: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    """The tool's call has ended: what has not gone out by now does not go out."""


class Offer(Frozen, frozen=True, kw_only=True):
    """What an agent's question to a model says of one of the agent's own tools."""

    description: str = ""
    schema: dict[str, Any] = msgspec.field(default_factory=dict)


class Said(msgspec.Struct, kw_only=True):
    """What a door of ours knows of a call beside what its client asks for. No client can say it."""

    id: str = ""
    """The call id, where the door gives it: it belongs to another call of the run."""
    normal: Any = None
    """The arguments without what differs on each start of the client; they stand for the arguments
    where a call without a path is named."""
    again: bool = False
    """The client asks for what it has asked for last, once more."""
    sink: Any = None
    """Takes the pieces of a model's answer as they come (`models.Sink`)."""
    offer: Offer | None = None
    """Of a proposal: what the question to the model says of the tool."""
    traceparent: str = ""
    """The span that its client says it asks in."""
    call: str = ""
    """Set by the gate: the call id, as soon as it has one."""


Origins = Callable[[Mapping[str, Any], Sequence[str]], tuple[Origin, ...]]
"""(arguments, the names of some) to where each value of those came from."""


def _nowhere(args: Mapping[str, Any], names: Sequence[str]) -> tuple[Origin, ...]:
    """Of a call beside any run: nothing has been seen."""
    return tuple(
        Origin(argument=name, value="", sources=(), integrity=Integrity.UNTRUSTED) for name in names
    )


class CallContext(msgspec.Struct, kw_only=True):
    """What a driver may know of the call that it carries out."""

    call: str
    """The call id: also the idempotency key."""
    name: str
    """Of the tool, the model or the agent that is asked for."""
    begun_us: int
    """When it was first asked for; stays while it waits for a human."""
    traceparent: str = ""
    """The call's own span, for whoever carries it out to hang theirs beneath it."""
    run: Run
    workspace: Workspace
    sandboxes: Sandboxes
    fences: Mapping[str, int] = msgspec.field(default_factory=dict)
    """Of the locks that the run took, by resource: a system outside can refuse what comes late."""
    notice: str = ""
    """What the kernel tells the model that is asked, beside what the agent sends."""
    operator: bool = False
    """A human operator's own call, not an agent's."""
    within: Within | None = None
    """The tool's call in whose sandbox this one was made: only `egress` has one."""
    sink: Any = None
    """Takes the pieces of a model's answer as they come (`models.Sink`); None: nobody does."""
    origins: Origins = _nowhere
    """Where values came from, by all that the run has seen."""


class Driver(Protocol):
    """Carries out one tool, or one kind of call."""

    manifest: ToolManifest

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        """What the call would do. Changes nothing. Raises CallInvalid, ToolFailed, …"""
        ...

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        """Does it. Raises ToolFailed if it failed cleanly, EffectUnknown if nobody can tell."""
        ...
