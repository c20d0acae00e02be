"""The words of ring0 as types: what the rooms say to each other. No behaviour beyond the words.

Times are microseconds since 1970 (UTC), money is micro-US-dollars, digests are lower-case hex.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final, Literal

import msgspec

from ring0 import limits


class Frozen(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Base of all values that cross a border between rooms."""


# --- labels ----------------------------------------------------------------------------------


class Integrity(enum.StrEnum):
    """Where a value came from, from most to least trusted."""

    USER = "user"
    """Typed by an authenticated principal."""
    SYSTEM = "system"
    """Made by the kernel: a clock, an id, a count."""
    TRUSTED_FIELD = "trusted-field"
    """A field of a tool's output that its manifest vouches for."""
    UNTRUSTED = "untrusted"
    """Everything else: files, mail, web pages, database text, what a model made of them."""


INTEGRITY_RANK: Final = {level: rank for rank, level in enumerate(Integrity)}


class Confidentiality(enum.StrEnum):
    """Who may see a value."""

    PUBLIC = "public"
    PRIVATE = "private"
    SECRET = "secret"  # noqa: S105


CONFIDENTIALITY_RANK: Final = {level: rank for rank, level in enumerate(Confidentiality)}


class Label(Frozen, frozen=True, kw_only=True):
    """Where a value came from and who may see it, with its sources."""

    integrity: Integrity
    confidentiality: Confidentiality = Confidentiality.PUBLIC
    sources: tuple[str, ...] = ()
    """Short names of where it came from: `task`, `crm.query@r-…/0/3`, `tickets/0104.txt`."""

    def join(self, other: Label) -> Label:
        """The label of what is derived from both: the worst of each, all sources (bounded)."""
        integrity = max(self.integrity, other.integrity, key=INTEGRITY_RANK.__getitem__)
        hidden = max(
            self.confidentiality, other.confidentiality, key=CONFIDENTIALITY_RANK.__getitem__
        )
        sources = tuple(dict.fromkeys(self.sources + other.sources))
        if len(sources) > limits.LABEL_SOURCES_MAX:
            sources = (*sources[: limits.LABEL_SOURCES_MAX - 1], "and more")
        return Label(integrity=integrity, confidentiality=hidden, sources=sources)

    @property
    def bare(self) -> Label:
        """Without its sources: how far down it is."""
        return Label(integrity=self.integrity, confidentiality=self.confidentiality)


FIELD_PATH: Final = (
    r"^(?:\*\*|(?:\*\*\.)?(?:(?:[^.\[\]*\x00-\x1f]{1,128}|\*)(?:\[[0-9]{0,6}\])*|(?:\[[0-9]{0,6}\])+)"
    r"(?:\.(?:[^.\[\]*\x00-\x1f]{1,128}|\*)(?:\[[0-9]{0,6}\])*)*)$"
)
"""How the path of a `FieldRule` is written. `guardrails/fields.py` reads it."""


class FieldRule(Frozen, frozen=True, kw_only=True):
    """What a manifest says of one field of a tool's output. Of integrity and of confidentiality the
    first rule counts that says something of it; a field that no rule names has the label of the
    whole output.

    What makes a field better counts for exactly the value that stands there; what makes it worse,
    for all beneath it too.
    """

    path: Annotated[str, msgspec.Meta(max_length=limits.FIELD_PATH_CHARS_MAX, pattern=FIELD_PATH)]
    """As `a.b[0].c`, where `[]` is any place of a list, `*` any one step, and a leading `**.` any
    way down: `[].sender`, `**.id`; `**` alone is everything."""
    integrity: Integrity | None = None
    """None: as the whole output's."""
    confidentiality: Confidentiality | None = None
    sanitiser: str = ""
    """Of a better integrity: only for what this lets through (`guardrails/sanitisers.py`), as
    `integer`, `one of open, closed`. Empty: for whatever stands there."""


# --- people ----------------------------------------------------------------------------------


class Role(enum.StrEnum):
    """What an operator may do. None holds another: an approver need not be able to start a run."""

    VIEWER = "viewer"
    """Looks: runs, calls, approvals, the journal."""
    OPERATOR = "operator"
    """Starts, pauses, resumes, kills and undoes runs, settles effects, gives orders and budget."""
    APPROVER = "approver"
    """Answers asks."""
    ADMIN = "admin"
    """Changes policies, roles, modes and secrets."""


class Operator(Frozen, frozen=True, kw_only=True):
    """A person at the controls, as the kernel found out who it is: never by what somebody says."""

    name: str
    """As it goes on record: `ada (uid 1000)`, `ada@example.com (https://login.example.com)`. One
    person has one, and no two have the same."""
    roles: frozenset[Role] = frozenset(Role)
    login: Literal["peer", "oidc"] = "peer"
    """`peer`: the uid at the other end of the socket; `oidc`: the subject of a login."""


