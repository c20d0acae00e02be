"""Spans to a receiver, until it has taken them: batches, pauses, and what is never taken.

What it does not like is sent in halves until one span is left; that one is left out and counted, so
that nothing stands in the way of the rest for ever. All else is sent again, later and later: a
receiver that is down loses nothing, since the journal keeps what it has not had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ring0 import limits
from ring0.errors import ToolFailed
from ring0.kernel.telemetry.sending import Answer, Sender
from ring0.observability.telemetry.spans import Span
from ring0.runtime import Runtime


def _nobody(why: str) -> None:
    """Nobody listens."""


class Delivery:
    """To one receiver."""

    def __init__(self, sender: Sender, runtime: Runtime, name: str) -> None:
        self._sender = sender
        self._runtime = runtime
        self._name = name
        self.sent = 0
        """Spans that it has taken."""
        self.refused = 0
        """Those that it will never take."""
        self.failing = ""
        """Why it took nothing last; empty: it did."""
        self.began_to_fail: Callable[[str], None] = _nobody
        self.left_out: Callable[[str], None] = _nobody
        """Told why a span is left out for ever."""

    async def deliver(self, spans: Sequence[Span], tries_max: int = 0) -> None:
        """Returns when all of them were taken or left out. `tries_max` 0: however long it takes.
        Raises ToolFailed after so many tries of one batch."""
        for batch in batches(spans):
            await self._batch(batch, tries_max)

    async def _batch(self, first: Sequence[Span], tries_max: int) -> None:
        left = [first]
        tries = 0
        while left:
            spans = left.pop()
            answer = await self._sender.send(spans)
            if answer.taken:
                self.sent += len(spans) - answer.refused
                self._refuse(answer.refused, answer.why)
                self.failing, tries = "", 0
            elif answer.unfit and len(spans) == 1:
                self._refuse(1, answer.why)
            elif answer.unfit:
                half = len(spans) // 2
                left += [spans[half:], spans[:half]]
            else:
                left.append(spans)
                tries += 1
                await self._later(answer, tries, tries_max)

    def leave_out(self, why: str) -> None:
        """A span that could not even be made."""
        self._refuse(1, why)

    def _refuse(self, count: int, why: str) -> None:
        if count:
            self.refused += count
            self.left_out(f"{count} of its spans: {why}")

    async def _later(self, answer: Answer, tries: int, tries_max: int) -> None:
        if not self.failing:
            self.began_to_fail(answer.why)
        self.failing = answer.why or "no reason was given"
        if tries_max and tries >= tries_max:
            raise ToolFailed(
                f"{self._name} does not take spans.",
                why=self.failing,
                todo="See [otlp] of ring0.toml and the receiver's own log; then export again: what"
                " it has had already adds nothing.",
            )
        whole_s = limits.OTLP_BACK_S_FIRST << min(tries - 1, 6)
        jitter = self._runtime.random_bytes(1)[0] / 255
        back_s = min(max(whole_s, answer.after_s), limits.OTLP_BACK_S_MAX)
        await self._runtime.sleep(back_s * (1 + jitter) / 2)


def batches(spans: Sequence[Span]) -> Iterator[Sequence[Span]]:
    """In their order, each of a size that goes out in one request."""
    found: list[Span] = []
    size = 0
    for span in spans:
        more = _size_bytes(span)
        full = len(found) >= limits.OTLP_BATCH_SPANS_MAX
        if found and (full or size + more > limits.OTLP_BATCH_SIZE_BYTES_MAX):
            yield found
            found, size = [], 0
        found.append(span)
        size += more
    if found:
        yield found


def _size_bytes(span: Span) -> int:
    """At least what it takes on the wire, whatever its letters are."""
    texts = [span.name, span.told]
    for key, value in span.attributes.items():
        texts += [key, *(value if isinstance(value, tuple) else (str(value),))]
    return 512 + sum(len(text.encode("utf-8", "replace")) + 16 for text in texts)
