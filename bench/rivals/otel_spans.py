"""A span through the OpenTelemetry SDK: what it costs whoever makes it, with the SDK's own batch
processor and an exporter that throws all away (so that no encoding and no network counts).

The attributes are what an event of ring0 says of a call. Prints one JSON object. Run by `ring0
bench journal` with the Python of `.venv-proof`.
"""

# mypy: disable-error-code="import-not-found, misc, untyped-decorator"

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

BATCH = 100


class _Nowhere(SpanExporter):
    def __init__(self) -> None:
        self.count = 0

    def export(self, spans: Any) -> Any:
        self.count += len(spans)
        return SpanExportResult.SUCCESS


def main() -> None:
    """argv: how many, and the attributes as JSON."""
    count, attributes = int(sys.argv[1]), json.loads(sys.argv[2])
    nowhere = _Nowhere()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(nowhere))
    tracer = provider.get_tracer("bench")
    own: list[float] = []
    process_s = 0.0
    for _ in range(count // BATCH):
        begun, all_begun = time.thread_time(), time.process_time()
        for number in range(BATCH):
            with tracer.start_as_current_span(f"execute_tool {number}") as span:
                span.set_attributes(attributes)
        own.append((time.thread_time() - begun) / BATCH)
        process_s += time.process_time() - all_begun
        time.sleep(0.02)  # As spans come in life: the batch processor keeps up, or drops.
    provider.shutdown()
    print(
        json.dumps(
            {
                "version": version("opentelemetry-sdk"),
                "own_s": own,
                "process_s": process_s / count,
                "exported": nowhere.count,
                "made": count,
            }
        )
    )


main()