class Login(Frozen, frozen=True, kw_only=True):
    """A row of the projection `login`: somebody who logged in, until that ends."""

    key: str
    """SHA-256 of the value that whoever logged in holds: the value itself is nowhere on record."""
    name: str
    """As `Operator.name`."""
    how: Literal["oidc", "code"]
    """By an issuer's word, or by the code that only the folder's owner could read."""
    uid: int
    """Of the process that logged in: of no other one is the value taken. -1: of any."""
    email: str = ""
    """As the issuer says it has verified it; to be shown, and for [roles]."""
    groups: tuple[str, ...] = ()
    """As the issuer said at the login."""
    begun_us: int
    expires_us: int


class Setting(Frozen, frozen=True, kw_only=True):
    """A row of the projection `setting`: what the operator's files said when they were last taken
    up."""

    name: str
    """`policy`, `profile`, `roles`, `oidc`; `code`: what has become of the first start's code;
    `secrets`: names and versions of the vault."""
    value: str
    """A digest, or the value itself where it is short."""
    by: str
    at_us: int


# --- agents, tools ---------------------------------------------------------------------------


class Effect(enum.StrEnum):
    """What a tool does to the world when it is run again."""

    PURE = "pure"
    IDEMPOTENT = "idempotent"
    ONCE = "once"


COMPENSABLE: Final = "compensable"
"""How a reversal begins that names the tool which takes a call back."""


class ToolManifest(Frozen, frozen=True, kw_only=True):
    """What the kernel knows of a tool before it is called. Pinned by `digest`."""

    name: str
    """`instance.operation` (`crm.query`) or the name of a `@tool` function."""
    description: str
    schema: dict[str, Any]
    """JSON Schema of the arguments: an object; unknown fields are refused."""
    effect: Effect
    reversal: str = "irreversible"
    """`reversible`, `compensable:<tool>` or `irreversible`."""
    version: str = "1"
    critical: tuple[str, ...] = ()
    """Arguments that choose a target: their origin is shown and judged."""
    statements: tuple[str, ...] = ()
    """Critical arguments that are text in a language: the agent may write one itself, and then its
    literals are judged; what a statement does, the driver finds out."""
    recipients: tuple[str, ...] = ()
    """Arguments that say to whom or where something goes: a person, an account, an address."""
    content: tuple[str, ...] = ()
    """Arguments whose text goes there."""
    settings: tuple[str, ...] = ()
    """Arguments that say how, and choose nothing: of an unattended call only these, and what the
    other words name, are not judged as critical."""
    removes: bool = False
    """It takes something away that `critical` names: what that is must be the user's choice."""
    unattended: bool = False
    """Where the user's own words choose all that a call of it does, nobody is asked."""
    output: Integrity = Integrity.UNTRUSTED
    confidentiality: Confidentiality = Confidentiality.PUBLIC
    """Of what it returns."""
    fields: tuple[FieldRule, ...] = ()
    """Of single fields of what it returns. Only results that our own driver produced have them."""
    egress: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    wall_s: Annotated[int, msgspec.Meta(ge=1)] = limits.TOOL_WALL_S_DEFAULT
    locks: tuple[str, ...] = ()
    """What a call touches, as templates over its arguments: `ticket:{id}`. A lock that another run
    holds on it keeps the call waiting; and two such calls never overlap."""
    polls: bool = False
    """It is meant to be asked again and again with the same arguments: a longer cap, no stop."""
    cost_microusd: Annotated[int, msgspec.Meta(ge=0)] = 0
    where: Literal["kernel", "agent"] = "kernel"
    """Who carries it out. What lives in the agent's own process the kernel can only judge, when a
    model proposes it."""
    code_digest: str = ""
    """Digest of the code that carries it out: a tool is more than its schema."""


class Budget(Frozen, frozen=True, kw_only=True):
    """What a run may use up. A child's is moved from its parent's."""

    calls: Annotated[int, msgspec.Meta(ge=1)] = limits.RUN_CALLS_DEFAULT
    tokens: Annotated[int, msgspec.Meta(ge=0)] = limits.RUN_TOKENS_DEFAULT
    """Of models, in and out together."""
    cost_microusd: Annotated[int, msgspec.Meta(ge=0)] = 0
    """0: nothing that has a price."""
    wall_s: Annotated[int, msgspec.Meta(ge=1)] = limits.RUN_WALL_S_DEFAULT
    children: Annotated[int, msgspec.Meta(ge=0)] = limits.RUN_CHILDREN_MAX
    """Runs beneath it, at any depth, in all."""
    depth: Annotated[int, msgspec.Meta(ge=0, le=limits.RUN_DEPTH_MAX)] = limits.RUN_DEPTH_MAX
    """Levels beneath it."""


class SandboxProfile(Frozen, frozen=True, kw_only=True):
    """The sandbox an isolated agent asks for."""

    tier: str = ""
    """The weakest that it may have; empty: as the operator's minimum."""

    read: tuple[str, ...] = ()
    """Host paths that it may read; each is named in the journal."""
    memory_bytes: int = limits.SANDBOX_MEMORY_BYTES_DEFAULT
    tmp_bytes: int = limits.SANDBOX_TMP_BYTES_DEFAULT
    processes: int = limits.SANDBOX_PROCESSES_DEFAULT


