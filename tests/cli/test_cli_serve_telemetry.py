"""A daemon tells others by itself: numbers where [metrics] says, spans where [otlp] says, and lines
with the trace that they belong to.
"""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cli_world import WAIT_S, World
from serving_world import daemon

pytest.importorskip("opentelemetry.proto.collector", reason="`make optional` installs it")
TOKEN = "0123456789abcdef0123"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def received() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a receiver, and what it got."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *given: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1/traces", bodies
    server.shutdown()
    thread.join()


def scraped(port: int, token: str) -> str:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return str(answer.read().decode())


def test_a_daemon_sends_spans_answers_prometheus_and_names_the_trace(
    tmp_path: Path, received: tuple[str, list[bytes]]
) -> None:
    url, bodies = received
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    w = World(tmp_path)
    w.home.mkdir(mode=0o700, exist_ok=True)
    w.environment["SCRAPE"] = TOKEN
    (w.home / "ring0.toml").write_text(
        f'[otlp]\nendpoint = "{url}"\n[network]\nallow_private = ["127.0.0.1/32"]\n'
        f'[metrics]\nlisten = "127.0.0.1:{port}"\ntoken = "SCRAPE"\n'
    )
    w.environment["TRACEPARENT"] = f"00-{TRACE}-00f067aa0ba902b7-01"
    with daemon(w, "--json") as d:
        d.says("answers Prometheus at")
        assert w.ring0("run", "agent.py:plain", "hi").code == 0
        d.says("has ended: done")
        ends = time.monotonic() + WAIT_S
        while b"invoke_agent plain" not in b"".join(bodies):
            assert time.monotonic() < ends, d.log
            time.sleep(0.05)
        assert bytes.fromhex(TRACE) in b"".join(bodies), "it is part of whoever ordered it"
        numbers = scraped(port, TOKEN)
        assert 'ring0_runs_ended_total{agent="plain",state="done"} 1' in numbers
        with pytest.raises(urllib.error.HTTPError, match="401"):
            scraped(port, "x")
        lines = [json.loads(line) for line in d.lines if line.startswith("{")]
        of_run = [line for line in lines if line["run"]]
        assert of_run and {line["trace_id"] for line in of_run} == {TRACE}
        assert TOKEN not in d.log
