"""The kernel's errors as an agent meets them: by their code, as the class that ring0.errors has."""

from __future__ import annotations

import pytest

from ring0 import errors
from ring0.sdk.door import error_of


def _kinds(kind: type[errors.Ring0Error]) -> list[type[errors.Ring0Error]]:
    own = [one for one in kind.__subclasses__() if one.__module__ == errors.__name__]
    return [kind, *(deeper for one in own for deeper in _kinds(one))]


@pytest.mark.parametrize("kind", _kinds(errors.Ring0Error), ids=lambda kind: str(kind.code))
def test_an_error_reaches_the_agent_as_its_own_class(kind: type[errors.Ring0Error]) -> None:
    body = {"code": kind.code, "what": "it can't be", "why": "because", "todo": "wait 3 s"}
    error = error_of(body)
    assert type(error) is kind
    assert (error.what, error.why, error.todo) == ("it can't be", "because", "wait 3 s")
