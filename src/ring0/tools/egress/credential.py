"""A secret that is put into a request on the far side, for one host, some methods and a path.

Where its value comes from is asked at each use: it may have changed since. It is in the bytes that
go out; never in a `repr`, an error or a log.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, NoReturn

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.tools.egress.headers import TOKEN, names_a_batch
from ring0.tools.egress.refusals import forbidden
from ring0.tools.egress.request import EgressRequest
from ring0.tools.egress.rules import Rule, parse_rule

Source = Callable[[Any], Awaitable[str]]
"""A credential's value for the call that it is used in (its `CallContext`; None: nobody's call)."""

_PLAIN: Final = re.compile(r"[\x20-\x7e]+")
_FORM: Final = re.compile(r"[\x20-\x7e]*\{(value|base64)\}[\x20-\x7e]*")
_HOLE: Final = re.compile(r"\{(value|base64)\}")


class Credential:
    """One secret and the operation that it is for.

    binding: a rule of the egress grammar (`POST https://api.example.com/v1/items`). Its words
    (`own_auth`, `tunnel`) and wildcards are not for credentials.
    form: how the header is written; `{value}`, or `{base64}` for what Basic wants.
    """

    __slots__ = ("_value", "binding", "form", "header", "name", "refused")

    def __init__(
        self,
        name: str,
        value: str | Source,
        binding: Rule,
        *,
        header: str = "Authorization",
        form: str = "Bearer {value}",
        refused: Callable[[str], None] | None = None,
    ) -> None:
        """Raises InvalidInput, without the value."""
        if isinstance(value, str):
            check_value(name, value)
        if not TOKEN.fullmatch(header) or not _FORM.fullmatch(form) or form.count("{") > 1:
            _bad(name, "its header or form is not one that HTTP knows")
        if header.lower() in ("host", "connection", "transfer-encoding", "content-length"):
            _bad(name, f"{header} is not a header for a credential")
        if binding.wildcard or binding.tunnel or binding.own_auth:
            _bad(name, "it is bound to one host, without `*.`, `tunnel` or `own_auth`")
        self.name = name
        self.binding = binding
        self.header = header.lower()
        self.form = form
        self.refused = refused
        """Told where the host did not take the value (401)."""
        self._value = value

    def __repr__(self) -> str:
        return f"Credential({self.name!r} for {self.binding.text!r})"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("A credential is not copied out of this process.")

    def fits(self, request: EgressRequest) -> bool:
        """This very operation is the one that it is for."""
        return self.binding.allows(request)

    def check(self, request: EgressRequest) -> None:
        """Raises CallDenied where the operation can't be told from the request."""
        if not names_a_batch(request.path, request.headers) or self._names_that_path(request):
            return
        raise forbidden(
            f"{request.host} gets no credential for this request.",
            why="It can hold many operations in one (GraphQL, a batch): no binding can tell which.",
            todo="Use the plain operation, or bind the credential to that very path.",
        )

    async def value(self, by: Any = None) -> str:
        """For this use of it, by the call of this context. Raises InvalidInput, and what its
        source raises."""
        if isinstance(self._value, str):
            return self._value
        value = await self._value(by)
        check_value(self.name, value)
        return value

    def rendered(self, value: str) -> str:
        """The header's value."""
        encoded = base64.b64encode(value.encode()).decode()
        # In one go: a value may hold `{base64}`.
        return _HOLE.sub(lambda hole: value if hole[1] == "value" else encoded, self.form)

    def forms(self, value: str) -> tuple[str, ...]:
        """What must not come back: the value, and the header that it was written into."""
        return value, self.rendered(value)

    def _names_that_path(self, request: EgressRequest) -> bool:
        return not self.binding.beneath and self.binding.path == request.path


def bind(
    name: str, value: str | Source, rule: str, place: str, **options: Any
) -> Credential:  # fmt: skip
    """A credential for what `rule` says. Raises ManifestInvalid, InvalidInput."""
    return Credential(name, value, parse_rule(rule, place), **options)


def check_value(name: str, value: str) -> None:
    """Raises InvalidInput for what no header can carry, without the value."""
    if len(value) < limits.SECRET_CHARS_MIN or not _PLAIN.fullmatch(value):
        _bad(name, f"its value is shorter than {limits.SECRET_CHARS_MIN} or no plain text")


def choose(credentials: Iterable[Credential], request: EgressRequest) -> Credential | None:
    """The first that is for this very operation."""
    return next((c for c in credentials if c.fits(request)), None)


def _bad(name: str, why: str) -> NoReturn:
    raise InvalidInput(
        f"The credential {name!r} can't be used.",
        why=f"As {why}.",
        todo='Bind it like `GET,POST https://api.example.com/v1/*` with header "Authorization".',
    )
