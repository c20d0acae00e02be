"""What an agent hears where an MCP server wants another token: which, and what a person does.

More rights are never taken silently: a login has the scopes that a person agreed to, and no others.
"""

from __future__ import annotations

import shlex
from typing import Final

from ring0.errors import LoginWanted
from ring0.identity import challenges

_SHOWN_MAX: Final = 8


def refusal(
    instance: str, status: int, challenge: str, credential: str, login: str
) -> LoginWanted | None:
    """None where another token would not help. `challenge`: the server's own words
    (WWW-Authenticate). `credential`, `login`: what its request carried; empty: nothing, or what is
    no login."""
    said = challenges.read(challenge)
    if said.error == challenges.INSUFFICIENT:
        return _told(_wants_more(instance, said.scopes, credential, login))
    return None if status == 403 else _told(_wants_another(instance, credential, login))


def _told(error: LoginWanted) -> LoginWanted:
    error.tells_of_data = True  # The scopes are the server's own words.
    return error


def _wants_another(instance: str, credential: str, login: str) -> LoginWanted:
    if login:
        return LoginWanted(
            f"{instance} does not take the token of the login {login}.",
            why="The login has ended there, or the server has another login server now.",
            todo=f"`ring0 secret login {login}`",
            login=login,
        )
    if credential:
        return LoginWanted(
            f"{instance} does not take the credential {credential}.",
            why="It answers 401.",
            todo=f"Look at its secret in [credentials.{credential}] of ring0.toml.",
        )
    return LoginWanted(
        f"{instance} wants a credential, and there is none for it.",
        why="It answers 401.",
        todo="Name a login in ring0.toml, `[oauth.NAME]` with `mcp` as the server's address, and in"
        f' agent.toml, [tools.{instance}] secrets = ["NAME"]; then `ring0 secret login NAME`.',
    )


def _wants_more(instance: str, scopes: tuple[str, ...], credential: str, login: str) -> LoginWanted:
    shown = " ".join(scopes[:_SHOWN_MAX])
    if not login:
        return LoginWanted(
            f"{instance} refuses the credential{f' {credential}' if credential else ''}.",
            why=f"It wants {shown}." if scopes else "It says nothing more.",
            todo="Give it a credential that may do this.",
            scopes=scopes,
        )
    named = "".join(f" --scope={shlex.quote(scope)}" for scope in scopes[:_SHOWN_MAX])
    return LoginWanted(
        f"{instance} wants more than the login {login} was given{f': {shown}' if scopes else ''}.",
        why="More rights are given by a person, and never in the middle of a call.",
        todo=f"If this may be: `ring0 secret login {login}{named}`",
        login=login,
        scopes=scopes,
    )
