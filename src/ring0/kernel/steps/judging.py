"""What a decision is made of: manifest, dry run, the origins, the question to Cedar."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ring0.errors import CallDenied, CallInvalid
from ring0.governance import Policies, Question, approvals, reserved_key
from ring0.guardrails import Secrets, flows
from ring0.identity import narrowing
from ring0.identity.tokens import Scope
from ring0.kernel import values
from ring0.kernel.calls import proposals
from ring0.kernel.live import Held, LiveRun
from ring0.kernel.steps import editing, flowing, forks, scanning
from ring0.observability.telemetry import ids
from ring0.scheduler.loops import only_asked
from ring0.store import address
from ring0.tools.driver import CallContext, Prepared, Said, Within
from ring0.tools.registry import Tool
from ring0.types import (
    Approval,
    Call,
    CallKind,
    CallState,
    Effect,
    Origin,
    Request,
    Shown,
    Verdict,
    VerdictKind,
)

_STARTS = {CallKind.MODEL: "models", CallKind.SPAWN: "agents", CallKind.TOOL: "tools"}
AT_DOORS = (CallKind.PROPOSAL, CallKind.OBSERVED)
_WITHOUT_TARGETS = (CallKind.MODEL, CallKind.ASK)
"""A conversation came from everywhere; and of a run that asks a person, what it says is all."""
_CALLED = {CallKind.SPAWN: "child agent"}


def find(
    run: LiveRun,
    request: Request,
    kinds: Mapping[CallKind, Tool],
    within: Within | None = None,
    scope: Scope | None = None,
    said: Said | None = None,
) -> Tool:
    """The manifest of what is asked for, where the run's grants and the token that the call came
    with name it too. Raises CallDenied: what is not named is not there."""
    if request.kind in AT_DOORS:
        tool = _at_a_door(run, request, kinds, said)
        asked = narrowing.subject(CallKind.TOOL, request.name)
        left = request.kind is CallKind.OBSERVED or run.narrowed is None
        if not left and run.narrowed is not None and not run.narrowed.allows(asked):
            raise _not_granted(asked, "this run's grant", run.narrowed.told())
        return tool
    if request.kind is CallKind.MODEL and said is None and _is_of_a_door(request.args):
        raise CallDenied(
            "Nobody can ask a model in a provider's own words here.",
            why="What they hold is looked at by the door at which models are asked in them.",
            todo="Ask there, or with `messages` as the native API has them.",
        )
    tool = _in_manifest(run, request, kinds, within)
    if run.narrowed is not None or scope is not None:
        asked = narrowing.subject(request.kind, request.name)
        if run.narrowed is not None and not run.narrowed.allows(asked):
            raise _not_granted(asked, "this run's grant", run.narrowed.told())
        if scope is not None and not scope.allows(asked):
            raise _not_granted(asked, "the token", scope.told())
    return tool


def _is_of_a_door(args: object) -> bool:
    return isinstance(args, dict) and "dialect" in args


def _not_granted(asked: str, where: str, named: str) -> CallDenied:
    name = asked.removeprefix(narrowing.TOOL)
    return CallDenied(
        f"{name[:160]!r} is not in {where}.",
        why=f"Named there: {named}.",
        todo="Ask for what is named; only whoever gave it can give another.",
    )


def _at_a_door(
    run: LiveRun, request: Request, kinds: Mapping[CallKind, Tool], said: Said | None
) -> Tool:
    if said is None or not said.id:
        raise CallDenied(
            f"Nobody can ask for `{request.kind}`.",
            why="The door at which models are asked does, for what models propose.",
            todo="Ask a model.",
        )
    tool = run.tools.get(request.name)
    # One of the kernel's is carried out where the agent itself asks for it, never because a model
    # proposes it.
    if request.kind is CallKind.PROPOSAL and tool is not None and tool.manifest.where == "agent":
        return tool
    if request.kind is CallKind.PROPOSAL and said.offer is not None:
        return proposals.inferred(request.name, said.offer)
    return kinds[request.kind]


def _in_manifest(
    run: LiveRun, request: Request, kinds: Mapping[CallKind, Tool], within: Within | None
) -> Tool:
    if request.kind is CallKind.EGRESS:
        if within is None:
            raise CallDenied(
                "An agent has no network of its own.",
                why="Only the sandbox of a tool's call reaches out, to what that tool names.",
                todo="Use a tool that has `egress`.",
            )
        return kinds[request.kind]
    if request.kind is CallKind.TOOL:
        tool = run.tools.get(request.name)
        if tool is not None and tool.manifest.where == "agent":
            raise CallDenied(
                f"{request.name} lives in the agent's own process.",
                why="The kernel judges what models propose of it, and carries it out never.",
                todo="Call it in the agent.",
            )
        allowed: list[str] | None = sorted(run.tools)
    else:
        tool = kinds[request.kind]
        allowed = _names(run, request.kind)
        if allowed is not None and request.name not in allowed:
            tool = None
        if allowed is None and request.name:
            raise CallInvalid(f"{request.kind} takes no name.", todo="Leave `name` out.")
    if tool is None:
        raise CallDenied(
            f"There is no {_CALLED.get(request.kind, request.kind)} {request.name[:80]!r} for this"
            " agent.",
            why="What its manifest does not name is denied. It names: "
            f"{', '.join(allowed or ()) or 'none'}.",
            todo=f"Name it under `{_STARTS[request.kind]}` in the manifest, or ask for"
            " one that is there.",
        )
    return tool


def _names(run: LiveRun, kind: CallKind) -> list[str] | None:
    if kind is CallKind.MODEL:
        return sorted(run.models)
    if kind is CallKind.SPAWN:
        return sorted(run.agent.manifest.agents)
    return None


class Judged:
    """A call with its verdict, and all that it was judged by."""

    __slots__ = (
        "_bound_to",
        "_label",
        "args",
        "asked",
        "blobs",
        "decision",
        "held",
        "origins",
        "prepared",
        "question",
        "shown",
        "tool",
        "verdict",
    )

    def __init__(
        self,
        run: LiveRun,
        held: Held,
        tool: Tool,
        prepared: Prepared,
        origins: tuple[Origin, ...],
        question: Question,
        verdict: Verdict,
        secrets: Secrets,
        findings: tuple[str, ...] = (),
        beside: tuple[Origin, ...] = (),
    ) -> None:
        self.held = held
        self.tool = tool
        self.prepared = prepared
        self.origins = origins
        self.question = question
        self.verdict = verdict
        self._label = run.row.label
        self._bound_to = ""
        shown = Shown(
            title=_title(held, prepared),
            tool=held.name or held.kind,
            arguments=held.args,
            origins=origins,
            beside=beside,
            findings=findings,
            dry_run=prepared.lines,
            reversal=prepared.reversal or tool.manifest.reversal,
            run_label=run.row.label,
            reasons=verdict.reasons,
            approver=verdict.approver,
            edited=held.edited,
            before=editing.before(held),
        )
        # A dry run shows rows of the world as they are: a secret may be among them.
        plain, found = secrets.redact(msgspec.to_builtins(shown))
        self.shown = msgspec.convert(plain, Shown) if found else shown
        evidence = msgspec.json.encode({"question": question, "shown": _kept(held, self)})
        self.decision = address(run.key, evidence)
        self.args, blobs = run.lists.stored(run.key, held)
        """Of the canonical arguments, as they go on record."""
        self.blobs = {self.decision: evidence, **blobs}
        self.asked = ""
        """Of the agent's own arguments, where people changed some."""
        if held.asked_args is not None:
            stored = values.canonical(held.asked_args)
            self.asked = address(run.key, stored)
            self.blobs[self.asked] = stored

    @property
    def bound_to(self) -> str:
        """What a person's yes to it is a yes to. Most calls need none."""
        if not self._bound_to:
            self._bound_to = approvals.bound_to(
                self.held.id,
                self.tool.digest,
                self.prepared.driver_bytes,
                self._label,
                self.prepared.digest,
                request_digest=self.held.digest,
                verdict=self.verdict,
            )
        return self._bound_to

    @property
    def effect(self) -> Effect:
        return Effect(self.prepared.effect) if self.prepared.effect else self.tool.manifest.effect