class ModelConfig(Frozen, frozen=True, kw_only=True):
    """One model that an agent may ask for, by the name it uses."""

    provider: str
    """`scripted`, `local`, or one of `models.OVER_HTTP`."""
    model: str = ""
    """As the provider calls it; `*`: as whoever asks calls it."""
    script: str = ""
    """For `scripted`: the rules' file, beside the manifest."""
    base_url: str = ""
    key: str = ""
    """The secret (of the vault, or a variable) that its provider takes as a key; empty: the
    provider's own, as `OPENAI_API_KEY`."""
    price_in_microusd_per_mtok: Annotated[int, msgspec.Meta(ge=0)] | None = None
    price_out_microusd_per_mtok: Annotated[int, msgspec.Meta(ge=0)] | None = None
    requests_per_min: Annotated[int, msgspec.Meta(ge=0, le=limits.RATE_PER_MIN_MAX)] = 0
    """What its provider takes; 0: not bounded here."""
    tokens_per_min: Annotated[int, msgspec.Meta(ge=0, le=limits.RATE_PER_MIN_MAX)] = 0
    fallback: tuple[str, ...] = ()
    """Names of the models that are asked in turn where this one does not answer."""


class Grant(Frozen, frozen=True, kw_only=True):
    """What the operator lets one `@tool` function of an agent's code do beyond its sandbox, and
    says of its arguments and of what it returns."""

    egress: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    critical: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    removes: bool = False
    unattended: bool = False
    confidentiality: Confidentiality = Confidentiality.PUBLIC
    fields: dict[str, str] = {}
    """By path, the label: `{"[].sender" = "trusted-field"}`. What the decorator says of them makes
    labels only worse."""


class MemorySettings(Frozen, frozen=True, kw_only=True):
    """What the kernel does with memory for an agent that knows nothing of it."""

    tools: bool = False
    """Tools of memory at the run's MCP door."""
    recall: int = 0
    """Records that are quoted into each question at the model doors; 0: none."""
    window_tokens: int = 0
    """What a conversation may have there; older turns make room. 0: as much as it has."""
    consolidate_after: int = 0
    """After so many new records; 0: not by their number."""
    consolidate_daily: bool = False
    consolidate_model: str = ""
    """Which of its models reads what is new, and states facts; empty: none."""


class AgentManifest(Frozen, frozen=True, kw_only=True):
    """An agent: how to start it, what it may ask for, its limits, its sandbox."""

    name: str
    entry: str = ""
    """`file.py:function` for the SDK; empty for a command."""
    command: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    """Files and folders, beside the manifest, that are its code: snapshotted, read-only inside."""
    tools: dict[str, dict[str, Any]] = {}
    """Built-in tools by instance: `{"crm": {"use": "sql", "database": "…"}}`."""
    functions: tuple[ToolManifest, ...] = ()
    """The `@tool` functions of its code."""
    grants: dict[str, Grant] = {}
    """By function: what its decorator may ask for of network and credentials."""
    models: dict[str, ModelConfig] = {}
    agents: tuple[str, ...] = ()
    """Names of `@agent` functions in its code that it may spawn."""
    imports: tuple[str, ...] = ()
    """Files and folders copied into each run's workspace at the start, labelled untrusted."""
    budget: Budget = Budget()
    priority: Annotated[int, msgspec.Meta(ge=0, le=limits.PRIORITY_LAST)] = limits.PRIORITY_DEFAULT
    """0 goes first. A child never goes before its parent."""
    sandbox: SandboxProfile = SandboxProfile()
    memory: MemorySettings = MemorySettings()
    folder: str = ""
    """Where the relative paths of this manifest begin."""


Profile = Literal["", "observe", "balanced", "strict"]
"""How strict the policies of a kernel are as a whole (docs/governance.md); empty: nobody said."""


# --- runs ------------------------------------------------------------------------------------

Only = tuple[str, ...]
"""A grant: the patterns that name what may be asked for. What none of them names may not be."""


class RunState(enum.StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


ENDED: Final = frozenset({RunState.DONE, RunState.FAILED, RunState.CANCELLED, RunState.UNKNOWN})
LIVE: Final = frozenset(RunState) - ENDED

RUN_TRANSITIONS: Final[dict[RunState, frozenset[RunState]]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, *ENDED}),
    RunState.RUNNING: frozenset({RunState.RUNNING, RunState.WAITING, *ENDED}),
    RunState.WAITING: frozenset({RunState.RUNNING, RunState.WAITING, *ENDED}),
    **{state: frozenset() for state in ENDED},
}
"""The legal transitions. `running` to `running` is a restart after a crash, with a new epoch."""


