"""The page of a report: a run and its children as HTML. Values in, bytes out.

Every word goes through `_words`; nothing that came from outside is ever an element, an attribute or
an address. What is not public is left out unless it is asked for, and the page says so.
"""

from __future__ import annotations

import base64
import hashlib
import html as escaping
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ring0 import __version__, limits
from ring0.cli import output, waterfall
from ring0.cli.output import safe
from ring0.cli.parts import answered, place, title
from ring0.cli.tree import Told
from ring0.store.rows import Head
from ring0.types import Approval, Call, CallState, Confidentiality, Outcome, Run, RunState

_STYLE: Final = """
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;
color:#1a1a1a;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #ddd}
code,pre{font:12px/1.45 ui-monospace,monospace;overflow-wrap:anywhere;white-space:pre-wrap}
pre{background:#f6f6f6;padding:.5rem;margin:.3rem 0}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;
padding:.2rem .6rem .2rem 0}th{font-weight:600;color:#555}
details{border-top:1px solid #eee;padding:.3rem 0}summary{cursor:pointer}
.ok,.done{color:#1a6b2d}.refused,.error,.failed,.cancelled{color:#a31515}
.unknown,.waiting,.intended{color:#8a5a00}.dim{color:#666}.child{margin-left:1.5rem}
svg{width:100%;height:auto;background:#fafafa}svg text{font:10px ui-monospace,monospace}
rect.ok,rect.done{fill:#4c9a62}rect.refused,rect.error,rect.failed,rect.cancelled{fill:#c44}
rect.unknown,rect.waiting,rect.intended,rect.running,rect.queued{fill:#d09a2c}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre,svg{background:#222}
.dim,th{color:#999}svg text{fill:#ccc}}
"""
_LEFT_OUT: Final = "It may quote what is not public, and is left out (--private)."
_ROW: Final = 14
_WIDTH: Final = 1_000
_NAMES: Final = 330


def html(told: Told, head: Head, now_us: int, *, private: bool) -> bytes:
    """The whole page. `head`: of the journal that it was made from."""
    parts = [*_head(told), *_summary(told, head, now_us), *_wrong(told, private)]
    parts += [*_drawn(told, now_us), *_costs(told)]
    parts.append("<h2>What happened</h2>")
    parts += _run(told, private, [limits.REPORT_CALLS_MAX])
    parts.append("</body></html>\n")
    return "".join(parts).encode("utf-8", "replace")


def _head(told: Told) -> Iterator[str]:
    own = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{own}'; base-uri 'none'; form-action 'none'"
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="referrer" content="no-referrer">'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>{_words(told.run.id)}</title><style>{_STYLE}</style></head><body>"


def _summary(told: Told, head: Head, now_us: int) -> Iterator[str]:
    run = told.run
    ends_us = run.ended_us or now_us
    waits = f" ({_words(run.waiting_for)})" if run.waiting_for else ""
    yield f"<h1>{_words(run.agent)} · {_words(run.id)} · {_state(run.state)}{waits}</h1>"
    if told.gone:
        yield f'<p class="unknown">{_words(told.gone)}</p>'
    yield f"<pre>{_words(told.task, limits.REPORT_VALUE_CHARS_MAX)}</pre>"
    budget = run.budget
    yield _table(
        ("for", f"{run.principal}, of {run.tenant}"),
        ("began", f"{output.moment(run.started_us)} UTC, took"
         f" {output.lasted(run.started_us, ends_us)}"),
        ("used", f"{run.calls_used} of {budget.calls} calls, {run.tokens_used:,} of"
         f" {budget.tokens:,} tokens, {output.money(run.cost_used_microusd)} of"
         f" {output.money(budget.cost_microusd)}"),
        ("had read", f"{run.label.integrity}, {run.label.confidentiality}"),
        ("agent's code", f"sha256 {run.agent_digest}"),
        ("mode", str(run.mode)),
        ("journal", f"{head.size:,} entries, root {head.root}, read {output.moment(now_us)} UTC by"
         f" ring0 {__version__}"),
    )  # fmt: skip
    yield (
        '<p class="dim">This page is a copy: <code>ring0 audit verify</code> and <code>ring0 audit'
        " prove</code> say whether the journal is what was written.</p>"
    )