def _kept(held: Held, judged: Judged) -> Shown:
    """What is kept of it as evidence. A conversation is long, is asked again with each turn, and is
    on record as the call's arguments: nobody was shown it where nobody was asked."""
    if held.kind is not CallKind.MODEL or judged.verdict.kind is VerdictKind.ASK:
        return judged.shown
    return msgspec.structs.replace(judged.shown, arguments={})


def _title(held: Held, prepared: Prepared) -> str:
    if prepared.title or not prepared.mutates:
        return prepared.title or f"{held.kind} {held.name}".strip()
    what = (
        f"{prepared.rows} row{'' if prepared.rows == 1 else 's'} in {', '.join(prepared.tables)}"
        if prepared.tables
        else "the world"
    )
    return f"{held.name} would change {what}"


async def judge(
    run: LiveRun, held: Held, context: CallContext, policies: Policies, secrets: Secrets
) -> Judged:
    """Prepares (a dry run, where it mutates), traces the arguments, and asks Cedar."""
    tool = held.tool
    assert tool is not None
    # A model may call a tool of no manifest anything, `proposal` too.
    is_tool = held.kind is CallKind.TOOL or (
        held.kind is CallKind.PROPOSAL and tool is run.tools.get(held.name)
    )
    if held.kind in (CallKind.TOOL, CallKind.PROPOSAL):
        _check_keys(held)
    prepared = await tool.driver.prepare(held.args, context)
    origins, flow = flowing.into(run, held, tool, prepared)
    manifest = held.within.tool if held.within else tool.manifest
    findings, severity = scanning.facts(held.findings)
    question = Question(
        tenant=run.row.tenant,
        principal=run.row.principal,
        agent=run.row.agent,
        run=run.id,
        action=CallKind.TOOL if is_tool else held.kind,
        resource=held.name,
        effect=manifest.effect,
        reversal=(prepared.reversal or manifest.reversal).partition(":")[0],
        mutates=prepared.mutates,
        own=prepared.own,
        changes_schema=prepared.changes_schema,
        forbidden=prepared.forbidden,
        rows=prepared.rows,
        tables=prepared.tables,
        run_integrity=run.row.label.integrity,
        untrusted_args=flow.untrusted,
        unfounded_args=flow.unfounded,
        unchosen_args=flow.unchosen,
        untrusted_urls=flow.untrusted_urls,
        private_args=flow.private,
        recipients=flow.recipients,
        removals=flow.removals,
        hinted=flow.hinted,
        chosen=flow.chosen,
        unattended=manifest.unattended,
        operator=run.agent.operator,
        depth=run.row.depth,
        calls_used=run.row.calls_used,
        cost_microusd=prepared.reserve_microusd,
        host=prepared.host,
        method=prepared.method,
        run_confidentiality=run.row.label.confidentiality,
        budget_left_calls=max(0, run.row.budget.calls - run.row.calls_used),
        budget_left_tokens=max(0, run.row.budget.tokens - run.row.tokens_used),
        budget_left_microusd=max(0, run.row.budget.cost_microusd - run.row.cost_used_microusd),
        args=policies.arguments(held.name, tool.digest, tool.manifest.schema, held.args)
        if is_tool
        else None,
        features=prepared.features,
        findings=findings,
        severity=severity,
    )
    verdict = policies.decide(question)
    effect = Effect(prepared.effect) if prepared.effect else tool.manifest.effect
    within = held.within.tool if held.within else None
    verdict = forks.asks(run.row, held.kind, effect, prepared, verdict, within)
    told = (*flows.told(flow), *scanning.lines(held.findings), *scanning.risks(run, prepared))
    asks = verdict.kind is VerdictKind.ASK and held.kind not in _WITHOUT_TARGETS
    return Judged(
        run,
        held,
        tool,
        prepared,
        origins,
        question,
        verdict,
        secrets,
        findings=told,
        beside=flowing.beside(run, held, tool) if asks else (),
    )