class Mode(enum.StrEnum):
    ISOLATED = "isolated"
    EMBEDDED = "embedded"


class Run(Frozen, frozen=True, kw_only=True):
    """A row of the projection `run`: one execution of an agent on a task, as it stands."""

    id: str
    state: RunState
    waiting_for: str = ""
    """While waiting: `approval`, `child`, `timer`, `lock`, `budget`, `message`, `pause`,
    `unknown` or `diverged`."""
    wake_us: int = 0
    """When it is to be looked at again though nothing happened; 0: never."""
    paused_by: str = ""
    """Who paused it; empty: nobody did."""
    forked: str = ""
    """The run that it, or a run above it, was forked from, and where: `r-…#12`. Empty: none."""
    erased: bool = False
    """Its values are gone for good; its events stand."""
    denials: int = 0
    """Of a root: how many asks of its tree people have denied in a row, since a run of it was
    resumed last. Of any other run: 0."""
    priority: int = limits.PRIORITY_DEFAULT
    parent: str = ""
    root: str
    depth: int = 0
    agent: str
    agent_digest: str
    """SHA-256 of the snapshot: manifest and code."""
    mode: Mode
    tenant: str
    principal: str
    task: str
    """Address of the blob that holds the task's text."""
    only: tuple[Only, ...] = ()
    """Its task's grant and those of the runs above it: each must name what it asks for."""
    traceparent: str = ""
    """The span, of whoever ordered it, that it belongs to (W3C trace context); its whole tree has
    the same. Empty: it begins a trace of its own."""
    epoch: int = 0
    """Raised at each start of the process and at the end: what is bound to an older one is dead."""
    label: Label
    label_version: int = 0
    budget: Budget
    calls_used: int = 0
    """As all that is used: settled, open reservations, and what was moved to children."""
    calls_lost: int = 0
    """Of them, those that a crash may have lost. From then on each is on disk before it begins."""
    tokens_used: int = 0
    cost_used_microusd: int = 0
    children_used: int = 0
    messages: int = 0
    """Sent to it so far."""
    kill_seen: int = 0
    started_us: int
    deadline_us: int
    ended_us: int = 0
    result: str = ""
    """Address of the result (done) or of the error (otherwise)."""
    events: int = 0
    stored_bytes: int = 0
    """Of its events' bodies and of the values that came with them."""


# --- calls -----------------------------------------------------------------------------------


class CallKind(enum.StrEnum):
    MODEL = "model"
    TOOL = "tool"
    MEMORY_APPEND = "memory.append"
    MEMORY_RECALL = "memory.recall"
    MEMORY_REMEMBER = "memory.remember"
    MEMORY_SUPERSEDE = "memory.supersede"
    MEMORY_FORGET = "memory.forget"
    MEMORY_EXPLAIN = "memory.explain"
    MEMORY_SET = "memory.set"
    MEMORY_COMPACT = "memory.compact"
    MEMORY_ASSEMBLE = "memory.assemble"
    SPAWN = "spawn"
    WAIT = "wait"
    SLEEP = "sleep"
    ASK = "ask"
    LOCK = "lock"
    SEND = "send"
    DERIVE = "derive"
    """A sum, the largest of several, a date: what comes of it keeps the labels of what it is made
    of."""
    NOW = "now"
    RANDOM = "random"
    PROPOSAL = "proposal"
    """A tool call that a model proposes to an agent which carries it out itself; only a model door
    asks for it."""
    OBSERVED = "observed"
    """What such a tool call came to, as the agent tells the next model; as above."""
    EGRESS = "egress"
    """A request that the sandbox of a tool's call makes; no agent can ask for one itself."""


class Request(Frozen, frozen=True, kw_only=True):
    """A call as it comes through a door, before the gate has looked at it."""

    kind: CallKind
    name: str = ""
    """The tool, the model or the agent; empty where the kind says it all."""
    args: Any = None
    """Parsed by `kernel.values.parse` (duplicate keys, NaN, … refused), not yet validated."""
    path: str = ""
    """Task path that the SDK gives; empty for a process that gives none."""
    counter: int = 0
    traceparent: str = ""
    """The span that its client says it asks in; where it is none, nothing."""


class VerdictKind(enum.StrEnum):
    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"


class Reason(Frozen, frozen=True, kw_only=True):
    """One rule that decided, and what it says to a person."""

    rule: str
    text: str


class Verdict(Frozen, frozen=True, kw_only=True):
    kind: VerdictKind
    reasons: tuple[Reason, ...]
    policy_digest: str = ""
    approver: tuple[str, ...] = ()
    """Of an ask: whom the rules that ask name (`@approver`), in their order."""
    approvers: Annotated[int, msgspec.Meta(ge=0, le=limits.APPROVERS_MAX)] = 0
    """Of an ask: how many people have to say yes (`@approvers`), none of whom is the one that the
    run acts for. 0: no rule says so: one, whoever it is."""
    expires_s: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of an ask: for how long it may be answered (`@expires`). 0: as long as usual."""


class UndoStep(Frozen, frozen=True, kw_only=True):
    """One call that an undo takes back, and how."""

    call: str
    name: str
    """The tool that it called."""
    how: Literal["files", "rows", "call"]
    """Files or rows are put back; or another tool is called, that the manifest names for it."""
    tool: str = ""
    """That other tool."""
    args: dict[str, Any] = {}
    """What it is called with."""
    from_result: tuple[str, ...] = ()
    """Of its arguments, those that come from what the call had returned."""
    refused: str = ""
    """Why it can't be taken back as things stand; empty: nothing is known to be in the way."""


