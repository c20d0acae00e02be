"""Tokens: a run's right to call, or a part of it, in the hands of another process (Biscuit).

A token can be narrowed by whoever holds it, without the kernel; it lives no longer than the epoch
of its run. Signature and scope are checked once, liveness on every call. Not here: the door at
which tokens are shown (gateway/calls.py), and what a grant is (narrowing.py).
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import biscuit_auth as biscuit
import msgspec

from ring0 import limits
from ring0.errors import InvalidInput, LimitReached, TokenDead, TokenInvalid
from ring0.identity.blocks import are_cheap
from ring0.identity.handles import Handles
from ring0.identity.keys import Held, Key, Keys
from ring0.types import Only

START: Final = "r0"
_EXPIRY: Final = re.compile(r"check if time\(\$time\), \$time <= ([0-9TZ:-]{20})")
_BEFORE: Final = "check if time($time), $time <= {before}"
_FAULTS: Final = (
    biscuit.BiscuitValidationError,
    biscuit.BiscuitSerializationError,
    biscuit.BiscuitBlockError,
    biscuit.BiscuitBuildError,
    biscuit.DataLogError,
    ValueError,
)


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """A token that this kernel gave out."""

    id: str
    """Digest of its revocation id; it opens nothing."""
    run: str
    epoch: int
    only: Only
    expires_us: int


class Scope:
    """What one token lets its bearer ask for, and whether it still does."""

    def __init__(
        self, tokens: Tokens, token: biscuit.Biscuit, ids: tuple[str, ...], issued: Issued
    ) -> None:
        self._tokens = tokens
        self._token = token
        self._ids = ids
        self._known: dict[str, bool] = {}
        self.issued = issued
        sources = [token.block_source(number) for number in range(token.block_count())]
        found = [_EXPIRY.fullmatch(line.rstrip(";")) for one in sources for line in one.split("\n")]
        expiries = [match[1] for match in found if match]
        self.expires_us = min([issued.expires_us, *map(_us, expiries)])
        # Conditions on time in other words than ours: their answer is not kept.
        self._changes = sum(one.count("time(") for one in sources) > len(expiries)

    def __repr__(self) -> str:
        return f"<token {self.issued.id} of {self.issued.run}>"

    def check(self) -> None:
        """It is live: its run, its epoch, its time, and nobody took it back. Raises TokenDead."""
        self._tokens.check(self)

    def allows(self, asked: str) -> bool:
        """Whether all of its blocks let this be asked for."""
        found = self._known.get(asked)
        if found is None:
            found = self._tokens.authorised(self._token, self.issued, asked)
            if not self._changes:
                self._known[asked] = found
        return found

    def told(self) -> str:
        """What it named when it was given out, for a person."""
        more = " (narrowed since)" if len(self._ids) > 1 else ""
        return " ".join(self.issued.only)[: limits.GRANT_TOLD_CHARS_MAX] + more

    def mark(self, epoch: int) -> str:
        """How call ids of its calls begin, after the run's."""
        return f"{_MARK}{epoch}.{self._ids[-1][:12]}"

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the token that was given out, and of each narrowing since."""
        return self._ids


_MARK: Final = "@"


def came_with_token(call: str) -> bool:
    """The call was asked for with a token, not by the run's own process."""
    return f"/{_MARK}" in call


