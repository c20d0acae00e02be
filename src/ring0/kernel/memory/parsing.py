"""A document's parser at work: a sandbox of its own for each file, with nothing in it but Python.

What it says is read as hostile (memory/documents/blocks.py). Not for remembering what comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from ring0 import limits
from ring0.errors import SandboxFailed
from ring0.kernel.sandboxes import Sandboxes
from ring0.memory import documents
from ring0.memory.documents import Passage
from ring0.runtime import Runtime
from ring0.tools.sandbox import SandboxLimits, SandboxSpec
from ring0.tools.sandbox.running import Ran, run

_PURPOSE: Final = "document"
_CODE: Final = """
import sys, types
import ring0
# The parsers need nothing of the packages above them, and a sandbox should not wait for numpy.
for name in ("memory", "memory.documents"):
    package = types.ModuleType("ring0." + name)
    package.__path__ = [ring0.__path__[0] + "/" + name.replace(".", "/")]
    sys.modules["ring0." + name] = package
from ring0.memory.documents.inside.main import main
main(sys.argv[1])
"""
_STOPPED: Final[Mapping[str, str]] = {
    "wall": f"reading it took longer than {limits.DOCUMENT_PARSE_S_MAX} s",
    "cpu": f"reading it took more than {limits.DOCUMENT_CPU_S_MAX} s of processor time",
    "memory": f"reading it took more than {limits.DOCUMENT_MEMORY_BYTES // limits.MIB} MiB",
    "output": "what is in it takes more than"
    f" {limits.DOCUMENT_OUTPUT_SIZE_BYTES_MAX // limits.MIB} MiB when it is unpacked",
    "disk": "its parser wrote files, which no parser does",
}


async def parse(
    sandboxes: Sandboxes, runtime: Runtime, name: str, parser: str, data: bytes
) -> list[Passage]:
    """The passages of a file. Raises DocumentUnreadable, SandboxUnavailable, SandboxFailed."""
    spec = SandboxSpec(
        code=_CODE,
        argv=(parser,),
        limits=SandboxLimits(
            memory_bytes=limits.DOCUMENT_MEMORY_BYTES,
            processes=limits.DOCUMENT_PROCESSES_MAX,
            tmp_bytes=limits.DOCUMENT_TMP_BYTES,
            cpu_s=limits.DOCUMENT_CPU_S_MAX,
        ),
    )
    sandbox = await sandboxes.start("kernel", spec, _PURPOSE)
    try:
        ran = await run(
            sandbox,
            runtime,
            stdin=data,
            wall_s=limits.DOCUMENT_PARSE_S_MAX,
            output_bytes=limits.DOCUMENT_OUTPUT_SIZE_BYTES_MAX,
        )
    finally:
        # A cancel must not leave it: whoever asked may go away, the sandbox goes too.
        await asyncio.shield(sandboxes.end(sandbox))
    _check(name, ran)
    # Megabytes of JSON and their passages are no work for the loop.
    return await runtime.in_thread(_read, name, ran.stdout)


def _read(name: str, said: bytes) -> list[Passage]:
    return documents.passages_of(name, documents.read(name, said))


def _check(name: str, ran: Ran) -> None:
    """Raises DocumentUnreadable, or SandboxFailed where it never came to its parser."""
    if ran.stopped:
        raise documents.unreadable(
            name,
            _STOPPED.get(ran.stopped, "its parser was stopped"),
            "Split the file, or give its text as .txt or .md.",
        )
    if ran.code == 0:
        return
    if ran.exit.signal is not None or ran.stdout:
        raise documents.unreadable(
            name,
            f"its parser died (exit code {ran.code})",
            "Look whether the file is damaged, or give its text as .txt or .md.",
        )
    last = documents.shown(ran.stderr[-2_000:].decode("utf-8", "replace"))
    raise SandboxFailed(
        f"The parser of {documents.shown(name)!r} did not start.",
        why=f"It ended with exit code {ran.code}: {last[-300:]}",
        todo="`ring0 doctor` looks at the sandbox; `pip install 'ring0[documents]'` has what the"
        " parsers need.",
    )
