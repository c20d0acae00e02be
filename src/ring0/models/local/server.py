"""Inside the sandbox: `python -m ring0.models.local.server WEIGHTS`. One JSON body a line comes in,
its answer goes out in lines: {"chunk": …} of a chat completion's stream, then {"done": true}, or
{"error": …}.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, BinaryIO

CONTEXT_TOKENS = 4_096
THREADS_MAX = 4


def main(arguments: list[str]) -> int:
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # The library prints as it likes.
    server = _server(arguments[0])
    for line in sys.stdin.buffer:
        _answer(server, json.loads(line), out)
    return 0


def _server(weights: str) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    # Its threads wait for each other at work: where others use a core too, more of them are slower.
    params.cpuparams.n_threads = max(1, min(THREADS_MAX, len(os.sched_getaffinity(0)) // 2))
    params.warmup = False
    return xllamacpp.Server(params)


def _answer(server: Any, body: dict[str, Any], out: BinaryIO) -> None:
    errors: list[str] = []

    def piece(chunk: Any) -> bool:
        for one in chunk if isinstance(chunk, list) else [chunk]:
            if isinstance(one, dict) and "choices" in one:
                _say(out, {"chunk": one})
            elif isinstance(one, dict):
                errors.append(json.dumps(one.get("error", one)))
        return False  # Go on.

    try:
        server.handle_chat_completions(
            {**body, "stream": True, "stream_options": {"include_usage": True}}, piece
        )
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")
    _say(out, {"error": errors[0][:2_000]} if errors else {"done": True})


def _say(out: BinaryIO, value: dict[str, Any]) -> None:
    out.write(json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
