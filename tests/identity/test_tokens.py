"""Tokens: narrower than their run, narrowed further by whoever holds them, dead with their run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import biscuit_auth as biscuit
import pytest

from ring0 import limits
from ring0.errors import InvalidInput, LimitReached, TokenDead, TokenInvalid
from ring0.identity import tokens as module
from ring0.identity.handles import Handles
from ring0.identity.keys import KEY_FILE, Keys
from ring0.identity.narrowing import exactly
from ring0.identity.tokens import Scope, Tokens, came_with_token, narrow
from ring0.runtime import Runtime

RUN = "r-000000000001"


class Here:
    """The tokens of one kernel with one run at work, and a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.now_us = 1_800_000_000_500_000
        self.handles = Handles(Runtime())
        self.handles.mint(RUN, 3)
        self.tokens = Tokens(Keys(folder), self.handles, lambda: self.now_us)

    def give(self, *only: str, expires_s: int = 300, run: str = RUN, epoch: int = 3) -> str:
        text, issued = self.tokens.mint(run, epoch, exactly(only or ("*",)), expires_s)
        self.tokens.give_out(issued)
        return text

    def scope(self, text: str) -> Scope:
        return self.tokens.scope(text)

    def append(self, text: str, code: str, **values: Any) -> str:
        """A block that its holder writes in the token's own language."""
        start, key, body = text.split(".")
        public = biscuit.PublicKey(f"ed25519/{key}")
        token = biscuit.Biscuit.from_base64(body, public).append(biscuit.BlockBuilder(code, values))
        return ".".join((start, key, token.to_base64()))


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_a_token_lets_its_bearer_ask_for_what_it_names_and_nothing_else(here: Here) -> None:
    scope = here.scope(here.give("crm.query", "files.*", "m*l.s*d", "model:big"))
    for asked in ("tool:crm.query", "tool:files.read", "tool:mail.send", "model:big"):
        assert scope.allows(asked), asked
    for asked in ("tool:crm.execute", "tool:file", "tool:mail.sends", "model:bigger", "kernel:now"):
        assert not scope.allows(asked), asked


def test_a_pattern_is_never_a_part_of_the_tokens_language(here: Here) -> None:
    for hostile in ('x"||true||"', "a.b|.*", "(x)*.y", "$asked", "{p0}", "x*\\"):
        scope = here.scope(here.give(hostile))
        assert not scope.allows("tool:crm.query"), hostile


def test_whoever_holds_a_token_narrows_it_without_the_kernel(here: Here) -> None:
    text = here.give("crm.*")
    narrower = narrow(text, exactly(["*.query", "mail.send"]))
    assert here.scope(narrower).allows("tool:crm.query")
    assert not here.scope(narrower).allows("tool:crm.execute")
    assert not here.scope(narrower).allows("tool:mail.send"), "a narrowing never widens"
    assert here.scope(text).allows("tool:crm.execute"), "the one before is what it was"


def test_a_narrower_time_is_kept_and_a_longer_one_is_not(here: Here) -> None:
    text = here.give(expires_s=60)
    shorter = here.scope(narrow(text, [], here.now_us + 10_000_000))
    longer = here.scope(narrow(text, [], here.now_us + 3_600_000_000))
    here.now_us += 11_000_000
    with pytest.raises(TokenDead, match=r"token is dead"):
        shorter.check()
    longer.check()
    here.now_us += 60_000_000
    with pytest.raises(TokenDead):
        longer.check()


def test_a_condition_on_time_in_other_words_holds_on_every_call(here: Here) -> None:
    text = here.append(
        here.give(),
        "check if time($t), $t < {until}",
        until=datetime.fromtimestamp(here.now_us / 1e6, UTC) + timedelta(seconds=5),
    )
    scope = here.scope(text)
    assert scope.allows("tool:crm.query")
    here.now_us += 6_000_000
    assert not scope.allows("tool:crm.query"), "what held once is not kept"


@pytest.mark.parametrize(
    "forged",
    [
        'run("r-000000000002")',
        "epoch(4)",
        'asked("tool:crm.execute")',
        "time(2000-01-01T00:00:00Z)",
        "asked($x) <- run($x)",
        "allow($x) <- run($x)",
    ],
)
def test_a_block_that_says_what_only_the_kernel_says_is_not_taken(here: Here, forged: str) -> None:
    text = here.append(here.give("crm.query", expires_s=60), forged)
    with pytest.raises(TokenInvalid):
        here.scope(text)


