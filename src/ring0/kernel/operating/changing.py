"""What the operator's files say (policies, profile, roles, issuer): taken up as one, on record.

At the start of a kernel and by `ring0 reload`: a change says who took it up, from what to what.
What can't be read or does not fit changes nothing. Not here: what any of it means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from ring0 import limits
from ring0.errors import CallDenied, ManifestInvalid
from ring0.governance import Policies
from ring0.identity import Vault
from ring0.kernel.agent import manifests, profiles
from ring0.kernel.agent.manifests import Config
from ring0.kernel.operating import checking, principals, proving
from ring0.store import Write, address
from ring0.store import events as ev
from ring0.store.base import WriteImpossible
from ring0.types import Frozen, Setting

if TYPE_CHECKING:
    from ring0.kernel.kernel import Kernel

DEFAULT: Final = "default"
"""Of a table that is not there: nothing is on record of it either, until it was."""
_RANK: Final = {"observe": 0, DEFAULT: 1, "balanced": 1, "strict": 2}
"""Of profiles, the loosest first."""
_TAKEN_UP: Final = frozenset({"profile", "policy", "policy_tests", "roles", "oidc"})
"""What of ring0.toml a kernel at work takes up; all else waits for its next start."""


class ProfileLooser(CallDenied):
    """The profile that ring0.toml names holds less back, and nobody has said that it may."""

    code = "profile_looser"


class Change(Frozen, frozen=True, kw_only=True):
    """One thing that is otherwise than it was."""

    name: str
    before: str
    after: str
    loosened: bool = False


class Changed(Frozen, frozen=True, kw_only=True):
    """What a kernel at work has taken up."""

    changes: tuple[Change, ...] = ()
    later: tuple[str, ...] = ()
    """Tables of ring0.toml that say something else, and count from its next start on."""
    warnings: tuple[str, ...] = ()
    """What may be misspelt: it fits, and nothing is of that name."""


class Said(msgspec.Struct, frozen=True):
    """The operator's files, read and found good."""

    config: Config
    policies: Policies
    held: str = ""
    """The profile that the file names, where a stricter one holds until somebody says otherwise."""

    def settings(self) -> dict[str, tuple[str, bytes]]:
        """By name: what it is, and the whole text where that is only a digest."""
        config = self.config
        found = {
            "policy": (self.policies.digest, self.policies.text.encode()),
            "profile": (_profile(config), b""),
        }
        for name, table in (("roles", config.roles), ("oidc", config.oidc)):
            text = b"" if table is None else msgspec.json.encode(table, order="deterministic")
            if len(text) > limits.SETTING_TEXT_BYTES_MAX:
                raise ManifestInvalid(f"ring0.toml: [{name}] is too long.", todo="Shorten it.")
            found[name] = (hashlib.sha256(text).hexdigest() if text else DEFAULT, text)
        return found


def read(home: Path, recorded: Mapping[str, Setting], *, loosen: bool = False) -> Said:
    """The files as they are now. The profile on record holds on where the file's is looser, unless
    `loosen`: to edit a file, or to start a kernel anew, is not to say so. Raises ManifestInvalid,
    PolicyInvalid."""
    config = manifests.read_config(home)
    held = ""
    # In a new folder the file is the first word, and loosens nothing.
    before = _before("profile", recorded) if recorded else _profile(config)
    if not loosen and _is_looser(_profile(config), before):
        held = _profile(config)
        config = replace(config, profile="" if before == DEFAULT else before)
    files = [home / name for name in config.policy]
    return Said(config, Policies.load(files, config.profile), held)


def events(said: Said, recorded: Mapping[str, Setting], by: str) -> tuple[list[ev.AnyEvent], Any]:
    """What the journal is to hold of it, with the blobs: one event a change."""
    found: list[ev.AnyEvent] = []
    blobs: dict[str, bytes] = {}
    for name, (value, text) in said.settings().items():
        row = recorded.get(name)
        before = row.value if row else ""
        if value == (before or DEFAULT):
            continue
        where = address(b"", text) if text else ""
        if text:
            blobs[where] = text
        looser = name == "profile" and bool(recorded) and _is_looser(value, before or DEFAULT)
        found.append(
            ev.SettingChanged(
                name=name, before=before, after=value, text=where, by=by, loosened=looser
            )
        )
    return found, blobs