def _wrong(told: Told, private: bool) -> Iterator[str]:
    """What a reader looks for first: the error, and the calls that were refused or failed."""
    yield "<h2>What went wrong</h2>"
    found = list(_failed(told))
    error = (told.result or {}).get("error")
    if error:
        said = f"{error.get('what', '')} {error.get('why', '')}"
        shown = said if _tells(told.run, None, private) else _LEFT_OUT
        yield f'<p class="failed">{_words(shown, limits.REPORT_VALUE_CHARS_MAX)}</p>'
    if not found and not error:
        ended = told.run.state is RunState.DONE
        yield f"<p>{'Nothing is on record.' if ended else 'Nothing so far.'}</p>"
        return
    yield "<ul>"
    for run, call, outcome in found[: limits.SPAN_LIST_MAX]:
        rules = ", ".join(reason.rule for reason in call.verdict.reasons)
        what = ((outcome.error if outcome else None) or {}).get("what", "")
        what = what if _tells(run, outcome, private) else _LEFT_OUT
        yield (
            f"<li>{_state(call.state)} <code>{_words(place(call.id))} {_words(title(call))}</code>"
            f" by {_words(rules)}: {_words(what, 600)}</li>"
        )
    yield "</ul>"
    if (more := len(found) - limits.SPAN_LIST_MAX) > 0:
        yield f"<p>and {more:,} more, below</p>"


def _failed(told: Told) -> Iterator[tuple[Run, Call, Outcome | None]]:
    for call, _, outcome in told.calls:
        if call.state in (CallState.REFUSED, CallState.ERROR, CallState.UNKNOWN):
            yield told.run, call, outcome
        if call.id in told.children:
            yield from _failed(told.children[call.id])