class UndoLeft(Frozen, frozen=True, kw_only=True):
    """A call that changed the world, or may have, and that an undo does not take back."""

    call: str
    name: str
    why: str


class UndoPlan(Frozen, frozen=True, kw_only=True):
    """What an undo of a run and of all beneath it would do. Nothing else is claimed."""

    run: str
    steps: tuple[UndoStep, ...] = ()
    """In the order in which they are taken back."""
    left: tuple[UndoLeft, ...] = ()


class CallState(enum.StrEnum):
    REFUSED = "refused"
    INTENDED = "intended"
    OK = "ok"
    ERROR = "error"
    UNKNOWN = "unknown"


class Found(Frozen, frozen=True, kw_only=True):
    """What a scanner found in what a call sends or brings. Never the secret that it tells of."""

    rule: str
    """Kind and name: `secret/aws-access-key`, `link/query-carries-data`; or `not-scanned`."""
    where: str
    """The path of what it stands in; empty: the value itself."""
    severity: Annotated[int, msgspec.Meta(ge=1, le=4)]
    """1 low, 2 medium, 3 high, 4 critical."""
    sure: bool = False
    """A checksum fits, or a form that nothing else has."""
    shown: str = ""
    """What a person sees of it."""


class Outcome(Frozen, frozen=True, kw_only=True):
    """What a call came to: a value with its label, or an error. Recorded under the call id."""

    state: CallState
    value: Any = None
    label: Label
    error: dict[str, str] | None = None
    """`Ring0Error.as_dict()`."""
    notice: str = ""
    """What the kernel says beside it: that the run seems to be in a loop."""
    fields: tuple[FieldRule, ...] = ()
    """What of the value has another label than the whole: the first that fits counts."""
    findings: tuple[Found, ...] = ()
    """What scanners found in it, where nobody vouches for it."""
    mark: str = ""
    """Style and marker that a model is shown it with, where nobody vouches for it (spotlight)."""


class Call(Frozen, frozen=True, kw_only=True):
    """A row of the projection `call`."""

    id: str
    run: str
    seq: int
    """Of the event that opened it."""
    kind: CallKind
    name: str
    state: CallState
    request_digest: str
    args: str
    """Address of the canonical arguments, as it runs with them."""
    asked: str = ""
    """Address of the arguments that the agent asked with; empty: those."""
    edited: dict[str, str] = {}
    """Arguments that people changed before it ran, and who changed each."""
    effect: Effect
    verdict: Verdict
    decision: str
    """Address of what the verdict was made of."""
    approval: str = ""
    tool_digest: str = ""
    outcome: str = ""
    """Address of the `Outcome`."""
    undo: str = ""
    """Address of what takes it back; empty: nothing does."""
    undone_by: str = ""
    """The call that takes it back, from that one's intent on; until it is known to have failed."""
    undoes: str = ""
    """The call that this one takes back."""
    begun_us: int
    ended_us: int = 0
    cost_microusd: int = 0
    """While it is open: what is reserved for it, and what earlier tries may have cost."""
    tokens: int = 0
    """Likewise."""
    notice: str = ""
    """What the kernel told the run with it: that it seems to be in a loop."""
    fingerprint: str = ""
    """What was asked and what came of it, comparable in all runs of a tree (scheduler/loops.py)."""
    stream: str = ""
    """Address of the pieces in which a model's answer went out; empty: it went out whole."""
    traceparent: str = ""
    """The span that the agent says it was asked in. Its word, and nothing else: a link."""


# --- what the scheduler keeps of runs ---------------------------------------------------------


class CapUse(Frozen, frozen=True, kw_only=True):
    """What a call takes from a cap: a counter that a principal's runs share, all trees of them."""

    key: str
    """Names principal, tool, what is counted, resource and the window's length."""
    window: int = 0
    """Which window of that length: a later one begins at nothing. An earlier one than the counter
    has seen counts in the newest: a clock that was set back opens none."""
    amount: int
    most: int


class LockMode(enum.StrEnum):
    SHARED = "shared"
    EXCLUSIVE = "exclusive"


class Lock(Frozen, frozen=True, kw_only=True):
    """A row of the projection `lock`: a named resource that a run holds for a time."""

    tenant: str
    """Names are the tenant's own: two tenants' `table:customers` are two."""
    resource: str
    run: str
    mode: LockMode
    fence: int
    """Higher than that of whoever held it before: what comes with a lower one is late."""
    expires_us: int
    call: str
    """The call that took it."""


