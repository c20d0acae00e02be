"""Vectors for a benchmark, from the very process that makes them for a kernel, without its sandbox.

Its CPU time is its own: measured from outside.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ring0.memory import embedding
from ring0.memory.embedding.offlinemodels import OfflineModel

_AT_ONCE = 16


class Vectors:
    """A process of one offline model. Raises LookupError where the model isn't installed."""

    def __init__(self, model: OfflineModel) -> None:
        files = model.files()
        if files is None:
            raise LookupError(model.name)
        told = [(str(one), hashlib.sha256(one.read_bytes()).hexdigest()) for one in files]
        server = Path(embedding.__file__).with_name("server.py")
        self._process = subprocess.Popen(
            [
                *(sys.executable, str(server), model.name),
                *(part for one in told for part in one),
                str(model.tokens_max),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Vectors:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    def of(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Of unit length, one a row."""
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        rows: dict[int, npt.NDArray[np.float32]] = {}
        for at in range(0, len(order), _AT_ONCE):
            places = order[at : at + _AT_ONCE]
            found = self._ask([texts[place] for place in places])
            rows |= dict(zip(places, found, strict=True))
        wide = np.stack([rows[place] for place in range(len(texts))])
        return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True), np.float32)

    def cpu_s(self) -> float:
        """That the process has used so far."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def _ask(self, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        assert pipe_in is not None and pipe_out is not None
        pipe_in.write(json.dumps({"texts": list(texts)}).encode() + b"\n")
        pipe_in.flush()
        found = []
        for _ in texts:
            line = json.loads(pipe_out.readline() or b'{"error": "it ended"}')
            if "error" in line:
                raise RuntimeError(line["error"])
            found.append(np.frombuffer(base64.b64decode(line["vector"]), "<f4"))
        return found