async def reload(kernel: Kernel, *, by: str, loosen: bool = False) -> Changed:
    """Takes up what the files say now, all of it or nothing: nothing too where the next start would
    refuse what only counts from there on. Calls that are under way are judged again by it before
    their effect begins. Raises ManifestInvalid, InvalidInput, PolicyInvalid, ProfileLooser."""
    async with kernel.reloading:  # What was read first never takes the place of what is newer.
        return await _reload(kernel, by, loosen)


async def _reload(kernel: Kernel, by: str, loosen: bool) -> Changed:
    recorded = await kernel.store.settings()
    said = read(kernel.home, recorded, loosen=loosen)
    if said.held:
        raise ProfileLooser(
            f"ring0.toml asks for the profile {said.held}, which holds less back than"
            f" {_profile(said.config)}.",
            why="A profile is loosened by somebody who says so, by name; that goes on record.",
            todo="`ring0 reload --yes-loosen`, or put the profile back.",
        )
    warnings = await _check_as_a_start(kernel, said.config)
    _check_live(kernel, said.policies)
    warnings += await profiles.unknown_tools(kernel, said.policies)
    await proving.prove(kernel.home, said.config, said.policies, kernel.runtime)
    changes, blobs = events(said, recorded, by)
    if changes:
        loaded = ev.PolicyLoaded(
            digest=said.policies.digest, text=address(b"", said.policies.text.encode())
        )
        blobs[loaded.text] = said.policies.text.encode()
        try:
            await kernel.store.append(
                Write(run=ev.KERNEL, durable=True, events=[loaded, *changes], blobs=blobs)
            )
        except WriteImpossible:
            raise CallDenied(
                "Somebody else has just taken the files up.", todo="Look, and try again."
            ) from None
    later = _later(kernel.config, said.config)
    take_up(kernel, said)
    return Changed(
        changes=tuple(
            Change(name=one.name, before=one.before, after=one.after, loosened=one.loosened)
            for one in changes
            if isinstance(one, ev.SettingChanged)
        ),
        later=later,
        warnings=tuple(warnings),
    )


def take_up(kernel: Kernel, said: Said) -> None:
    """From here on they count, in one step: no call sees half of them."""
    config = said.config
    kernel.policies = kernel.gate.policies = said.policies
    kernel.logins.take_up(config.oidc, config.roles)
    taken = {name: getattr(config, name) for name in _TAKEN_UP}
    kernel.config = replace(kernel.config, **taken)
    kernel.held_profile = said.held


def told(kernel: Kernel) -> str:
    """That ring0.toml names a looser profile than the one that holds."""
    holds = _profile(kernel.config)
    return (
        f"ring0.toml names the profile {kernel.held_profile}: {holds} holds on until"
        " `ring0 reload --yes-loosen`"
    )


async def _check_as_a_start(kernel: Kernel, config: Config) -> list[str]:
    """What keeps a kernel from coming up is refused now, while one is at work. What to warn of.
    Raises ManifestInvalid, InvalidInput."""
    # The vault as it lies there: that is what the next start reads.
    vault = Vault(kernel.home, kernel.runtime)
    checking.check(config, kernel.environment, vault, kernel.runtime)
    if config.identity.listen != kernel.config.identity.listen:
        checking.check_free(config.identity)
    return await principals.check(config, kernel.store)


def _check_live(kernel: Kernel, policies: Policies) -> None:
    """What the set says of a tool has to fit the tools of runs that go on. Raises PolicyInvalid."""
    for live in kernel.gate.live.values():
        policies.check_tools({name: tool.manifest.schema for name, tool in live.tools.items()})


def _later(before: Config, now: Config) -> tuple[str, ...]:
    names = [field for field in before.__struct_fields__ if field not in _TAKEN_UP]
    return tuple(name for name in names if getattr(before, name) != getattr(now, name))


def _before(name: str, recorded: Mapping[str, Setting]) -> str:
    return recorded[name].value if name in recorded else DEFAULT


def _profile(config: Config) -> str:
    return config.profile or DEFAULT


def _is_looser(profile: str, before: str) -> bool:
    return _RANK[profile] < _RANK[before]
