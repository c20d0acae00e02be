"""Whether the principals that ring0.toml narrows are there: a misspelt one would narrow nobody.

Not here: how a principal is written (agent/config_identity.py), what its runs may ask for
(life/granting.py).
"""

from __future__ import annotations

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.identity import operator_name
from ring0.kernel.agent.config_identity import uid_of
from ring0.kernel.agent.manifests import Config
from ring0.store import Store
from ring0.store import events as ev
from ring0.store.sqlite import SqliteStore


async def check(config: Config, store: SqliteStore | None) -> list[str]:
    """What to warn of: those that may be there, and that nobody has been so far. Raises
    ManifestInvalid for one that nobody can be: another name of a uid, another issuer's login.
    Whoever has acted under a name before is known by it. `store`: None in a new folder."""
    doubtful = [name for name in config.principals if not _is_of_this_machine(name)]
    known = await _on_record(store) if doubtful and store is not None else set()
    warnings = []
    for name in doubtful:
        if name in known:
            continue
        _check_possible(name, config)
        warnings.append(
            f'ring0.toml: [principals."{name}"] narrows nobody so far: no run, login or order on'
            " record is of that name. If it is misspelt, it never will."
        )
    return warnings


def _is_of_this_machine(name: str) -> bool:
    uid = uid_of(name)
    return uid is not None and operator_name(uid) == name


def _check_possible(name: str, config: Config) -> None:
    uid = uid_of(name)
    if uid is not None:
        raise ManifestInvalid(
            f'ring0.toml: [principals."{name}"] is nobody here.',
            why=f"uid {uid} is called {operator_name(uid)!r}: runs of {name!r} are never begun,"
            " so it would narrow nothing.",
            todo="Write the name as `ring0 whoami` prints it.",
        )
    issuer = config.oidc.issuer if config.oidc else ""
    if not issuer or not name.endswith(f" ({issuer})"):
        raise ManifestInvalid(
            f'ring0.toml: [principals."{name}"] is nobody here.',
            why=f"Logins are of {issuer}." if issuer else "There is no [oidc]: nobody logs in.",
            todo="Write the name as `ring0 whoami` prints it: SUBJECT (ISSUER), with the issuer"
            " exactly as under [oidc].",
        )


async def _on_record(store: SqliteStore) -> set[str]:
    """Everybody that something was done for, or that has logged in."""
    found = {row.principal for row in await store.runs(most=limits.RUNS_LISTED_MAX)}
    found |= {order.principal for order in (*await store.crons(), *await store.hooks())}
    return found | await _logged_in(store)


async def _logged_in(store: Store) -> set[str]:
    return {
        entry.body.login.name
        async for entry in store.entries(ev.KERNEL)
        if isinstance(entry.body, ev.LoggedIn)
    }
