"""`derive`: a pure function of ours over values that the run gives, with the label of those values.

Each value is looked up in what the run has seen; what comes out is as good as the worst of them.
Only the values are known so, not who chose the function: in a run that has read untrusted data,
what a function makes anew is no better than the run (what it only selects could have been named
without it). Nothing that comes out is ever the user's own word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import CallInvalid, ManifestInvalid
from ring0.tools.deriving.computing import MAKING, SELECTING, Asked, compute
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.types import INTEGRITY_RANK, Effect, Integrity, Label, ToolManifest

DESCRIPTION: Final = (
    "Compute with values that were seen: sum, difference, product, quotient, percent, round, count;"
    " min, max, first, last, sort, filter (of records: `by` a field); add_time, time_between; join,"
    " format. The result keeps the labels of the values."
)
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "do": {"enum": [*MAKING, *SELECTING]},
        "values": {
            "type": "array",
            "maxItems": limits.DERIVE_VALUES_MAX,
            "description": "Numbers, texts, dates (`now` is the time of the call) or records.",
        },
        "by": {"type": "string", "maxLength": 256, "description": "A field of the records."},
        "equals": {"type": ["string", "number", "boolean", "null"]},
        "descending": {"type": "boolean"},
        "digits": {"type": "integer", "minimum": 0, "maximum": 20},
        "unit": {"enum": ["minutes", "hours", "days", "weeks", "months", "years"]},
        "text": {"type": "string", "maxLength": limits.DERIVE_TEXT_CHARS_MAX},
    },
    "required": ["do", "values"],
    "additionalProperties": False,
}
_NOW: Final = "now"
_LOOKED_UP_AT_ONCE: Final = 200
_MARKS: Final = re.compile(r"(?:\{[0-9]{1,3}\}|[\W_])*")
"""Of the text between values: what says nothing by itself."""


class Derive:
    """One instance of it, or the kernel's own kind of call."""

    def __init__(self, name: str) -> None:
        self.manifest = ToolManifest(
            name=name,
            description=DESCRIPTION,
            schema=SCHEMA,
            effect=Effect.PURE,
            output=Integrity.SYSTEM,  # Of its errors: they tell of nothing but its arguments.
        )

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        if sum(1 for _ in islice(_scalars(args["values"]), limits.DERIVE_VALUES_MAX + 1)) > (
            limits.DERIVE_VALUES_MAX
        ):
            raise CallInvalid(
                f"`derive` takes at most {limits.DERIVE_VALUES_MAX} values.",
                why="The fields of records count singly: each is looked up.",
                todo="Give fewer, or only the fields that count.",
            )
        return Prepared(driver_bytes=msgspec.json.encode(args, order="sorted"))

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        asked = msgspec.convert(args, Asked)
        now = _moment(context.begun_us)
        values = [now if value == _NOW else value for value in asked.values]
        value = compute(msgspec.structs.replace(asked, values=values))
        return Result(value=value, label=_label(asked, context), remember="", reads=False)


def _label(asked: Asked, context: CallContext) -> Label:
    """The worst of all that went in."""
    label = Label(
        integrity=Integrity.TRUSTED_FIELD, confidentiality=context.run.label.confidentiality
    )
    given = [leaf for leaf in _scalars(asked.values) if leaf != _NOW]
    if asked.equals is not None and not isinstance(asked.equals, bool):
        given.append(asked.equals)
    if not _MARKS.fullmatch(asked.text):
        given.append(asked.text)
    for at in range(0, len(given), _LOOKED_UP_AT_ONCE):
        part = {"values": given[at : at + _LOOKED_UP_AT_ONCE]}
        for origin in context.origins(part, ("values",)):
            level = origin.integrity if origin.sources else Integrity.UNTRUSTED
            label = label.join(Label(integrity=level, sources=origin.sources))
    if asked.do in MAKING:
        worse = max(label.integrity, context.run.label.integrity, key=INTEGRITY_RANK.__getitem__)
        label = msgspec.structs.replace(label, integrity=worse)
    return label


def _scalars(value: Any) -> Iterator[Any]:
    """What is looked up: every text and number in it. Names of fields choose nothing."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            stack.extend(reversed(list(item.values())))
        elif isinstance(item, list):
            stack.extend(reversed(item))
        elif item is not None and not isinstance(item, bool) and item != "":
            yield item


def _moment(now_us: int) -> str:
    return datetime.fromtimestamp(now_us // 1_000_000, UTC).isoformat()


def drivers(instance: str, config: Mapping[str, Any]) -> list[Derive]:
    """`[tools.NAME] use = "derive"`: one tool, `NAME.derive`. Raises ManifestInvalid."""
    if unknown := set(config) - {"use"}:
        raise ManifestInvalid(
            f"[tools.{instance}]: `derive` knows no setting {sorted(unknown)[0][:80]!r}.",
            todo="Take it out.",
        )
    return [Derive(f"{instance}.derive")]
