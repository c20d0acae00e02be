"""Where a PostgreSQL database is and as whom it is used, by a manifest's word: no password."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from ring0 import errors

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_URL_OPTIONS: Final = ("host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey")


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """Where a database is and as whom it is used. Holds no password."""

    host: str
    port: int
    database: str
    user: str
    tls: dict[str, str] = {}
    role: str = ""
    """SET ROLE after the login; empty: the login's own."""
    functions: tuple[str, ...] = ()
    """`schema.name` of volatile functions that the operator lets statements call."""

    def __str__(self) -> str:
        return f"{self.database} on {self.host}"


def parse_url(url: str) -> Server:
    """`postgresql://user@host:port/database`. Raises ManifestInvalid, which never shows the url."""
    todo = 'Write `url = "postgresql://user@host:5432/database"`.'
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        port = parts.port
    except ValueError:
        raise errors.ManifestInvalid("The url of the database is not a url.", todo=todo) from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise errors.ManifestInvalid("The url is not one of a PostgreSQL server.", todo=todo)
    if parts.password is not None:
        raise errors.ManifestInvalid(
            "There is a password in the url of the database.",
            why="A manifest is no place for a secret: it is copied, shown and kept.",
            todo='Leave it out, name it: `password_secret = "NAME"`, and set that secret.',
        )
    options = dict(pairs)
    if unknown := [key for key, _ in pairs if key not in _URL_OPTIONS]:
        raise errors.ManifestInvalid(
            f"The url of the database has the option {unknown[0][:40]!r}.",
            why=f"There are: {', '.join(_URL_OPTIONS)}.",
            todo="Leave it out.",
        )
    host = options.pop("host", "") or unquote(parts.hostname or "")
    given = options.pop("port", "")
    user, database = unquote(parts.username or ""), unquote(parts.path.removeprefix("/"))
    bad = any("," in text or "\0" in text for text in (host, user, database))
    if not (host and user and database) or bad or (given and not given.isdecimal()):
        raise errors.ManifestInvalid("The url names no host, user or database.", todo=todo)
    if not host.startswith("/") and host not in _LOOPBACK:
        options.setdefault("sslmode", "verify-full")
        if options["sslmode"] == "verify-full":
            options.setdefault("sslrootcert", "system")
    number = int(given) if given else port or 5432
    return Server(host=host, port=number, database=database, user=user, tls=options)
