"""The vault on disk: sealed, one key for each secret, whole after a crash at any step."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ring0.errors import InvalidInput, StoreDamaged
from ring0.identity import Vault, keyfile
from ring0.identity.vault import KEY_FILE, VAULT_FILE, Moved

CANARY = "tok-canary-91c7e2aa"
OTHER = "tok-other-5d20ff31"


def kept(home: Path) -> Vault:
    vault = Vault(home)
    vault.set("ONE", CANARY, 7)
    vault.set("github/repo-x", OTHER, 8, ends_us=99)
    return vault


def changed(home: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The vault's file as somebody else would write it."""
    path = home / VAULT_FILE
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))


def old_file(home: Path) -> None:
    """As versions of ring0 before this one wrote it."""
    secrets = {"ONE": {"value": CANARY, "set_us": 7}, "TWO": {"value": OTHER, "set_us": 8}}
    path = home / VAULT_FILE
    path.write_text(json.dumps({"version": 1, "secrets": secrets}))
    path.chmod(0o600)


# --- what lies on disk ----------------------------------------------------------------------------


def test_no_value_lies_on_disk_in_any_form(tmp_path: Path) -> None:
    kept(tmp_path)
    content = (tmp_path / VAULT_FILE).read_bytes() + (tmp_path / KEY_FILE).read_bytes()
    for value in (CANARY, OTHER):
        assert value.encode() not in content and value.encode().hex().encode() not in content
        assert base64.b64encode(value.encode())[:-4] not in content
    assert b"github/repo-x" in content


def test_each_secret_is_sealed_under_a_key_of_its_own_and_never_twice_the_same_way(
    tmp_path: Path,
) -> None:
    vault = Vault(tmp_path)
    entries = []
    for name in ("A", "B", "A", "A"):
        vault.set(name, CANARY, 7)
        entries.append(vault._state.entries[name])
    assert len({entry.key for entry in entries}) == len({entry.sealed for entry in entries}) == 4
    assert [entry.version for entry in entries] == [1, 1, 2, 3]


@pytest.mark.parametrize(
    "name", ["ONE", "github/repo-x", "secret://github/repo-x", "secret://ONE", "a/b/c.d/e_f"]
)
def test_a_secret_goes_by_its_name_with_or_without_its_scheme(tmp_path: Path, name: str) -> None:
    Vault(tmp_path).set(name, CANARY, 7)
    found = Vault(tmp_path)
    plain = name.removeprefix("secret://")
    assert found.value(plain) == found.value(f"secret://{plain}") == CANARY
    assert list(found.names()) == [plain]
    found.remove(name)
    assert not Vault(tmp_path).names()


@pytest.mark.parametrize(
    "name",
    ["/a", "a/", "a//b", "a/../b", "a/1", "secret://", "secret:///a", "https://a", "a/" * 70],
)
def test_a_name_with_empty_or_strange_parts_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        Vault(tmp_path).set(name, CANARY, 7)


# --- what was changed behind our back -------------------------------------------------------------


