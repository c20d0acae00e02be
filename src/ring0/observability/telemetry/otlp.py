"""Spans as OTLP's bytes, and what a receiver answers (opentelemetry.proto.collector.trace.v1).

The messages are those of `opentelemetry-proto`, which their makers generate: it weighs little and
needs `protobuf` alone. Not their SDK: a span through it costs ten times what an entry of the
journal does, and it drops spans when its queue is full. Needs the extra `otel`; imported only by
who sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from ring0 import __version__, limits
from ring0.observability.telemetry import conventions
from ring0.observability.telemetry.spans import Span, Value

# Generated: they have no types that a checker knows.
_service: Any = import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
_trace: Any = import_module("opentelemetry.proto.trace.v1.trace_pb2")
_common: Any = import_module("opentelemetry.proto.common.v1.common_pb2")

METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
REQUEST: Final = _service.ExportTraceServiceRequest
RESPONSE: Final = _service.ExportTraceServiceResponse
_ERROR: Final = 2
_SAMPLED: Final = 1
_INT_MAX: Final = (1 << 63) - 1
"""A provider may say that it counted more."""


def request(spans: Sequence[Span], service: str, more: dict[str, str] | None = None) -> Any:
    """An ExportTraceServiceRequest. `service`: what this ring0 is called there; `more`: other
    attributes of it."""
    made = _service.ExportTraceServiceRequest()
    of_resource = made.resource_spans.add()
    said = {
        "service.name": service,
        "service.version": __version__,
        "telemetry.sdk.name": "ring0",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": __version__,
        **(more or {}),
    }
    of_resource.resource.attributes.extend(_pair(key, value) for key, value in said.items())
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name, of_scope.scope.version = "ring0", __version__
    of_scope.scope.attributes.append(_pair("ring0.conventions", conventions.VERSION))
    of_scope.spans.extend(_span(span) for span in spans)
    return made


def encoded(spans: Sequence[Span], service: str, more: dict[str, str] | None = None) -> bytes:
    """The same as the body of an HTTP request."""
    found: bytes = request(spans, service, more).SerializeToString()
    return found


def rejected(answer: Any) -> tuple[int, str]:
    """How many spans a receiver did not take, and why. `answer`: bytes, or the message. What is no
    answer says nothing: it took them, by its status."""
    if isinstance(answer, bytes):
        told = _service.ExportTraceServiceResponse()
        try:
            told.ParseFromString(answer)
        except Exception:  # protobuf's own, and of no library that is always there.
            return 0, ""
        answer = told
    partial = answer.partial_success
    return max(0, int(partial.rejected_spans)), str(partial.error_message)[:300]


def _span(span: Span) -> Any:
    made = _trace.Span(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        name=_bounded(span.name),
        kind=int(span.kind),
        start_time_unix_nano=span.start_us * 1_000,
        end_time_unix_nano=max(span.start_us, span.end_us) * 1_000,
        flags=_SAMPLED,
        attributes=[_pair(key, value) for key, value in span.attributes.items()],
    )
    for event in span.events:
        made.events.add(
            name=event.name,
            time_unix_nano=event.at_us * 1_000,
            attributes=[_pair(key, value) for key, value in event.attributes.items()],
        )
    for trace, other in span.links:
        made.links.add(trace_id=bytes.fromhex(trace), span_id=bytes.fromhex(other))
    if span.failed:
        made.status.code, made.status.message = _ERROR, _bounded(span.told)
    return made


def _pair(key: str, value: Value) -> Any:
    return _common.KeyValue(key=key, value=_value(value))


def _value(value: Value) -> Any:
    if isinstance(value, bool):
        return _common.AnyValue(bool_value=value)
    if isinstance(value, int):
        return _common.AnyValue(int_value=min(max(value, -_INT_MAX), _INT_MAX))
    if isinstance(value, tuple):
        values = [_value(one) for one in value]
        return _common.AnyValue(array_value=_common.ArrayValue(values=values))
    return _common.AnyValue(string_value=_bounded(value))


def _bounded(text: str) -> str:
    """As protobuf takes it: valid Unicode, and no longer than a span's text may be."""
    cut = text[: limits.SPAN_TEXT_CHARS_MAX]
    return cut.encode("utf-8", "replace").decode("utf-8")