def test_a_block_that_holds_always_changes_nothing(here: Here) -> None:
    text = here.append(here.give("crm.query", expires_s=60), "check if true trusting authority")
    scope = here.scope(text)
    assert scope.issued.run == RUN and scope.issued.epoch == 3
    assert not scope.allows("tool:crm.execute")
    here.now_us += 61_000_000
    with pytest.raises(TokenDead):
        scope.check()


_FEW: Final = "; ".join(f"n({number})" for number in range(14))


@pytest.mark.parametrize(
    "block",
    [
        # Each of these kept a kernel from everything else for seconds to minutes.
        f"{_FEW}; check if n($a), n($b), n($c), n($d), n($e), n($f), n($g), n($h), $a > 100",
        f"{_FEW}; m($a, $b, $c, $d, $e, $f) <- n($a), n($b), n($c), n($d), n($e), n($f)",
        "check if asked($a), " + " || ".join(f'$a.matches("{n}\\\\w{{400}}")' for n in range(20)),
        "check if asked($a), $a.matches($a)",
        'check if ["x"].any($p -> $p == "x")',
    ],
)
def test_a_block_that_takes_work_to_look_at_is_refused_before_it_is(here: Here, block: str) -> None:
    text = here.append(here.give(), block)
    with pytest.raises(TokenInvalid, match="more than a condition"):
        here.scope(text)


@pytest.mark.parametrize(
    "hidden",
    [
        'x", $a == "n($b), n($c)',  # What looks like a string, and is not, holds no predicate.
        'x";\nn(1);\nn(2);\ncheck if $a == "y',
        '^a$") || $a.matches("\\w{400}',
    ],
)
def test_nothing_of_a_block_hides_in_its_strings(here: Here, hidden: str) -> None:
    """Biscuit writes strings out as they are, with the quotes in them."""
    for check in ("$a == {hidden}", "$a.matches({hidden})"):
        text = here.append(here.give(), f"check if asked($a), {check}", hidden=hidden)
        with pytest.raises(TokenInvalid):
            here.scope(text)


def test_a_block_that_names_a_time_that_is_none_is_not_valid(here: Here) -> None:
    text = here.append(here.give(), "x({s})", s="\ncheck if time($time), $time <= " + "Z" * 20)
    with pytest.raises(TokenInvalid):
        here.scope(text)


def test_a_block_signed_by_the_wrong_third_party_fails(here: Here) -> None:
    """A token that wants a word of a certain other party takes it from nobody else."""
    other, nobody = biscuit.KeyPair(), biscuit.KeyPair()
    text = here.append(here.give(), f'check if vouched("ann") trusting {other.public_key!r}')
    for signer, good in ((other, True), (nobody, False)):
        start, key, body = text.split(".")
        token = biscuit.Biscuit.from_base64(body, biscuit.PublicKey(f"ed25519/{key}"))
        block = token.third_party_request().create_block(
            signer.private_key, biscuit.BlockBuilder('vouched("ann")')
        )
        said = token.append_third_party(signer.public_key, block)
        scope = here.scope(".".join((start, key, said.to_base64())))
        assert scope.allows("tool:crm.query") is good
    faults = (biscuit.BiscuitBuildError, biscuit.BiscuitBlockError, biscuit.BiscuitValidationError)
    with pytest.raises(faults):
        block = token.third_party_request().create_block(
            nobody.private_key, biscuit.BlockBuilder('vouched("ann")')
        )
        forged = token.append_third_party(other.public_key, block)  # Says that it was the other.
        biscuit.Biscuit.from_base64(forged.to_base64(), biscuit.PublicKey(f"ed25519/{key}"))


