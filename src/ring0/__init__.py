"""ring0: an operating system for autonomous agents. What agent authors import, and nothing else.

The names arrive lazily, so that `import ring0` costs next to nothing (a sandbox starts often).
"""

from __future__ import annotations

TYPE_CHECKING = False  # mypy takes it for true; importing typing would be most of the cost

if TYPE_CHECKING:
    from ring0.sdk.children import Child
    from ring0.sdk.context import Answer, Context
    from ring0.sdk.declare import agent, tool
    from ring0.sdk.toolside import ToolContext

__version__ = "0.1.0"

__all__ = ["Answer", "Child", "Context", "ToolContext", "agent", "tool"]

_HOME = {
    "agent": "ring0.sdk.declare",
    "tool": "ring0.sdk.declare",
    "Answer": "ring0.sdk.context",
    "Child": "ring0.sdk.children",
    "Context": "ring0.sdk.context",
    "ToolContext": "ring0.sdk.toolside",
}


if not TYPE_CHECKING:  # else mypy would believe in every name

    def __getattr__(name):
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module 'ring0' has no attribute {name!r}")
        import importlib

        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
