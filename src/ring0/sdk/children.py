"""A run's children as its agent holds them: waited for one by one, all together, or in a race.

Each of these is one call, so what it came to is the same on every replay.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from ring0 import errors
from ring0.types import CallKind

Call = Callable[[CallKind, str, Any], Coroutine[Any, Any, Any]]
"""Makes one call: its id is fixed now, it is sent when awaited."""


class Child:
    """A run that this run has started."""

    def __init__(self, call: Call, run: str) -> None:
        self._call = call
        self.run: Final = run

    def wait(self) -> Coroutine[Any, Any, Any]:
        """The child's result once it has ended; its error is raised."""
        return self._call(CallKind.WAIT, "", {"run": self.run})

    def cancel(self) -> Coroutine[Any, Any, None]:
        """Ends the child and all beneath it; returns when they have. Nothing, if it had ended."""
        return _nothing(self._call(CallKind.WAIT, "", {"runs": [self.run], "cancel": True}))


def gather(
    call: Call, children: tuple[Child, ...], return_errors: bool
) -> Coroutine[Any, Any, list[Any]]:
    """The results of all, in their order, once all have ended."""
    if not children:
        raise errors.CallInvalid("There is no child to wait for.", todo="Give at least one.")
    asked = call(CallKind.WAIT, "", {"runs": [child.run for child in children]})
    return _results(asked, return_errors)


def first(
    call: Call, children: tuple[Child, ...], *, cancel: bool
) -> Coroutine[Any, Any, tuple[Child, Any]]:
    """The child that ended first, and its result or error (not raised)."""
    if not children:
        raise errors.CallInvalid("There is no child to wait for.", todo="Give at least one.")
    args = {"runs": [child.run for child in children], "first": True, "cancel": cancel}
    return _first(call(CallKind.WAIT, "", args), children)


async def _nothing(asked: Coroutine[Any, Any, Any]) -> None:
    await asked


async def _results(asked: Coroutine[Any, Any, Any], return_errors: bool) -> list[Any]:
    results = [_result(told) for told in await asked]
    failed = next((one for one in results if isinstance(one, errors.Ring0Error)), None)
    if failed is not None and not return_errors:
        raise failed
    return results


async def _first(asked: Coroutine[Any, Any, Any], children: tuple[Child, ...]) -> tuple[Child, Any]:
    told = (await asked)[0]
    winner = next(child for child in children if child.run == told["run"])
    return winner, _result(told)


def _result(told: dict[str, Any]) -> Any:
    if "error" not in told:
        return told["value"]
    error = told["error"]
    return errors.RunFailed(error["what"], why=error["why"], todo=error["todo"])