class Tokens:
    """The tokens of one kernel: given out, checked, taken back."""

    def __init__(self, keys: Keys, handles: Handles, now_us: Callable[[], int]) -> None:
        """`now_us`: a clock that never goes back."""
        self._keys = keys
        self._handles = handles
        self._now_us = now_us
        self._issued: dict[str, dict[str, Issued]] = {}
        """By run, by id. A token that is not among them is nobody's, however well it is signed."""
        self._revoked: dict[str, set[str]] = {}
        self._scopes: OrderedDict[bytes, Scope] = OrderedDict()

    def mint(self, run: str, epoch: int, only: Only, expires_s: int) -> tuple[str, Issued]:
        """A token for what `only` names, and what goes on record of it; it is good for nothing
        before `give_out`. Raises InvalidInput, LimitReached, StoreDamaged."""
        if not 1 <= expires_s <= limits.TOKEN_S_MAX:
            raise InvalidInput(
                f"A token lives 1 to {limits.TOKEN_S_MAX} s, not {expires_s}.",
                todo="Give a shorter one, and another when it is over.",
            )
        now_us = self._now_us()
        # A copy: others are given out meanwhile, and this is in a thread.
        known = list(self._issued.get(run, {}).values())
        live = [one for one in known if one.expires_us > now_us]
        if len(live) >= limits.TOKENS_PER_RUN_MAX:
            raise LimitReached(
                f"{run} has {len(live)} live tokens.", todo="Take one back: `ring0 token revoke`."
            )
        expires_us = now_us - now_us % 1_000_000 + expires_s * 1_000_000
        builder = biscuit.BiscuitBuilder("run({run}); epoch({epoch})", {"run": run, "epoch": epoch})
        builder.add_check(_named(only))
        builder.add_check(biscuit.Check(_BEFORE, {"before": _when(expires_us)}))
        root = self._root(make=True)
        token = builder.build(root.private_key)
        issued = Issued(id=_ids(token)[0], run=run, epoch=epoch, only=only, expires_us=expires_us)
        return written(token, root.public_key), issued

    def give_out(self, issued: Issued) -> None:
        """It is on record: from here on it counts."""
        of_run = self._issued.setdefault(issued.run, {})
        now_us = self._now_us()
        for one in [one for one in of_run.values() if one.expires_us <= now_us]:
            del of_run[one.id]
        of_run[issued.id] = issued

    def live(self, run: str) -> list[Issued]:
        """Those of a run that can be used."""
        now_us = self._now_us()
        revoked = self._revoked.get(run, ())
        return [
            one
            for one in self._issued.get(run, {}).values()
            if one.expires_us > now_us
            and one.id not in revoked
            and self._handles.is_live(run, one.epoch)
        ]

    def revoke(self, run: str, token: str) -> None:
        """It is dead from here on, with all that was narrowed from it. Raises LimitReached."""
        revoked = self._revoked.setdefault(run, set())
        if len(revoked) >= limits.TOKENS_REVOKED_PER_RUN_MAX:
            raise LimitReached(
                f"{len(revoked)} tokens of {run} were taken back already.",
                todo="End the run: with it end all its tokens.",
            )
        revoked.add(token)

    def forget(self, run: str) -> None:
        """The run has ended, or goes on under another epoch."""
        self._issued.pop(run, None)
        self._revoked.pop(run, None)

    # --- shown --------------------------------------------------------------------------------

    def scope(self, text: str) -> Scope:
        """What a token that is shown lets its bearer do. Raises TokenInvalid, TokenDead."""
        if len(text) > limits.TOKEN_SIZE_BYTES_MAX:
            raise _invalid("It is too long.")
        key = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        scope = self._scopes.get(key)
        if scope is None:
            scope = self._scopes[key] = self._read(text)
            if len(self._scopes) > limits.TOKENS_KNOWN_MAX:
                self._scopes.popitem(last=False)
        else:
            self._scopes.move_to_end(key)
        scope.check()
        return scope

    def check(self, scope: Scope) -> None:
        """Raises TokenDead."""
        issued = scope.issued
        if issued.id not in self._issued.get(issued.run, ()):
            raise _dead("The run has ended, or was started again, since it was given out.")
        if not self._handles.is_live(issued.run, issued.epoch):
            raise _dead("The run has ended, or was started again, since it was given out.")
        if self._now_us() >= scope.expires_us:
            raise _dead("Its time is over.")
        revoked = self._revoked.get(issued.run)
        if revoked and not revoked.isdisjoint(scope.ids):
            raise _dead("It was taken back.")

    def authorised(self, token: biscuit.Biscuit, issued: Issued, asked: str) -> bool:
        """Every check of every block holds for this, as of now."""
        builder = _authorizer(
            "time({now}); asked({asked}); allow if run({run}), epoch({epoch})",
            {
                "now": _when(self._now_us()),
                "asked": asked,
                "run": issued.run,
                "epoch": issued.epoch,
            },
        )
        try:
            builder.build(token).authorize()
        except (biscuit.AuthorizationError, *_FAULTS):
            return False
        return True

    def _read(self, text: str) -> Scope:
        start, _, rest = text.partition(".")
        body = rest.partition(".")[2] if start == START else text
        try:
            token = biscuit.Biscuit.from_base64(body, self._root(make=False).public_key)
            if token.block_count() > limits.TOKEN_BLOCKS_MAX:
                raise _invalid("It was narrowed too often.")
            if not are_cheap(token.block_source(at) for at in range(1, token.block_count())):
                raise _invalid("A block that was added to it says more than a condition.")
            ids = _ids(token)
            # Asked of the first block alone: what later ones say of run and epoch is not heard.
            query = biscuit.Rule("whose($run, $epoch) <- run($run), epoch($epoch)")
            whose = _authorizer("", {}).build(token).query(query)
        except biscuit.AuthorizationError:
            raise _invalid("It takes more work to read than is done for one.") from None
        except _FAULTS:
            raise _invalid("It was not signed here, or it was changed.") from None
        if len(whose) != 1:
            raise _invalid("It does not say whose it is.")
        run, epoch = whose[0].terms
        issued = self._issued.get(run, {}).get(ids[0])
        if issued is None or (issued.run, issued.epoch) != (run, epoch):
            raise _dead("The run has ended, or was started again, since it was given out.")
        try:
            return Scope(self, token, ids, issued)
        except ValueError:
            raise _invalid("It names a time that is none.") from None

    def _root(self, *, make: bool) -> biscuit.KeyPair:
        held = self._keys.held()
        if held.token is None and make:
            held = self._keys.change(lambda now: _with_token_key(now, self._now_us()))
        if held.token is None:
            raise _invalid("No token was ever given out here.")
        return biscuit.KeyPair.from_private_key(biscuit.PrivateKey(held.token.private))


