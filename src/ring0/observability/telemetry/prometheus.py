"""Numbers in the words of Prometheus (text format 0.0.4). Values in, bytes out.

Not here: which numbers there are (counting.py, kernel/telemetry/measuring.py), who may ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from ring0 import limits

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OTHER: Final = "other"
BUCKETS_S: Final = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0)
"""Upper ends of what calls take."""

Labels = tuple[tuple[str, str], ...]


class Family(msgspec.Struct, kw_only=True):
    """One metric, with a value for each set of labels. No label ever names a run, a call or a
    person: there would be one for each, for ever."""

    name: str
    help: str
    kind: Literal["gauge", "counter", "histogram"] = "gauge"
    values: dict[Labels, float] = msgspec.field(default_factory=dict)
    spreads: dict[Labels, Spread] = msgspec.field(default_factory=dict)
    """Of a histogram."""

    def set(self, value: float, **labels: str) -> None:
        self.values[tuple(labels.items())] = value

    def add(self, value: float, **labels: str) -> None:
        """What takes a label past its values is counted as `other`."""
        key = self._known(labels)
        self.values[key] = self.values.get(key, 0) + value

    def observe(self, seconds: float, **labels: str) -> None:
        self.spreads.setdefault(self._known(labels), Spread()).observe(seconds)

    def _known(self, labels: Mapping[str, str]) -> Labels:
        key = tuple((name, _plain(value)) for name, value in labels.items())
        kept = self.spreads if self.kind == "histogram" else self.values
        if key in kept or len(kept) < limits.METRICS_LABEL_VALUES_MAX:
            return key
        return tuple((name, OTHER) for name in labels)


class Spread(msgspec.Struct):
    """How values lie, in buckets."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * len(BUCKETS_S))
    count: int = 0
    sum: float = 0.0

    def observe(self, seconds: float) -> None:
        self.count += 1
        self.sum += seconds
        for place, end in enumerate(BUCKETS_S):
            if seconds <= end:
                self.counts[place] += 1


def text(families: Iterable[Family]) -> bytes:
    """All of them."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_help(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for labels, value in family.values.items():
            lines.append(f"{family.name}{_labels(labels)} {_number(value)}")
        for labels, spread in family.spreads.items():
            lines += _spread(family.name, labels, spread)
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def _spread(name: str, labels: Labels, spread: Spread) -> list[str]:
    found = [
        f"{name}_bucket{_labels((*labels, ('le', _number(end))))} {count}"
        for end, count in zip(BUCKETS_S, spread.counts, strict=True)
    ]
    found.append(f"{name}_bucket{_labels((*labels, ('le', '+Inf')))} {spread.count}")
    found.append(f"{name}_sum{_labels(labels)} {_number(spread.sum)}")
    found.append(f"{name}_count{_labels(labels)} {spread.count}")
    return found


def _labels(labels: Labels) -> str:
    said = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{said}}}" if said else ""


def _escaped(value: str) -> str:
    """None ends its quotes."""
    return _plain(value).replace("\\", "\\\\").replace('"', '\\"')


def _plain(value: str) -> str:
    """Names are an agent's own words: none ends its line, and none is long. Two that are shown
    alike are one: a sample that comes twice spoils the whole answer."""
    cut = value[: limits.METRICS_LABEL_CHARS_MAX]
    return "".join(one if one.isprintable() else "?" for one in cut.replace("\n", " "))


def _help(words: str) -> str:
    return words.replace("\\", "\\\\").replace("\n", " ")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