def _flip(entry: dict[str, Any], field: str) -> None:
    raw = bytearray(base64.b64decode(entry[field]))
    raw[-1] ^= 1
    entry[field] = base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    "change",
    [
        lambda file: _flip(file["secrets"]["ONE"], "sealed"),
        lambda file: _flip(file["secrets"]["ONE"], "key"),
        lambda file: file["secrets"]["ONE"].update(version=2),
        lambda file: file["secrets"]["ONE"].update(set_us=8),
        lambda file: file["secrets"]["ONE"].update(ends_us=1),
        lambda file: file["secrets"]["ONE"].update(sealed=""),
        lambda file: file["secrets"].update(ONE=file["secrets"]["github/repo-x"]),
        lambda file: file["secrets"]["ONE"].update(
            sealed=file["secrets"]["github/repo-x"]["sealed"]
        ),
    ],
)
def test_an_entry_that_was_changed_or_swapped_is_refused_and_the_rest_is_still_there(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    kept(tmp_path)
    changed(tmp_path, change)
    vault = Vault(tmp_path)
    with pytest.raises(StoreDamaged) as refused:
        vault.values()
    assert "ONE" in refused.value.why and "github" not in refused.value.why
    assert CANARY not in "".join(traceback.format_exception(refused.value))
    assert vault.value("ONE") == "" and vault.value("github/repo-x") == OTHER
    assert vault.shut() == ["ONE"]
    vault.set("ONE", CANARY + "2", 9)  # What the error says to do.
    assert dict(Vault(tmp_path).values()) == {"ONE": CANARY + "2", "github/repo-x": OTHER}


def test_an_entry_that_does_not_open_is_never_lost_to_a_change_of_keys(tmp_path: Path) -> None:
    kept(tmp_path)
    changed(tmp_path, lambda file: _flip(file["secrets"]["ONE"], "sealed"))
    before = (tmp_path / VAULT_FILE).read_bytes()
    with pytest.raises(StoreDamaged, match="not opened"):
        Vault(tmp_path).rekey()
    assert (tmp_path / VAULT_FILE).read_bytes() == before
    Vault(tmp_path).remove("ONE")
    assert Vault(tmp_path).rekey() == 1


@pytest.mark.parametrize("size", [0, 1, 20, 100, -1])
def test_a_file_that_was_cut_short_is_refused_and_left_as_it_is(tmp_path: Path, size: int) -> None:
    kept(tmp_path)
    path = tmp_path / VAULT_FILE
    cut = path.read_bytes()[:size]
    path.write_bytes(cut)
    for use in (Vault, lambda home: Vault(home).set("NEW", CANARY, 9)):
        with pytest.raises(StoreDamaged):
            use(tmp_path)
    assert path.read_bytes() == cut


@pytest.mark.parametrize("how", ["gone", "another", "empty", "cut", "not-json"])
def test_a_key_that_is_lost_is_told_as_that_and_nothing_is_overwritten(
    tmp_path: Path, how: str
) -> None:
    kept(tmp_path)
    path, sealed = tmp_path / KEY_FILE, (tmp_path / VAULT_FILE).read_bytes()
    good = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "another":
        other = tmp_path / "other"
        other.mkdir()
        kept(other)
        shutil.copy(other / KEY_FILE, path)
    else:
        path.write_bytes({"empty": b"", "cut": good[:-10], "not-json": b"key"}[how])
    for use in (Vault, lambda home: Vault(home).set("NEW", CANARY, 9)):
        with pytest.raises(StoreDamaged) as refused:
            use(tmp_path)
        assert KEY_FILE in refused.value.why and "copy" in refused.value.todo
        assert good.split(b'"key":"')[1][:20].decode() not in str(refused.value)
    assert (tmp_path / VAULT_FILE).read_bytes() == sealed
    path.unlink(missing_ok=True)
    path.write_bytes(good)
    path.chmod(0o600)
    assert Vault(tmp_path).value("ONE") == CANARY


@pytest.mark.parametrize("how", ["others-read", "link", "fifo", "huge"])
def test_a_key_file_that_others_could_read_or_that_leads_elsewhere_is_refused(
    tmp_path: Path, how: str
) -> None:
    kept(tmp_path)
    path = tmp_path / KEY_FILE
    if how == "others-read":
        path.chmod(0o604)
    elif how == "huge":
        path.write_bytes(b" " * 10_000)
    else:
        path.rename(tmp_path / "elsewhere")
        if how == "link":
            path.symlink_to(tmp_path / "elsewhere")
        else:
            os.mkfifo(path, 0o600)
    with pytest.raises(StoreDamaged) as refused:
        Vault(tmp_path)
    assert how != "huge" or "larger than" in refused.value.why


# --- files of version 1 ---------------------------------------------------------------------------


def test_a_file_of_version_1_is_read_once_and_sealed(tmp_path: Path) -> None:
    old_file(tmp_path)
    assert dict(Vault(tmp_path).values()) == {"ONE": CANARY, "TWO": OTHER}
    content = (tmp_path / VAULT_FILE).read_bytes()
    assert CANARY.encode() not in content and json.loads(content)["version"] == 2
    assert dict(Vault(tmp_path).values()) == {"ONE": CANARY, "TWO": OTHER}
    assert Vault(tmp_path).names() == {"ONE": 7, "TWO": 8}


def test_the_first_change_of_a_file_of_version_1_keeps_its_other_secrets(tmp_path: Path) -> None:
    old_file(tmp_path)
    stale = object.__new__(Vault)  # One that was opened before the file was there.
    stale.__init__(tmp_path / "nowhere")  # type: ignore[misc]
    stale.home, stale._path = tmp_path, tmp_path / VAULT_FILE
    stale.set("THREE", CANARY + "3", 9)
    assert set(Vault(tmp_path).values()) == {"ONE", "TWO", "THREE"}


# --- a crash at each step -------------------------------------------------------------------------


class Crash(BaseException):
    """The process is gone."""


def crash_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """At the n-th of what changes the disk, before it is done."""
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            nonlocal done
            done += 1
            if done == step:
                raise Crash
            return real(*args, **named)

        return call

    for name in ("fsync", "replace"):
        patch.setattr(os, name, counted(getattr(os, name)))
    patch.setattr(keyfile, "_write_beside", counted(keyfile._write_beside))


def _set(vault: Vault) -> None:
    vault.set("ONE", CANARY + "-new", 9)


def _rekey(vault: Vault) -> None:
    vault.rekey()


def _first(vault: Vault) -> None:
    vault.set("FIRST", CANARY, 9)


@pytest.mark.parametrize("change", [_set, _rekey, _first])
def test_a_crash_at_any_step_of_a_change_leaves_a_vault_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Vault], None]
) -> None:
    for step in range(1, 100):
        home = tmp_path / str(step)
        home.mkdir()
        if change is not _first:
            kept(home)
        vault = Vault(home)
        before = dict(vault.values())
        with monkeypatch.context() as patch:
            crash_at(step, patch)
            try:
                change(vault)
            except Crash:
                pass
            else:
                break
        after = dict(Vault(home).values())
        new = {"ONE": CANARY + "-new"} if change is _set else {}
        new = {"FIRST": CANARY} if change is _first else new
        assert after in (before, before | new)
        # And it goes on from there: another change, and no key of before is left.
        again = Vault(home)
        again.set("NEXT", OTHER, 10)
        assert dict(Vault(home).values()) == after | {"NEXT": OTHER}
        assert len(json.loads((home / KEY_FILE).read_bytes())["keys"]) == 1
        assert again.rekey() == len(after) + 1
        assert dict(Vault(home).values()) == after | {"NEXT": OTHER}
        left = sorted(path.name for path in home.iterdir())
        assert left == [VAULT_FILE, KEY_FILE], left
    assert step > 4, "it was counted"