# --- without a kernel -------------------------------------------------------------------------


def narrow(text: str, only: Sequence[str], before_us: int = 0) -> str:
    """The token, good only for what `only` names too (none: as it was), and only until `before_us`
    (0: as it was). `only`: patterns as `narrowing.exactly` gives them. Raises TokenInvalid."""
    token, key = _as_written(text)
    block = biscuit.BlockBuilder("")
    if only:
        block.add_check(_named(only))
    if before_us:
        block.add_check(biscuit.Check(_BEFORE, {"before": _when(before_us)}))
    try:
        return written(token.append(block), key)
    except _FAULTS:
        raise _invalid("It is sealed: nobody can narrow it.") from None


def blocks(text: str) -> list[tuple[str, str]]:
    """(id, what it says) of each block of a token, as it claims. Raises TokenInvalid."""
    token, _ = _as_written(text)
    return [(one, token.block_source(number)) for number, one in enumerate(_ids(token))]


def written(token: biscuit.Biscuit, key: biscuit.PublicKey) -> str:
    """A token with the key that narrowing it needs. Whoever checks it uses the key of their own."""
    return f"{START}.{key.to_bytes().hex()}.{token.to_base64()}"


def _as_written(text: str) -> tuple[biscuit.Biscuit, biscuit.PublicKey]:
    parts = text.strip().split(".")
    if len(text) > limits.TOKEN_SIZE_BYTES_MAX or len(parts) != 3 or parts[0] != START:
        raise _invalid("It does not look like one.")
    try:
        key = biscuit.PublicKey(f"ed25519/{bytes.fromhex(parts[1]).hex()}")
        return biscuit.Biscuit.from_base64(parts[2], key), key
    except _FAULTS:
        raise _invalid("It was changed, or cut short.") from None


# --- the pieces -------------------------------------------------------------------------------


def _named(only: Iterable[str]) -> biscuit.Check:
    """What is asked for is one of these. No pattern becomes a part of the language."""
    parts, values = [], {}
    for number, pattern in enumerate(only):
        value: str = pattern
        if "*" not in pattern:
            parts.append(f"$asked == {{p{number}}}")
        elif pattern.index("*") == len(pattern) - 1:
            parts.append(f"$asked.starts_with({{p{number}}})")
            value = pattern[:-1]
        else:
            parts.append(f"$asked.matches({{p{number}}})")
            value = "^" + ".*".join(map(re.escape, pattern.split("*"))) + "$"
        values[f"p{number}"] = value
    return biscuit.Check(f"check if asked($asked), {' || '.join(parts) or 'false'}", values)


def _authorizer(code: str, values: dict[str, Any]) -> biscuit.AuthorizerBuilder:
    builder: Any = biscuit.AuthorizerBuilder(code, values)  # Its stubs know of no limits.
    bounds = builder.limits()
    bounds.max_time = timedelta(milliseconds=limits.TOKEN_AUTHORISE_MS_MAX)
    bounds.max_facts = limits.TOKEN_FACTS_MAX
    bounds.max_iterations = limits.TOKEN_ITERATIONS_MAX
    builder.set_limits(bounds)
    found: biscuit.AuthorizerBuilder = builder
    return found


def _ids(token: biscuit.Biscuit) -> tuple[str, ...]:
    return tuple(
        hashlib.sha256(bytes.fromhex(one)).hexdigest()[: limits.TOKEN_ID_CHARS]
        for one in token.revocation_ids
    )


def _with_token_key(held: Held, now_us: int) -> Held:
    if held.token is not None:
        return held
    key = Key(private=repr(biscuit.KeyPair().private_key), made_us=now_us)
    return msgspec.structs.replace(held, token=key)


def _when(at_us: int) -> datetime:
    return datetime.fromtimestamp(at_us // 1_000_000, UTC)


def _us(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


def _dead(why: str) -> TokenDead:
    return TokenDead("The token is dead.", why=why, todo="Get another: `ring0 token give RUN`.")


def _invalid(why: str) -> TokenInvalid:
    return TokenInvalid("The token is not valid.", why=why, todo="Get one: `ring0 token give RUN`.")
