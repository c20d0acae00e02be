"""The vault: secrets by name, sealed, kept beside the journal and never in it.

`repo-x`, `github/repo-x`, `secret://github/repo-x`: the latter two are the same one. Who may use a
secret, and where, is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

import msgspec

from ring0 import limits
from ring0.errors import InvalidInput, NotFound, Ring0Error
from ring0.identity import vaultkey
from ring0.identity.envelope import DoesNotOpen, Entry, opened, seal
from ring0.identity.keyfile import alone, check_room, damaged, read_private, write_private
from ring0.identity.vaultkey import KEY_FILE, Key, KeyLost
from ring0.runtime import Runtime

VAULT_FILE: Final = "vault.json"
_Kind = TypeVar("_Kind")
_SCHEME: Final = "secret://"
_PART: Final = r"[A-Za-z][A-Za-z0-9_.-]{0,63}"
_NAME: Final = re.compile(rf"{_PART}(/{_PART})*")


class _Sealed(msgspec.Struct, forbid_unknown_fields=True):
    """The file, version 2."""

    version: int
    key: str
    """Which key it is sealed under."""
    secrets: dict[str, Entry]


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """One secret of a file of version 1: not sealed."""

    value: str
    set_us: int

    def __repr__(self) -> str:
        return "_Plain(«hidden»)"


class _PlainFile(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    secrets: dict[str, _Plain]


class _Version(msgspec.Struct):
    version: int


class Moved(Ring0Error):
    """Somebody else has changed what was to be changed."""

    code, whose, exit_code = "moved", "yours", 1


class _State(NamedTuple):
    """What was read, taken in as one: other threads look at it meanwhile."""

    entries: Mapping[str, Entry] = MappingProxyType({})
    values: Mapping[str, str] = MappingProxyType({})
    """Those that opened."""
    key: Key | None = None
    keys: tuple[Key, ...] = ()
    """All that the key's file holds: while keys are changed there are two."""