def test_a_token_of_another_key_is_not_valid_whatever_key_it_brings_along(
    here: Here, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Here(tmp_path / "other")
    here.give()
    with pytest.raises(TokenInvalid):
        here.scope(other.give())


def test_a_token_that_was_changed_anywhere_is_not_valid(here: Here) -> None:
    text = here.give("crm.query")
    body = text.rpartition(".")[2]
    for place in range(0, len(body), 7):
        letter = "A" if body[place] != "A" else "B"
        with pytest.raises((TokenInvalid, TokenDead)):
            here.scope(body[:place] + letter + body[place + 1 :])


@pytest.mark.parametrize(
    "text",
    ["", ".", "r0.", "r0..", "r0.00.AAAA", "x" * 9_000, "é", "A.B.C", "r0." + "0" * 64 + "."],
)
def test_what_is_no_token_is_not_valid(here: Here, text: str) -> None:
    here.give()
    with pytest.raises(TokenInvalid):
        here.scope(text)
    with pytest.raises(TokenInvalid):
        narrow(text, ["tool:x"])


def test_a_token_dies_with_the_epoch_of_its_run(here: Here) -> None:
    text = here.give()
    scope = here.scope(text)
    here.handles.mint(RUN, 4)  # It was started again.
    for check in (scope.check, lambda: here.scope(text)):
        with pytest.raises(TokenDead):
            check()


def test_a_token_dies_with_its_run(here: Here) -> None:
    scope = here.scope(here.give())
    here.handles.kill(RUN)
    with pytest.raises(TokenDead):
        scope.check()


def test_a_token_that_is_taken_back_is_dead_with_all_that_was_narrowed_from_it(here: Here) -> None:
    text = here.give()
    narrower = narrow(text, exactly(["crm.*"]))
    other = here.give()
    here.tokens.revoke(RUN, here.scope(text).ids[0])
    for dead in (text, narrower):
        with pytest.raises(TokenDead, match="dead"):
            here.scope(dead)
    here.scope(other).check()


def test_a_narrowed_token_can_be_taken_back_alone(here: Here) -> None:
    text = here.give()
    narrower = narrow(text, exactly(["crm.*"]))
    here.tokens.revoke(RUN, here.scope(narrower).ids[-1])
    with pytest.raises(TokenDead):
        here.scope(narrower)
    here.scope(text).check()


def test_a_well_signed_token_that_never_went_on_record_is_dead(here: Here) -> None:
    text, _ = here.tokens.mint(RUN, 3, exactly(["*"]), 60)
    with pytest.raises(TokenDead):
        here.scope(text)


def test_a_token_of_an_earlier_kernel_is_dead_though_its_key_is_the_same(
    here: Here, tmp_path: Path
) -> None:
    text = here.give()
    with pytest.raises(TokenDead):
        Here(tmp_path).scope(text)


def test_tokens_have_bounds(here: Here) -> None:
    for expires_s in (0, -1, limits.TOKEN_S_MAX + 1):
        with pytest.raises(InvalidInput):
            here.give(expires_s=expires_s)
    for _ in range(limits.TOKENS_PER_RUN_MAX):
        text = here.give(expires_s=5)
    with pytest.raises(LimitReached):
        here.give()
    here.now_us += 6_000_000
    text = here.give()  # Those that are over take nobody's place.
    for _ in range(limits.TOKEN_BLOCKS_MAX - 1):
        text = narrow(text, ["tool:*"])
    here.scope(text).check()
    with pytest.raises(TokenInvalid):
        here.scope(narrow(text, ["tool:*"]))


def test_the_authoriser_has_time_enough_and_an_end(here: Here) -> None:
    """Biscuit's own default is 1 ms of wall clock: it denied valid requests under load."""
    bounds = module._authorizer("", {}).limits()  # type: ignore[attr-defined]
    assert bounds.max_time == timedelta(milliseconds=50)
    explosion = "; ".join(f"n({number})" for number in range(150))
    text = here.append(
        here.give(), explosion + "; m($a, $b) <- n($a), n($b); check if m($a, $b), $a > 200"
    )
    with pytest.raises(TokenInvalid, match="not valid"):
        here.scope(text)


def test_a_token_tells_nothing_in_a_repr(here: Here) -> None:
    text = here.give()
    assert text.rpartition(".")[2][:20] not in repr(here.scope(text))
    key = here.tokens._keys.held().token
    assert key is not None and key.private not in repr(here.tokens._keys.held())


def test_names_of_calls_say_that_they_came_with_a_token(here: Here) -> None:
    mark = here.scope(here.give()).mark(3)
    assert came_with_token(f"{RUN}/{mark}/0/1")
    assert not came_with_token(f"{RUN}/0/1") and not came_with_token(f"{RUN}/~abc/1")


@pytest.mark.parametrize("spoil", ["readable", "link", "folder", "text", "version"])
def test_a_key_file_that_is_not_as_it_was_left_is_refused(
    here: Here, tmp_path: Path, spoil: str
) -> None:
    here.give()
    path = tmp_path / KEY_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    spoils: dict[str, Callable[[], Any]] = {
        "readable": lambda: path.chmod(0o644),
        "link": lambda: (path.rename(tmp_path / "x"), path.symlink_to(tmp_path / "x")),
        "folder": lambda: (path.unlink(), path.mkdir()),
        "text": lambda: path.write_text("{"),
        "version": lambda: path.write_text('{"version": 9}'),
    }
    spoils[spoil]()
    with pytest.raises(Exception, match="keys of identities are not read"):
        Here(tmp_path).give()
