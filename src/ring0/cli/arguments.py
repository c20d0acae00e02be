"""Arguments that are texts already are taken as they are, and those that are absent, too. Typer has
pydantic look at each, and loading that takes a third of the time that a command starts in. All
others typer reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from typer import core

_READER: Final = "build_runtime_param"
"""What typer makes of a parameter to read it with, when a command is given."""


class _AsItIs:
    """Reads one parameter; typer's own reader is made only where it is needed."""

    def __init__(self, descriptor: Any, build: Callable[[Any], Any]) -> None:
        self._descriptor = descriptor
        self._build = build

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        if self._descriptor.parameter_info.parser is None:
            if value is None:
                return () if param.multiple or param.nargs == -1 else None
            if self._descriptor.annotation is str and type(value) is str:
                return value
            if self._descriptor.annotation == list[str] and type(value) is tuple:
                return [*value]
        return self._build(self._descriptor).coerce(value, param, ctx)


def read_lightly() -> None:
    """From here on, for every command of this process. A typer that reads otherwise reads all."""
    build = vars(core).get(_READER)
    if build is not None:
        vars(core)[_READER] = lambda descriptor: _AsItIs(descriptor, build)