def test_a_crash_while_an_old_file_is_sealed_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, 100):
        home = tmp_path / str(step)
        home.mkdir()
        old_file(home)
        with monkeypatch.context() as patch:
            crash_at(step, patch)
            try:
                Vault(home)
            except Crash:
                pass
            else:
                break
        assert dict(Vault(home).values()) == {"ONE": CANARY, "TWO": OTHER}
    assert step > 6


KILLED = """
import os, sys
from pathlib import Path
from ring0.identity import Vault

home = Path(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    vault = Vault(home)
    assert set(vault.values()) >= {"ONE", "github/repo-x"}, vault
    vault.rekey()
    vault.set("COUNT", f"value-number-{number}", number)
    number += 1
    print(number, flush=True)
"""


def test_a_process_that_is_killed_in_the_midst_of_changes_leaves_a_vault_that_opens(
    tmp_path: Path,
) -> None:
    kept(tmp_path)
    chance = random.Random(7)
    for _ in range(8):
        done = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert done.stdout is not None
        assert done.stdout.readline() == "ready\n"
        for _ in range(chance.randrange(1, 6)):
            done.stdout.readline()
        try:
            done.wait(chance.random() * 0.01)
        except subprocess.TimeoutExpired:
            pass
        done.kill()
        done.wait()
        said = done.stdout.read().split()
        done.stdout.close()
        found = Vault(tmp_path)
        assert found.value("ONE") == CANARY and found.value("github/repo-x") == OTHER
        assert not found.shut()
        if said:  # What it said that it had set is set, or the next one is.
            assert int(found.value("COUNT").rpartition("-")[2]) in (
                int(said[-1]),
                int(said[-1]) - 1,
            )


# --- at the same time -----------------------------------------------------------------------------


def test_readers_find_every_secret_while_the_key_is_changed_over_and_over(tmp_path: Path) -> None:
    kept(tmp_path)
    script = (
        "import sys; from pathlib import Path; from ring0.identity import Vault\n"
        "for n in range(40): Vault(Path(sys.argv[1])).rekey()"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) as rekeys:
        looked = 0
        while rekeys.poll() is None:
            assert dict(Vault(tmp_path).values()) == {"ONE": CANARY, "github/repo-x": OTHER}
            looked += 1
    assert rekeys.returncode == 0 and looked > 5


def test_a_change_that_rests_on_an_old_value_is_not_made_over_a_newer_one(tmp_path: Path) -> None:
    vault, other = kept(tmp_path), Vault(tmp_path)
    other.set("ONE", CANARY + "-newer", 9)
    with pytest.raises(Moved) as told:
        vault.put({"ONE": (CANARY + "-mine", 0)}, 10, where=("ONE", CANARY))
    assert CANARY not in str(told.value)
    assert Vault(tmp_path).value("ONE") == CANARY + "-newer" == vault.value("ONE")