def _drawn(told: Told, now_us: int) -> Iterator[str]:
    """The waterfall, as a drawing of ours: numbers and escaped names."""
    rows = list(waterfall.rows(told, now_us))[: limits.WATERFALL_ROWS_MAX]
    from_us = min(row.begun_us for row in rows)
    whole_us = max(1, max(row.ended_us for row in rows) - from_us)
    yield f'<h2>When</h2><svg viewBox="0 0 {_WIDTH} {len(rows) * _ROW}" role="img">'
    room = _WIDTH - _NAMES - 90
    for number, row in enumerate(rows):
        begins = (row.begun_us - from_us) * room // whole_us
        long = max(2, (row.ended_us - row.begun_us) * room // whole_us)
        top = number * _ROW
        name = output.line(row.name, 50)
        took = output.lasted(row.begun_us, row.ended_us)
        yield (
            f'<text x="{4 + 8 * min(row.depth, 12)}" y="{top + 10}">{_words(name)}</text>'
            f'<rect class="{row.state}" x="{_NAMES + begins}" y="{top + 3}" width="{long}"'
            f' height="{_ROW - 5}"></rect>'
            f'<text x="{_NAMES + begins + long + 4}" y="{top + 10}">{_words(took)}</text>'
        )
    yield "</svg>"


def _costs(told: Told) -> Iterator[str]:
    yield "<h2>What it took</h2><table><tr><th>of</th><th>calls</th><th>tokens</th><th>cost</th>"
    yield "</tr>"
    for name, calls, tokens, cost in waterfall.costs(told)[: limits.SPAN_LIST_MAX]:
        yield f"<tr><td>{_words(name)}</td><td>{calls:,}</td><td>{tokens:,}</td>"
        yield f"<td>{output.money(cost)}</td></tr>"
    yield "</table>"


def _run(told: Told, private: bool, left: list[int]) -> Iterator[str]:
    """Its calls, one after the other. `left`: how many more are told, of all runs together."""
    for call, args, outcome in told.calls:
        if left[0] <= 0:
            yield "<p>More calls are on record: <code>ring0 show</code> tells them.</p>"
            return
        left[0] -= 1
        yield from _call(told, call, args, outcome, private)
        child = told.children.get(call.id)
        if child is not None:
            yield f'<div class="child"><h2>{_words(child.run.agent)} · {_words(child.run.id)} ·'
            yield f" {_state(child.run.state)}</h2>"
            task = child.task if _tells(child.run, None, private) else _LEFT_OUT
            yield f"<pre>{_words(task, limits.REPORT_VALUE_CHARS_MAX)}</pre>"
            yield from _run(child, private, left)
            yield "</div>"
    if told.files:
        yield "<h2>Files</h2><table>"
        for file in told.files:
            yield f"<tr><td><code>{_words(file.path)}</code></td>"
            yield f"<td>{file.size_bytes:,} bytes</td><td>{file.label.integrity}</td></tr>"
        yield "</table>"
    if told.result is not None and "value" in told.result:
        yield f"<h2>Result</h2>{_value(told.result['value'], told.run.label, private)}"


def _call(
    told: Told, call: Call, args: Any, outcome: Outcome | None, private: bool
) -> Iterator[str]:
    took = output.lasted(call.begun_us, call.ended_us) if call.ended_us else "no end on record"
    cost = f", {output.money(call.cost_microusd)}" if call.cost_microusd else ""
    yield (
        f"<details><summary>{_state(call.state)} <code>{_words(place(call.id))} #{call.seq}"
        f'</code> <b>{_words(title(call))}</b> <span class="dim">{_words(took)}{cost}</span>'
        "</summary>"
    )
    rows = [("verdict", str(call.verdict.kind))]
    tells = _tells(told.run, outcome, private)
    reasons = call.verdict.reasons
    rows += [(reason.rule, reason.text if tells else _LEFT_OUT) for reason in reasons]
    approval = told.approvals.get(call.approval)
    if approval is not None:
        rows.append(("approval", _answered(approval)))
    rows += [(f"{name} changed by", by) for name, by in call.edited.items()]
    rows += _came_to(outcome) if outcome is not None else ()
    if call.notice:
        rows.append(("told", call.notice))
    if call.undone_by:
        rows.append(("taken back by", call.undone_by))
    yield _table(*rows)
    if outcome is None:
        yield f"<p>{_words(told.gone)}</p></details>"
        return
    yield f"<p>asked with</p>{_value(args, told.run.label, private)}"
    if outcome.error is not None:
        said = f"{outcome.error.get('what', '')} {outcome.error.get('why', '')}"
        shown = said if tells else _LEFT_OUT
        yield f'<pre class="error">{_words(shown, limits.REPORT_VALUE_CHARS_MAX)}</pre>'
    elif call.state is CallState.OK:
        yield f"<p>came to</p>{_value(outcome.value, outcome.label, private)}"
    yield "</details>"


def _came_to(outcome: Outcome) -> Iterator[tuple[str, str]]:
    yield "what came of it", f"{outcome.label.integrity}, {outcome.label.confidentiality}"
    if outcome.label.sources:
        yield "from", ", ".join(outcome.label.sources)
    yield from (("found in it", f"{one.rule}: {one.shown}") for one in outcome.findings)


def _answered(approval: Approval) -> str:
    who = " and ".join(approval.yes_by) or approval.answered_by
    note = f": {approval.note}" if approval.note else ""
    return f"{approval.id}, {answered(approval)}{f' by {who}' if who else ''}{note}"


def _tells(run: Run, outcome: Outcome | None, private: bool) -> bool:
    """Words of ours quote values: they are told where what was read and what came back may be."""
    own = outcome.label.confidentiality if outcome is not None else Confidentiality.PUBLIC
    return private or run.label.confidentiality is own is Confidentiality.PUBLIC


def _value(value: Any, label: Any, private: bool) -> str:
    if label.confidentiality is not Confidentiality.PUBLIC and not private:
        return f'<p class="dim">It is {label.confidentiality}, and left out (--private).</p>'
    if isinstance(value, str):
        return f"<pre>{_words(value, limits.REPORT_VALUE_CHARS_MAX)}</pre>"
    shown = msgspec.json.format(msgspec.json.encode(value)).decode()
    return f"<pre>{_words(shown, limits.REPORT_VALUE_CHARS_MAX)}</pre>"


def _table(*rows: tuple[str, str]) -> str:
    cells = "".join(
        f"<tr><th>{_words(name, 120)}</th><td>{_words(value, 2_000)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def _state(state: Any) -> str:
    return f'<span class="{state}">{state}</span>'


def _words(text: str, most: int = 300) -> str:
    """Any text as text: nothing in it is markup, moves what is around it, or has no end."""
    cut = text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more)"
    return escaping.escape(safe(cut), quote=True)