def _check_keys(held: Held) -> None:
    """Raises CallInvalid for a key that the policy engine reads as an entity, at any depth."""
    if not held.edited and b'"__e' not in held.canonical:
        return
    if key := reserved_key(held.args):
        raise CallInvalid(
            f"An argument of {held.name} has a field named {key!r}.",
            why="The policy engine gives that name a meaning of its own.",
            todo="Name the field otherwise, or send the value as text.",
        )


class Denied(CallDenied):
    """A no after the call was judged; carries what it was judged by, for the record."""

    def __init__(self, judged: Judged, error: CallDenied, approval: Approval | None = None) -> None:
        super().__init__(error.what, why=error.why, todo=error.todo)
        self.judged = judged
        self.approval = approval


def denied(judged: Judged) -> Denied:
    """Policy said no."""
    reasons = judged.verdict.reasons
    lines = judged.prepared.forbidden or "; ".join(
        line for line in judged.prepared.lines if not line.startswith(" ")
    )
    return Denied(
        judged,
        CallDenied(
            f"{judged.held.name or judged.held.kind} is refused"
            + (f": {lines}." if lines else "."),
            why=" ".join(f"{reason.text} [{reason.rule}]" for reason in reasons),
            todo="`ring0 policy explain` tells more; only its operator changes a policy.",
        ),
    )


def call_row(
    run: LiveRun, judged: Judged, approval: Approval | None, state: CallState, now_us: int
) -> Call:
    """The call as it goes on record."""
    held = judged.held
    return Call(
        id=held.id,
        run=run.id,
        seq=0,
        kind=held.kind,
        name=held.name,
        state=state,
        request_digest=held.digest,
        args=judged.args,
        asked=judged.asked,
        edited=held.edited,
        effect=judged.effect,
        verdict=judged.verdict,
        decision=judged.decision,
        approval=approval.id if approval else "",
        tool_digest=judged.tool.digest,
        undoes=judged.prepared.undoes,
        notice=held.notice,
        fingerprint=only_asked(held.asked) if held.asked else "",
        # Not of a refusal: those that are alike share a line, whatever their client says beside.
        traceparent=ids.good(held.traceparent) if state is CallState.INTENDED else "",
        begun_us=now_us,
    )