def test_several_changes_are_made_as_one_or_not_at_all(tmp_path: Path) -> None:
    vault = kept(tmp_path)
    vault.put({"ONE": None, "TWO": (OTHER + "2", 5)}, 9)
    assert set(Vault(tmp_path).values()) == {"TWO", "github/repo-x"}
    with pytest.raises(InvalidInput):
        vault.put({"TWO": None, "THREE": ("short", 0)}, 10)
    assert set(Vault(tmp_path).values()) == {"TWO", "github/repo-x"} == set(vault.names())


# --- whatever is done to it -----------------------------------------------------------------------


NAMES = st.sampled_from(["A", "B", "c/d", "secret://c/d", "E.f"])
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=8, max_size=60)
DOINGS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), NAMES, VALUES),
        st.tuples(st.just("remove"), NAMES, st.just("")),
        st.tuples(st.just("rekey"), st.just(""), st.just("")),
        st.tuples(st.just("open"), st.just(""), st.just("")),
    ),
    max_size=12,
)


@given(DOINGS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_done_the_vault_holds_what_a_plain_table_would(
    tmp_path_factory: pytest.TempPathFactory, doings: list[tuple[str, str, str]]
) -> None:
    home = tmp_path_factory.mktemp("vault")
    vaults, table = [Vault(home)], {}
    for number, (what, name, value) in enumerate(doings):
        vault = vaults[number % len(vaults)]
        plain = name.removeprefix("secret://")
        if what == "set":
            vault.set(name, value, number)
            table[plain] = value
        elif what == "remove" and plain in table:
            vault.remove(name)
            del table[plain]
        elif what == "rekey":
            assert vault.rekey() == len(table)
        elif what == "open":
            vaults.append(Vault(home))
        assert dict(Vault(home).values()) == table
    vaults[0].reload()
    assert dict(vaults[0].values()) == table


# --- a full disk ----------------------------------------------------------------------------------


FULL = """
import json, sys
from pathlib import Path
from ring0.errors import StoreDamaged
from ring0.identity import Vault

home = Path(sys.argv[1])
vault = Vault(home)
vault.set("ONE", "tok-canary-91c7e2aa", 7)
filler = home / "filler"
with open(filler, "wb", buffering=0) as file:
    try:
        while True:
            file.write(b"x" * 4096)
    except OSError:
        pass
refused = 0
for change in (
    lambda: vault.set("TWO", "y" * 8000, 8), vault.rekey, vault.check_room,
    lambda: vault.put({"ONE": None, "THREE": ("z" * 8000, 0)}, 9),
):
    try:
        change()
    except StoreDamaged as error:
        assert "No space left" in str(error), error
        refused += 1
    assert Vault(home).value("ONE") == "tok-canary-91c7e2aa" == vault.value("ONE")
assert refused == 4, refused
filler.unlink()
vault.check_room()
vault.set("TWO", "y" * 8000, 8)
assert vault.rekey() == 2 and set(Vault(home).values()) == {"ONE", "TWO"}
assert len(json.loads((home / "vault.key").read_bytes())["keys"]) == 1
print("all there")
"""


def test_a_full_disk_loses_no_secret(tmp_path: Path) -> None:
    """On a real file system of 256 KB, in a mount namespace of its own."""
    mount = f"mount -t tmpfs -o size=256k tmpfs {tmp_path}"
    try:
        able = subprocess.run(["unshare", "-Urm", "sh", "-c", mount], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) here to make a small file system with")
    if able.returncode:
        pytest.skip(f"no user and mount namespaces here: {able.stderr.decode().strip()}")
    (tmp_path.parent / "full.py").write_text(FULL)
    fill = f"{sys.executable} {tmp_path.parent / 'full.py'} {tmp_path}"
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", f"{mount} && {fill}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "all there" in done.stdout


def test_what_lies_beside_it_from_one_who_was_killed_is_no_obstacle(tmp_path: Path) -> None:
    kept(tmp_path)
    for name in (VAULT_FILE, KEY_FILE):
        (tmp_path / f"{name}.new").symlink_to("/etc/passwd")
    Vault(tmp_path).rekey()
    assert Vault(tmp_path).value("ONE") == CANARY
    assert sorted(path.name for path in tmp_path.iterdir()) == [VAULT_FILE, KEY_FILE]


@pytest.fixture(autouse=True)
def _nothing_shown(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    said = capfd.readouterr()
    assert CANARY not in said.out + said.err


def test_an_entry_shows_nothing(tmp_path: Path) -> None:
    vault = kept(tmp_path)
    shown = f"{vault._state.entries!r} {vault._state.keys!r} {vault!r}"
    raw = msgspec.json.decode((tmp_path / KEY_FILE).read_bytes())["keys"][0]["key"]
    assert raw not in shown and str(base64.b64decode(raw)) not in shown and CANARY not in shown
