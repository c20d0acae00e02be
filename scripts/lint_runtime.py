"""Holds time, randomness, ids, sleeping and threads behind `runtime.py` (and the store's writer).

Run by `make check`. It reads the code as a tree: a comment or a string can't trip it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "src" / "ring0"
FORBIDDEN_MODULES = {"time", "random", "uuid", "secrets", "threading", "_thread", "concurrent"}
FORBIDDEN_CALLS = {
    ("asyncio", "sleep"),
    ("asyncio", "to_thread"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("date", "today"),
    ("os", "urandom"),
    ("os", "getrandom"),
}
EXEMPT = {"runtime.py", "store/sqlite/writer.py"}


def faults(path: Path) -> list[str]:
    """What in one file reaches past the runtime, as `file:line: what`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        what = ""
        if isinstance(node, ast.Import):
            what = next((a.name for a in node.names if _first(a.name) in FORBIDDEN_MODULES), "")
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = _first(node.module or "")
            what = module if module in FORBIDDEN_MODULES else ""
            if (module, node.names[0].name) in FORBIDDEN_CALLS:
                what = f"{module}.{node.names[0].name}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            pair = (node.value.id, node.attr)
            what = ".".join(pair) if pair in FORBIDDEN_CALLS else ""
        if what:
            found.append(f"{path.relative_to(ROOT.parent)}:{node.lineno}: {what}")  # type: ignore[attr-defined]
    return found


def _first(module: str) -> str:
    return module.partition(".")[0]


def main() -> int:
    files = sorted(p for p in ROOT.rglob("*.py") if str(p.relative_to(ROOT)) not in EXEMPT)
    found = [fault for path in files for fault in faults(path)]
    for fault in found:
        print(f"{fault} belongs behind ring0.runtime")
    print(f"runtime lint: {len(files)} files, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