class Message(Frozen, frozen=True, kw_only=True):
    """A row of the projection `message`: what one run (or a person) tells another."""

    to: str
    number: int
    """Counts what `to` was sent, from 1."""
    sender: str
    """A run's id, or a principal's name."""
    body: str
    """Address of its JSON."""
    key_of: str = ""
    """The run under whose key the body lies; empty: under no key."""
    label: Label
    sent_us: int
    taken_by: str = ""
    """The call that received it; empty: it waits."""


# --- orders that stand: what starts runs by itself --------------------------------------------


class Schedule(Frozen, frozen=True, kw_only=True):
    """When: exactly one of an expression, a length of time, a moment."""

    expression: str = ""
    """The five fields of cron, read in `timezone`."""
    timezone: str = "UTC"
    every_s: int = 0
    at_us: int = 0


class Missed(enum.StrEnum):
    """What becomes of moments at which no kernel was at work."""

    SKIP = "skip"
    ONCE = "once"
    """One run for all of them."""
    ALL = "all"
    """A run for each, one after another, at most CRON_MISSED_MAX."""


class Overlap(enum.StrEnum):
    """What becomes of a moment at which the run before goes on still."""

    SKIP = "skip"
    QUEUE = "queue"
    """It waits for that end; several that wait become one run (with `Missed.ALL`: one each)."""


class HookScheme(enum.StrEnum):
    """What a delivery's signature covers, and which header holds it."""

    STANDARD = "standard"
    """Standard Webhooks: id, time and body, in `webhook-signature`."""
    GITHUB = "github"
    """The body alone, in `X-Hub-Signature-256`."""


class Order(Frozen, frozen=True, kw_only=True):
    """An agent as it was when the order was given, and the task of each run that it starts."""

    name: str
    version: int = 0
    """The seq of the event that set it: what was decided under another is void."""
    tenant: str
    principal: str
    """Who gave it: its runs are this principal's, with all caps and budgets."""
    agent: str
    agent_digest: str
    """Of the snapshot: what runs is what was there when it was given."""
    family: str
    """Address of the agent's family."""
    task: str
    """Address of the task's text."""
    source: str = ""
    """The file that was named, for a look at whether it has changed since."""
    manifest: str = ""
    """The manifest that was named; likewise."""
    said_digest: str = ""
    """Of what those two said."""
    set_us: int
    paused_by: str = ""
    last_run: str = ""
    runs: int = 0
    """How many it has started."""


class Cron(Order, frozen=True, kw_only=True):
    """A row of the projection `cron`: an order to start runs at times."""

    schedule: Schedule
    missed: Missed = Missed.SKIP
    overlap: Overlap = Overlap.SKIP
    done_us: int = 0
    """Every moment up to here has had its run, or will have none. It only ever rises."""
    skipped: str = ""
    """Why the newest moment that is dealt with had no run; empty: it had one."""


class Hook(Order, frozen=True, kw_only=True):
    """A row of the projection `hook`: an order to start a run for each delivery."""

    secret: str
    """The name of the secret that signs deliveries, in the vault."""
    scheme: HookScheme = HookScheme.STANDARD


# --- approvals -------------------------------------------------------------------------------


