"""The vault: what is kept, who can read it, and that nothing shows a value."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from ring0.errors import InvalidInput, NotFound, Ring0Error, StoreDamaged
from ring0.identity import Vault
from ring0.identity.vault import VAULT_FILE

CANARY = "tok-canary-91c7e2aa"
FILES = ["vault.json", "vault.key"]


def kept(home: Path) -> Vault:
    vault = Vault(home)
    vault.set("GITHUB_TOKEN", CANARY, 7)
    return vault


def test_a_secret_is_there_for_the_next_kernel(tmp_path: Path) -> None:
    kept(tmp_path)
    assert dict(Vault(tmp_path).values()) == {"GITHUB_TOKEN": CANARY}
    assert Vault(tmp_path).names() == {"GITHUB_TOKEN": 7}


def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    kept(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    kept(tmp_path)
    (tmp_path / VAULT_FILE).chmod(0o640)
    with pytest.raises(StoreDamaged) as refused:
        Vault(tmp_path)
    assert "chmod 600" in refused.value.todo


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_plain_file_is_refused_and_never_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / VAULT_FILE
    if kind == "link":
        other = tmp_path / "other"
        other.mkdir()
        kept(other)
        path.symlink_to(other / VAULT_FILE)
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.mkdir(0o700)
    with pytest.raises(StoreDamaged):
        Vault(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"version":1}', b'{"version":2,"secrets":{}}',
     b'{"version":1,"secrets":{"A":{"value":"' + CANARY.encode() + b'","set_us":"x"}}}'],
)  # fmt: skip
def test_a_damaged_file_is_refused_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / VAULT_FILE
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(StoreDamaged) as refused:
        Vault(tmp_path)
    assert CANARY not in "".join(traceback.format_exception(refused.value))


def test_nothing_that_is_printed_shows_a_value(tmp_path: Path) -> None:
    vault = kept(tmp_path)
    shown = f"{vault!r} {vault} {vault._state.entries!r} {vault._state.keys!r}"
    assert CANARY not in shown and "GITHUB_TOKEN" in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", CANARY), ("1A", CANARY), ("A B", CANARY), ("../A", CANARY), ("A\n", CANARY),
        ("A", "sev3nch"), ("A", "x" * 8193), ("A", "two\nlines-of-it"), ("A", "nul\0nul\0nul"),
        ("A", "pässwörter"),
    ],
)  # fmt: skip
def test_what_could_not_be_kept_in_is_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Vault(tmp_path).set(name, value, 1)
    assert value not in str(refused.value)
    assert not (tmp_path / VAULT_FILE).exists()


def test_the_vault_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ring0.limits.SECRETS_MAX", 1)
    vault = kept(tmp_path)
    vault.set("GITHUB_TOKEN", CANARY + "2", 8)
    with pytest.raises(InvalidInput):
        vault.set("OTHER", CANARY, 9)


def test_a_secret_that_is_removed_is_gone_from_the_disk(tmp_path: Path) -> None:
    vault = kept(tmp_path)
    vault.remove("GITHUB_TOKEN")
    assert CANARY.encode() not in (tmp_path / VAULT_FILE).read_bytes()
    with pytest.raises(NotFound):
        vault.remove("GITHUB_TOKEN")


def test_two_who_write_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    one, other = Vault(tmp_path), Vault(tmp_path)
    one.set("ONE", CANARY, 1)
    other.set("OTHER", CANARY + "2", 2)
    one.remove("ONE")
    assert dict(Vault(tmp_path).values()) == {"OTHER": CANARY + "2"}


def test_many_processes_that_write_at_once_leave_a_whole_vault(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from ring0.identity import Vault\n"
        "for n in range(20): Vault(Path(sys.argv[1])).set(f'S{sys.argv[2]}.{n}', 'x' * 2000, n)"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(number)])
        for number in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    assert len(Vault(tmp_path).names()) == 80


def test_a_disk_that_takes_nothing_leaves_the_old_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = kept(tmp_path)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Ring0Error) as refused:
        vault.set("OTHER", CANARY, 9)
    assert "No space left" in str(refused.value) and CANARY not in str(refused.value)
    assert Vault(tmp_path).names() == {"GITHUB_TOKEN": 7} == vault.names()
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


CRASHES = """
import os, sys
from pathlib import Path
from ring0.identity import Vault
from ring0.identity.dumps import leave_no_dump

held = Vault(Path(sys.argv[1])).value("GITHUB_TOKEN")
with open("/proc/self/coredump_filter", "w") as file:
    file.write("0x33")  # As Linux begins; whoever started this may have changed it.
if sys.argv[2] == "leave-none":
    leave_no_dump()
print(int(open("/proc/self/coredump_filter").read(), 16), flush=True)
os.abort()
"""


@pytest.mark.parametrize("how", ["leave-none", "as-it-is"])
def test_a_crash_leaves_no_memory_on_disk(tmp_path: Path, how: str) -> None:
    """`as-it-is` shows that without it there would be a dump, where this machine makes files."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    kept(home)
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, str(home), how],
        cwd=here,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)),
    )
    assert done.returncode == -signal.SIGABRT, done.stderr
    dumps = list(here.iterdir())
    if how == "leave-none":
        assert done.stdout == "0\n" and dumps == []
    else:
        assert done.stdout != "0\n"
        if Path("/proc/sys/kernel/core_pattern").read_text().strip() == "core" and hard != 0:
            assert any(CANARY.encode() in dump.read_bytes() for dump in dumps)
