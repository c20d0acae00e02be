"""Tells the places of `[[notify]]` that a person is waited for. Nothing is answered there.

A message goes out until it is taken, or nobody is waited for any more: later and later, also after
the kernel was started anew, under the same id. The gate never waits for one. It holds no link: who
answers uses `ring0` or the console, and is known there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from ring0 import limits
from ring0.errors import Ring0Error
from ring0.identity import signing
from ring0.kernel.agent.config_notify import Place
from ring0.kernel.agent.printed import plain
from ring0.runtime import Runtime
from ring0.store import GuardFailed, Store, Write, base
from ring0.store import events as ev
from ring0.tools.egress import Egress
from ring0.tools.egress.request import canonical
from ring0.types import Approval, ApprovalState, Confidentiality, Run, Shown

_NOT_LATER = frozenset({408, 425, 429})
"""Of the answers that say it is the sender's fault, those that may be good in a moment."""


def _nobody(place: str, why: str) -> None:
    """Nobody listens."""


class Notifying:
    """Sends the messages of one kernel. `close` it."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        places: Sequence[Place],
        secret: Callable[[str], str],
        egress: Callable[[], Egress],
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._places = {place.name: place for place in places}
        self._secret = secret
        self._egress = egress
        self._at_once = asyncio.Semaphore(limits.NOTIFY_AT_ONCE_MAX)
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        """By approval and place."""
        self._left_out = False
        self._scan: asyncio.Task[None] | None = None
        self.failing: dict[str, str] = {}
        """Places that did not take the last message, and why."""
        self.failed: Callable[[str, str], None] = _nobody
        """(place, why): told when one begins to fail."""

    def asked(self, approval: Approval) -> None:
        """A new ask waits."""
        for name in self._places:
            if name in approval.told or (approval.id, name) in self._tasks:
                continue
            if len(self._tasks) >= limits.NOTIFY_WAITING_MAX:
                self._left_out = True
                return
            key = approval.id, name
            task = self._runtime.start(self._tell(approval.id, name), name=f"message {key}")
            self._tasks[key] = task
            task.add_done_callback(lambda _, key=key: self._over(key))  # type: ignore[misc]

    def begin(self) -> None:
        """What waits since before this kernel was started, and was not told."""
        if self._places and self._scan is None:
            self._scan = self._runtime.start(self._pending(), name="messages that were not sent")

    async def close(self) -> None:
        tasks = [*self._tasks.values(), *([self._scan] if self._scan else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self, key: tuple[str, str]) -> None:
        del self._tasks[key]
        if self._left_out and not self._tasks:
            self._left_out, self._scan = False, None
            self.begin()

    async def _pending(self) -> None:
        for approval in await self._store.approvals(states=[ApprovalState.PENDING]):
            self.asked(approval)

    # --- one message ----------------------------------------------------------------------------

    async def _tell(self, key: str, name: str) -> None:
        place, tries = self._places[name], 0
        while (approval := await self._waits(key)) is not None:
            async with self._at_once:
                why, later = await self._post(place, approval)
            if not why:
                self.failing.pop(name, None)
                await self._record(approval, name)
                return
            if name not in self.failing:
                self.failed(name, why)
            self.failing[name] = why
            await self._runtime.sleep(self._back_s(tries if later else limits.NOTIFY_TRIES_LAST))
            tries += 1

    async def _waits(self, key: str) -> Approval | None:
        approval = await self._store.approval(key)
        if approval is None or approval.state is not ApprovalState.PENDING:
            return None
        return approval if self._runtime.now_us() < approval.expires_us else None

    def _back_s(self, tries: int) -> float:
        """Twice as long each time, and not all at the same moment."""
        whole_s = limits.NOTIFY_BACK_S_FIRST << min(tries, limits.NOTIFY_TRIES_LAST)
        jitter = self._runtime.random_bytes(1)[0] / 255
        return min(whole_s, limits.NOTIFY_BACK_S_MAX) * (1 + jitter) / 2

    async def _post(self, place: Place, approval: Approval) -> tuple[str, bool]:
        """Why it was not taken (empty: it was), and whether it may be in a moment."""
        try:
            body = await self._body(approval)
            key = signing.key_of(self._secret(place.secret))
            if not key:
                return f"the secret {place.secret} is gone", False
            time = str(self._runtime.now_us() // 1_000_000)
            rule, ident = place.rule, f"msg_{approval.id}"
            signed = signing.signature(key, ident.encode(), time.encode(), body).decode()
            headers = [
                ("content-type", "application/json"),
                ("webhook-id", ident),
                ("webhook-timestamp", time),
                ("webhook-signature", signed),
            ]
            request = canonical(
                "POST",
                rule.scheme,
                rule.host,
                rule.port,
                place.target,
                headers,
                body,
                own_auth=True,
            )
            answer = await self._egress().send(request, rule, repeatable=True)
        except Ring0Error as error:
            return f"{error.what} {error.why}".strip()[:300], True
        if 200 <= answer.status < 300:
            return "", True
        if answer.status < 400:
            return f"it answers {answer.status}, and no redirect is followed", False
        later = answer.status >= 500 or answer.status in _NOT_LATER
        return f"it answers {answer.status}", later

    async def _record(self, approval: Approval, name: str) -> None:
        """So that the next kernel doesn't say it again. What is lost with a crash is told twice,
        under one id."""
        try:
            await self._store.append(
                Write(
                    run=approval.run,
                    guards=[base.ApprovalPending(approval=approval.id, or_expired=True)],
                    events=[ev.ApprovalTold(approval=approval.id, to=name)],
                )
            )
        except (GuardFailed, Ring0Error):
            pass  # It was answered meanwhile, or nothing can be written.

    async def _body(self, approval: Approval) -> bytes:
        shown = msgspec.json.decode(await self._store.blob(approval.shown), type=Shown)
        run = await self._store.run(approval.run)
        assert run is not None, "an ask is a run's"
        return message(approval, shown, run)


def message(approval: Approval, shown: Shown, run: Run) -> bytes:
    """What is posted, in the shape that Slack takes. Arguments, and what would change, are left out
    where the run has read what is not for everybody's eyes."""
    is_public = shown.run_label.confidentiality is Confidentiality.PUBLIC
    head = f"ring0 holds a call of {_line(shown.tool)}: {approval.id}"
    lines = [
        f"{_line(shown.title)}" if is_public else "(What it would do is shown by ring0 only.)",
        f"asked by {run.id}, agent {_line(run.agent)}, for {_line(run.principal)}",
    ]
    if approval.needs > 1:
        lines.append(f"{approval.needs} people have to say yes")
    if is_public:
        lines += [f"  {_line(name)} = {_value(value)}" for name, value in shown.arguments.items()]
        lines += [f"  would change {_line(change)}" for change in shown.dry_run]
    lines.append(f"the way back: {_line(shown.reversal)}")
    lines += [f"held by {_line(reason.rule)}: {_line(reason.text)}" for reason in shown.reasons]
    if len(lines) > limits.NOTIFY_LINES_MAX:
        lines = [*lines[: limits.NOTIFY_LINES_MAX - 1], "…"]
    lines.append(f"Answer it where it runs: ring0 approve {approval.id}, or ring0 deny")
    text = "\n".join(lines)[: limits.NOTIFY_TEXT_CHARS_MAX]
    section = {"type": "section", "text": {"type": "plain_text", "text": text, "emoji": False}}
    header = {"type": "header", "text": {"type": "plain_text", "text": head[:150]}}
    whole = {
        "text": _escaped(head),
        "blocks": [header, section],
        "unfurl_links": False,
        "unfurl_media": False,
    }
    return msgspec.json.encode(whole)


def _value(value: object) -> str:
    return _line(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _line(text: str) -> str:
    """A text from outside on one line, bounded."""
    most = limits.NOTIFY_LINE_CHARS_MAX
    flat = " ".join(plain(text[: 4 * most]).split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def _escaped(text: str) -> str:
    """Slack reads `<!channel>` and links in the plain text of a message."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