class ApprovalState(enum.StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    EDITED = "edited"
    """A person changed arguments: the call, as it is now, is judged and asked about anew."""
    DENIED = "denied"
    EXPIRED = "expired"
    REVOKED = "revoked"
    CONSUMED = "consumed"


class Approval(Frozen, frozen=True, kw_only=True):
    """A row of the projection `approval`: a human's answer to an ask, bound to the exact call."""

    id: str
    run: str
    call: str
    bound_to: str
    """Digest of (call id, tool digest, driver bytes, labels, dry-run digest)."""
    state: ApprovalState
    shown: str
    """Address of what the human is shown (`Shown`)."""
    policy_digest: str
    asked_us: int
    expires_us: int
    answered_us: int = 0
    answered_by: str = ""
    note: str = ""
    needs: Annotated[int, msgspec.Meta(ge=1, le=limits.APPROVERS_MAX)] = 1
    """How many people have to say yes."""
    apart: bool = False
    """The one whom the run acts for is none of them."""
    yes_by: tuple[str, ...] = ()
    """Who has said yes so far."""
    kind: CallKind = CallKind.TOOL
    tool_digest: str = ""
    request_digest: str = ""
    """Of what the agent asked for, as the call's own."""
    decision: str = ""
    """Address of what the verdict was made of."""
    label_version: int = 0
    """Of the run's label, when it was asked."""
    edits: str = ""
    """Address of what people changed of the arguments (`Edit`s); empty: nothing."""
    edition: int = 0
    """How often people had changed the arguments before it was asked, or a yes had been used for
    the call that a crash then cut off: a later one counts more than an earlier one."""
    under: str = ""
    """The standing approval that answered it."""
    told: tuple[str, ...] = ()
    """The places of `[[notify]]` that were told of it."""


class Edit(Frozen, frozen=True, kw_only=True):
    """One argument as a person changed it."""

    argument: str
    text: str
    """As it was typed: text where the tool's schema wants text, JSON otherwise."""
    by: str
    login: str
    """As `Operator.login`."""


class Terms(Frozen, frozen=True, kw_only=True):
    """How far a yes is to reach beyond the call that it is given to: this run, or for a time."""

    until_s: Annotated[int, msgspec.Meta(ge=0)] = 0
    """For so long, in every run that the same person starts of the same agent; 0: this run."""
    match: dict[str, str] = {}
    """Arguments that may differ, each with a pattern; every other one has to be equal."""


class Standing(Frozen, frozen=True, kw_only=True):
    """A row of the projection `standing`: a yes to calls that are yet to come, and its bounds."""

    id: str
    run: str
    """The run whose ask it was given to."""
    everywhere: bool = False
    """It counts in every run of this agent that the same principal starts; else in `run` alone."""
    tenant: str
    principal: str
    agent: str
    agent_digest: str
    tool: str
    tool_digest: str
    policy_digest: str
    rules: tuple[str, ...]
    """Those that asked. What others ask about, it does not answer."""
    pattern: str
    """Address of the arguments that it covers, under the key of `run`."""
    rows: int = 0
    """What a call may change at the most: as many rows as the one that it was given to."""
    tables: tuple[str, ...] = ()
    label: Label
    """The worst that a run may have read."""
    kill_seen: int
    """A kill since then ends it."""
    given_by: str
    given_us: int
    expires_us: int
    uses: int = 0
    revoked_by: str = ""
    revoked_us: int = 0


class Origin(Frozen, frozen=True, kw_only=True):
    """Where one part of an argument came from, as far as the kernel can tell."""

    argument: str
    value: str
    sources: tuple[str, ...]
    """Empty: from nowhere that the kernel has seen."""
    integrity: Integrity
    exact: bool = False
    """False: matched by text, a bound and not a proof."""
    chosen: str = ""
    """How the user's words choose a value that they do not hold: the record that they name, a
    superlative, arithmetic. Empty: they don't."""


class Shown(Frozen, frozen=True, kw_only=True):
    """What a human is shown of a held call: rendered by the kernel from what it knows itself."""

    title: str
    tool: str
    arguments: dict[str, Any]
    origins: tuple[Origin, ...] = ()
    """Of what chooses the target: judged."""
    beside: tuple[Origin, ...] = ()
    """Of the other arguments: only shown, to whoever is asked."""
    findings: tuple[str, ...] = ()
    """Lines: what of the arguments is the matter, and with which."""
    dry_run: tuple[str, ...] = ()
    """Lines: what would change, in every place."""
    reversal: str = ""
    run_label: Label
    reasons: tuple[Reason, ...] = ()
    approver: tuple[str, ...] = ()
    """Whom the rules that ask name."""
    edited: dict[str, str] = {}
    """Arguments that people changed, and who changed each."""
    before: dict[str, Any] = {}
    """Those arguments, as the agent asked with them."""
    takes: dict[str, str] = {}
    """What each argument takes, by the tool's schema: for whoever changes one. Of a call whose
    arguments nobody can change: nothing."""


class FileDelta(Frozen, frozen=True, kw_only=True):
    """One change of a workspace: `blob` empty means removed."""

    path: str
    blob: str = ""
    size_bytes: int = 0
    label: Label


class File(Frozen, frozen=True, kw_only=True):
    """A row of the projection `file`: a file of a run's workspace, as it stands."""

    path: str
    blob: str
    size_bytes: int
    label: Label


class Quarantine(Frozen, frozen=True, kw_only=True):
    """A row of the projection `quarantine`: a source that nothing is to rest on any more."""

    tenant: str
    source: str
    runs: dict[str, int]
    """Those that saw it, each with the seq from which on all that it did may come of it."""
    by: str
    at_us: int
    note: str = ""


# --- memory ----------------------------------------------------------------------------------

Owner = tuple[str, str, str]
"""Whose memory, over all runs: tenant, principal, agent."""


class Scope(Frozen, frozen=True, kw_only=True):
    """Whose memory. Required wherever memory is touched; there is no default and no wildcard."""

    tenant: str
    principal: str
    agent: str
    run: str | None
    """What that run wrote alone; None: of all its runs."""

    def __post_init__(self) -> None:
        if not (self.tenant and self.principal and self.agent) or self.run == "":
            raise ValueError("a scope names a tenant, a principal and an agent; a run or None")

    @property
    def owner(self) -> Owner:
        """Without its run."""
        return (self.tenant, self.principal, self.agent)


class MemoryKind(enum.StrEnum):
    EPISODE = "episode"
    """A turn or a result, as it was."""
    FACT = "fact"
    """Subject, predicate, value, and when it held."""
    DIRECTIVE = "directive"
    """A standing instruction of a person: never written through a run's handle."""
    PROCEDURE = "procedure"
    """How something is done: learnt by a run, and only proposed until a person approves it."""
    PASSAGE = "passage"
    """A part of a document."""
    SUMMARY = "summary"
    """What compaction made of turns."""


class RecordState(enum.StrEnum):
    CURRENT = "current"
    PROPOSED = "proposed"
    """A procedure that no person has approved."""
    RETIRED = "retired"


RECORD_TRANSITIONS: Final[dict[RecordState, frozenset[RecordState]]] = {
    RecordState.PROPOSED: frozenset({RecordState.CURRENT, RecordState.RETIRED}),
    RecordState.CURRENT: frozenset({RecordState.RETIRED}),
    RecordState.RETIRED: frozenset(),
}
"""How a person may settle a procedure or a directive."""


class NewRecord(Frozen, frozen=True, kw_only=True):
    """A record that is to be written (store/records.py makes the event of it)."""

    kind: MemoryKind
    text: str
    label: Label
    role: str = ""
    """`task`, `result`, `answer`, `note`, `failure`; of conversations: who spoke."""
    state: RecordState = RecordState.CURRENT
    happened_us: int = 0
    """When what it tells of happened; 0: when it was recorded."""
    key: str = ""
    """Within scope and kind: the same key again is the same record, and nothing new is written."""
    session: str = ""
    """The thread that it belongs to; empty: its act."""
    parents: tuple[str, ...] = ()
    """Records that it was made of."""
    subject: str = ""
    predicate: str = ""
    many: bool = False
    """The predicate has many values at once: none supersedes another."""
    valid_from_us: int = 0
    valid_to_us: int = 0
    """Of facts; 0: open."""
    document: str = ""
    place: str = ""
    """Of passages: `handbook.md`, and `Refunds > Limits, lines 12-30` or `p. 3`."""
    fingerprint: str = ""
    """Of failures: of what was tried."""


class Record(Frozen, frozen=True, kw_only=True):
    """What is remembered, as the store hands it out: scoped, labelled, with what it came of."""

    id: str
    """`<act>#<seq>`, or `<act>#<seq>.<n>` where an event wrote more than one (n from 1)."""
    kind: MemoryKind
    tenant: str
    principal: str
    agent: str
    act: str
    """The run that wrote it, or an operator's act (`m-…`): ingest, import, a directive."""
    seq: int
    """Of the event that wrote it, in the run's journal or the kernel's."""
    role: str
    """`task`, `result`, `answer`, `note`, `failure`; of conversations: who spoke."""
    text: str
    """Of a fact: the value."""
    label: Label
    at_us: int
    """When it was recorded."""
    happened_us: int = 0
    """When what it tells of happened; 0: when it was recorded."""
    by: str = ""
    """Who wrote it: the run's principal, or an operator."""
    key: str = ""
    session: str = ""
    """The thread that it belongs to; a run's own turns: the run."""
    parents: tuple[str, ...] = ()
    """Records that it was made of, as its writer says."""
    seen: tuple[str, ...] = ()
    """Records that its run had recalled before it wrote this, the newest RECORD_SEEN_MAX of them.
    Only `record` and `records_of` fill it in; `children_of` knows all of them."""
    subject: str = ""
    predicate: str = ""
    many: bool = False
    valid_from_us: int = 0
    valid_to_us: int = 0
    """When a fact held; 0: open."""
    superseded_us: int = 0
    superseded_by: str = ""
    state: RecordState = RecordState.CURRENT
    document: str = ""
    place: str = ""
    fingerprint: str = ""


class Step(Frozen, frozen=True, kw_only=True):
    """One step of a run's plan."""

    text: str
    status: Literal["todo", "doing", "done", "dropped"]
    label: Label
    seq: int = 0
    """How far the run's log had come."""


class Item(Frozen, frozen=True, kw_only=True):
    """One line of a run's working set."""

    text: str
    label: Label
    seq: int = 0


class WorkingSet(Frozen, frozen=True, kw_only=True):
    """What a model keeps of its run, beside what the kernel keeps of it (goal, ledgers)."""

    plan: tuple[Step, ...] = ()
    constraints: tuple[Item, ...] = ()
    questions: tuple[Item, ...] = ()


class Window(Frozen, frozen=True, kw_only=True):
    """A row of the projection `window`: where compaction stands in a run."""

    run: str
    upto_seq: int = 0
    """The summary tells of what was written up to here."""
    summary: str = ""
    """The record that tells it."""
    working: str = ""
    """Address of the `WorkingSet`; empty: none."""
    label: Label | None = None
    """Of the working set."""
    version: int = 0
    """Raised whenever any of it changes."""
    compactions: int = 0
    progress: str = ""
    """Digest of effects and plan, at the last compaction."""
    fruitless: int = 0
    """How many of the last compactions, in a row, found the same progress as the one before."""