class Vault:
    """The secrets of one data folder, as they were when it was opened, or written through it.
    `repr` shows names only. Threads may share one."""

    def __init__(self, home: Path, runtime: Runtime | None = None) -> None:
        """A file of version 1 is sealed now. Raises StoreDamaged where the files can't be read, or
        others may read them."""
        self.home = home
        self._path = home / VAULT_FILE
        self._runtime = runtime or Runtime()
        self._state = _State()
        try:
            found = self._read()
        except KeyLost:  # Or it was changed between our look at one file and at the other.
            found = None
        if found is None:
            self.reload()
        else:
            self._state = found

    def __repr__(self) -> str:
        return f"Vault({', '.join(self._state.entries)})"

    def names(self) -> dict[str, int]:
        """Every name, with when it was set (microseconds since 1970)."""
        return {name: entry.set_us for name, entry in sorted(self._state.entries.items())}

    def entry(self, name: str) -> Entry | None:
        """What may be known of a secret without opening it: version, times."""
        return self._state.entries.get(secret_name(name))

    def shut(self) -> list[str]:
        """Names of those that do not open: they were changed behind our back."""
        return _shut(self._state)

    def values(self) -> Mapping[str, str]:
        """Every value by name, for the kernel's far side and its redactor. Raises StoreDamaged
        where one does not open: what is not known can't be kept back."""
        state = self._state
        if shut := _shut(state):
            raise damaged(
                self._path,
                f"{', '.join(shut)[:300]} can't be opened: changed by others, or put under another"
                " name",
                "Set it again, or remove it: `ring0 secret set NAME`. The others are all there.",
            )
        return state.values

    def value(self, name: str) -> str:
        """Empty where there is none, or where it does not open."""
        return self._state.values.get(secret_name(name), "")

    def reload(self) -> None:
        """Takes in what others have written. Raises StoreDamaged; all is then as it was."""
        with self._alone():
            pass

    def set(self, name: str, value: str, now_us: int, ends_us: int = 0) -> None:
        """Keeps a secret; on disk when this returns. Raises InvalidInput, StoreDamaged."""
        self.put({name: (value, ends_us)}, now_us)

    def put(
        self,
        changes: Mapping[str, tuple[str, int] | None],
        now_us: int,
        *,
        where: tuple[str, str] | None = None,
    ) -> None:
        """Sets (value, ends_us) and removes (None), all or nothing; on disk when this returns.
        `where`: only if this name still has this value. Raises InvalidInput, StoreDamaged, Moved.
        """
        named = {_checked_name(name): change for name, change in changes.items()}
        for change in named.values():
            if change is not None:
                _check_value(change[0])
        with self._alone() as state:
            if where is not None and state.values.get(where[0]) != where[1]:
                raise Moved(
                    f"{where[0]} has another value by now.",
                    why="Somebody set or removed it meanwhile, and that holds.",
                    todo="Try again.",
                )
            entries, values = dict(state.entries), dict(state.values)
            key = state.key or self._first_key()
            for name, change in named.items():
                old = entries.pop(name, None)
                values.pop(name, None)
                if change is not None:
                    value, ends_us = change
                    version = old.version + 1 if old else 1
                    entries[name] = seal(
                        name, value, version, now_us, ends_us, key.key, self._runtime
                    )
                    values[name] = value
            if len(entries) > max(limits.SECRETS_MAX, len(state.entries)):
                raise InvalidInput(
                    f"The vault holds {limits.SECRETS_MAX} secrets already.",
                    todo="Remove one: `ring0 secret remove NAME`.",
                )
            self._write(entries, values, key)

    def remove(self, name: str) -> None:
        """Forgets a secret. Raises NotFound, StoreDamaged."""
        name = secret_name(name)
        with self._alone() as state:
            if name not in state.entries:
                raise NotFound(
                    f"The vault holds no secret {name[:40]!r}.",
                    todo="`ring0 secret list` names them.",
                )
            entries = {key: entry for key, entry in state.entries.items() if key != name}
            values = {key: value for key, value in state.values.items() if key != name}
            self._write(entries, values, state.key or self._first_key())

    def rekey(self) -> int:
        """Seals all under a new key, each with a new one of its own; returns how many. Killed at
        any moment it leaves a vault that opens. Raises StoreDamaged."""
        with self._alone() as state:
            values = self.values()  # One that does not open would be lost.
            new = vaultkey.make(self._runtime)
            entries = {
                name: seal(
                    name, values[name], old.version, old.set_us, old.ends_us, new.key, self._runtime
                )
                for name, old in state.entries.items()
            }
            # First both keys, then what is under the new one, then (in _write) the new one alone.
            self._keep_keys((*([state.key] if state.key else []), new))
            self._write(entries, values, new)
            return len(entries)

    def check_room(self) -> None:
        """Could another value be written now? Raises StoreDamaged."""
        sealed = _encoded(self._state.entries, "")
        check_room(self._path, len(sealed) + 4 * limits.SECRET_CHARS_MAX)

    @contextmanager
    def _alone(self) -> Iterator[_State]:
        """While it is entered nobody else writes, and what they wrote before is here."""
        with alone(self.home):
            found = self._read()
            if found is None:
                self._seal_old()
            else:
                self._state = found
            yield self._state

    def _read(self) -> _State | None:
        """What is on disk; None for a file of version 1, which has to be sealed."""
        content = read_private(self._path, limits.VAULT_FILE_SIZE_BYTES_MAX)
        keys = vaultkey.read(self.home)
        if content is None:
            return _State(key=keys[-1] if keys else None, keys=keys)
        version = _decoded(self._path, content, _Version).version
        if version == 1:
            return None
        if version != 2:
            raise damaged(self._path, f"it is of version {version}, which this ring0 can't read")
        found = _decoded(self._path, content, _Sealed)
        key = next((key for key in keys if key.id == found.key), None)
        if key is None and found.secrets:
            raise vaultkey.lost(self.home, found.key)
        values = {}
        for name, entry in found.secrets.items():
            assert key is not None
            try:
                values[name] = opened(name, entry, key.key)
            except DoesNotOpen:
                pass  # `shut` names it: the others are not lost with it.
        return _State(found.secrets, MappingProxyType(values), key, keys)

    def _seal_old(self) -> None:
        content = read_private(self._path, limits.VAULT_FILE_SIZE_BYTES_MAX)
        assert content is not None
        old = _decoded(self._path, content, _PlainFile).secrets
        keys = vaultkey.read(self.home)
        key = keys[-1] if keys else self._first_key()
        entries = {
            name: seal(name, secret.value, 1, secret.set_us, 0, key.key, self._runtime)
            for name, secret in old.items()
        }
        self._write(entries, {name: secret.value for name, secret in old.items()}, key)

    def _first_key(self) -> Key:
        key = vaultkey.make(self._runtime)
        self._keep_keys((key,))
        return key

    def _keep_keys(self, keys: tuple[Key, ...]) -> None:
        vaultkey.write(self.home, keys)
        self._state = self._state._replace(keys=keys)

    def _write(self, entries: Mapping[str, Entry], values: Mapping[str, str], key: Key) -> None:
        write_private(self._path, _encoded(entries, key.id))
        self._state = _State(entries, MappingProxyType(dict(values)), key, self._state.keys)
        if self._state.keys != (key,):  # Also where a change of keys was cut off before this step.
            self._keep_keys((key,))


def _shut(state: _State) -> list[str]:
    return sorted(state.entries.keys() - state.values.keys())


def _encoded(entries: Mapping[str, Entry], key_id: str) -> bytes:
    return msgspec.json.encode(_Sealed(version=2, key=key_id, secrets=dict(entries)))


def secret_name(text: str) -> str:
    """A secret's plain name: `secret://github/repo-x` is `github/repo-x`."""
    return text.removeprefix(_SCHEME)


def _checked_name(text: str) -> str:
    name = secret_name(text)
    if not _NAME.fullmatch(name) or len(name) > limits.SECRET_NAME_CHARS_MAX:
        raise InvalidInput(
            f"{text[:40]!r} is no name for a secret.",
            todo="Use a letter, then letters, digits, `.`, `_` and `-`, with `/` between parts:"
            " GITHUB_TOKEN, secret://github/repo-x.",
        )
    return name


def _check_value(value: str) -> None:
    if not limits.SECRET_CHARS_MIN <= len(value) <= limits.SECRET_CHARS_MAX:
        raise InvalidInput(
            f"A secret has {limits.SECRET_CHARS_MIN} to {limits.SECRET_CHARS_MAX} characters.",
            why="A shorter one could not be told from ordinary text, and so not be kept in.",
            todo="Give the whole value, without the line's end.",
        )
    if not value.isascii() or not value.isprintable():
        raise InvalidInput(
            "The secret holds characters that no header can carry.",
            todo="Give the value alone: no quotes, no line's end, nothing invisible.",
        )


def _decoded(path: Path, content: bytes, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError:  # Its message could quote a value.
        raise damaged(path, "it is not what ring0 wrote") from None


__all__ = ["KEY_FILE", "VAULT_FILE", "Moved", "Vault", "secret_name"]
