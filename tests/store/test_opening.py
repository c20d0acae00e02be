"""What is refused when a journal is opened, what can still be read, and what a crash leaves."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from writing import crashed, die_in_the_middle_of_the_first_page, forked, kill, write_for_ever

import journals
from ring0.errors import Ring0Error, StoreDamaged, StoreFailed, StoreFull
from ring0.observability import verify
from ring0.runtime import Runtime
from ring0.store import events as ev
from ring0.store.sqlite import HEAD, JOURNAL, SqliteStore, open_store
from ring0.store.sqlite.writer import WriterThread
from stories import tell

WAL = JOURNAL + "-wal"
HERE = Path(__file__).parent


def opened(folder: Path, *, write: bool = True) -> SqliteStore:
    return open_store(folder, Runtime(), write=write)


async def written(folder: Path, stories: int = 3) -> None:
    """A journal that was closed in order."""
    store = opened(folder)
    for number in range(stories):
        await tell(store, f"r-{number}", f"r-{number}-child")
    await store.close()


def execute(folder: Path, *statements: str) -> None:
    """Changes a journal as somebody with another program would."""
    connection = apsw.Connection(str(folder / JOURNAL))
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.close()


def contents(folder: Path) -> dict[str, bytes]:
    """All but an empty WAL, which a mere reader may leave."""
    kept = {name: folder / name for name in (JOURNAL, WAL, HEAD)}
    found = {name: path.read_bytes() for name, path in kept.items() if path.exists()}
    return {name: content for name, content in found.items() if content or name != WAL}


def cut(name: str, share: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        size = (folder / name).stat().st_size
        os.truncate(folder / name, int(size * share))

    return damage


def removed(*names: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def replaced(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return damage


def flipped(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (folder / name).write_bytes(content)

    return damage


def changed(*statements: str) -> Callable[[Path], None]:
    return lambda folder: execute(folder, *statements)


def foreign(folder: Path) -> None:
    (folder / JOURNAL).unlink()
    execute(folder, "CREATE TABLE notes (text TEXT)")


def head_of_another(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    asyncio.run(written(other))
    shutil.copy(other / HEAD, folder / HEAD)


def older_copy(folder: Path) -> None:
    old = folder / "old"
    old.mkdir()
    asyncio.run(written(old, stories=1))
    shutil.copy(old / JOURNAL, folder / JOURNAL)


NO_TRIGGERS = ("DROP TRIGGER event_is_kept", "DROP TRIGGER event_stays")

AFTER_A_CRASH = [
    ("the WAL is gone", removed(WAL), "cut short", True),
    ("the WAL and its index are gone", removed(WAL, JOURNAL + "-shm"), "cut short", True),
    ("the WAL is empty", cut(WAL, 0), "cut short", True),
    ("the WAL is cut in half", cut(WAL, 0.5), "cut short", True),
    ("a byte of the WAL is another", flipped(WAL), "cut short", True),
    ("the main file is gone", removed(JOURNAL), "is gone", False),
    ("the main file is empty", cut(JOURNAL, 0), "is empty", False),
    ("main and head file are gone", removed(JOURNAL, HEAD), "is gone, but its WAL", False),
    ("all but the head file is gone", removed(JOURNAL, WAL), "is gone, but its head", False),
]
AFTER_A_CLOSE = [
    ("of a newer ring0", changed("PRAGMA user_version = 99"), "of a newer ring0", False),
    ("of an older ring0", changed("PRAGMA user_version = 1"), "of an older ring0", False),
    ("without a version", changed("PRAGMA user_version = 0"), "has no version", False),
    ("of another program", foreign, "not a journal", False),
    ("a text file", replaced(JOURNAL, b"Dear diary, " * 900), "is damaged", False),
    ("empty", cut(JOURNAL, 0), "is empty", False),
    ("gone", removed(JOURNAL), "is gone", False),
    ("cut in half", cut(JOURNAL, 0.5), "is damaged", False),
    ("cut to its first page", cut(JOURNAL, 0.01), "is damaged", False),
    ("zeros", replaced(JOURNAL, bytes(40_960)), "is damaged", False),
    ("without a head file", removed(HEAD), "missing or unreadable", True),
    ("with an empty head file", cut(HEAD, 0), "missing or unreadable", True),
    ("with half a head file", cut(HEAD, 0.5), "missing or unreadable", True),
    ("with garbage for a head file", replaced(HEAD, b"\xff\x00" * 200), "missing or", True),
    (
        "with a head file that claims more",
        replaced(HEAD, b"ring0-head-v1 %020d %s\n" % (10_000, b"a" * 64)),
        "cut short",
        True,
    ),
    (
        "with a head file that claims less, and something else",
        replaced(HEAD, b"ring0-head-v1 %020d %s\n" % (3, b"a" * 64)),
        "not the one",
        True,
    ),
    ("with the head file of another journal", head_of_another, "not the one", True),
    ("an older copy", older_copy, "cut short", True),
    (
        "without its last event",
        changed(*NO_TRIGGERS, "DELETE FROM event WHERE idx = (SELECT max(idx) FROM event)"),
        "holds",
        True,
    ),
    (
        "without an event in the middle",
        changed(*NO_TRIGGERS, "DELETE FROM event WHERE idx = 20"),
        "holds",
        True,
    ),
    ("without a tree", changed("DELETE FROM tree"), "no Merkle tree", True),
    ("with half a tree", changed("UPDATE tree SET peaks = x'00'"), "no Merkle tree", True),
    ("with other peaks", changed("UPDATE tree SET peaks = zeroblob(length(peaks))"), "not", True),
    ("without its events", changed("DROP TABLE event"), "is damaged", True),
]


def refused(folder: Path, words: str) -> None:
    """Opening it to write is one clear error, and touches nothing."""
    before = contents(folder)
    for _ in range(2):
        with pytest.raises(StoreDamaged) as told:
            opened(folder)
        assert words in told.value.what
        assert told.value.why and told.value.todo
        assert contents(folder) == before


def readable(folder: Path, possible: bool) -> None:
    """`audit verify` still works where there is something to read, and says what is wrong."""
    before = contents(folder)
    if possible:
        store = opened(folder, write=False)
        report = asyncio.run(verify(store))
        assert not report.ok and report.problems
        asyncio.run(store.close())
    else:
        with pytest.raises(StoreDamaged) as told:
            opened(folder, write=False)
        assert told.value.what and told.value.why and told.value.todo
    assert contents(folder) == {
        **before,
        **({WAL: b""} if WAL in contents(folder) and WAL not in before else {}),
    }


@pytest.mark.parametrize(
    ("damage", "words", "possible"),
    [pytest.param(*case[1:], id=case[0]) for case in AFTER_A_CRASH],
)
def test_a_journal_that_was_damaged_after_a_crash_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], words: str, possible: bool
) -> None:
    crashed(tmp_path)
    damage(tmp_path)
    readable(tmp_path, possible)
    refused(tmp_path, words)


@pytest.mark.parametrize(
    ("damage", "words", "possible"),
    [pytest.param(*case[1:], id=case[0]) for case in AFTER_A_CLOSE],
)
def test_a_journal_that_was_damaged_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], words: str, possible: bool
) -> None:
    asyncio.run(written(tmp_path))
    damage(tmp_path)
    readable(tmp_path, possible)
    refused(tmp_path, words)


def test_what_can_not_be_opened_at_all_is_one_clear_error(tmp_path: Path) -> None:
    for write in (True, False):
        with pytest.raises(Ring0Error) as told:
            opened(tmp_path / "nowhere", write=write)
        assert told.value.what and told.value.why and told.value.todo
    (tmp_path / JOURNAL).mkdir()
    for write in (True, False):
        with pytest.raises(StoreFailed) as failed:
            opened(tmp_path, write=write)
        assert failed.value.what and failed.value.why and failed.value.todo


def test_nothing_is_open_after_a_refusal(tmp_path: Path) -> None:
    asyncio.run(written(tmp_path))
    (tmp_path / HEAD).unlink()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(StoreDamaged):
            opened(tmp_path)
    store = opened(tmp_path, write=False)
    asyncio.run(store.close())
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_is_open_after_a_close(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        asyncio.run(written(tmp_path))
        (tmp_path / JOURNAL).unlink()
        (tmp_path / HEAD).unlink()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "left", ["nothing", "an empty file", "a page without tables", "a head", "half a page"]
)
def test_a_kernel_that_died_while_it_made_the_journal_left_nothing_in_the_way(
    tmp_path: Path, left: str
) -> None:
    if left == "an empty file":
        (tmp_path / JOURNAL).touch()
    if left == "a page without tables":
        execute(tmp_path, "PRAGMA journal_mode = WAL")
        (tmp_path / HEAD).touch()
    if left == "half a page":
        die_in_the_middle_of_the_first_page(tmp_path)
    if left == "a head":
        asyncio.run(written(tmp_path, 0))
        (tmp_path / JOURNAL).unlink()
    asyncio.run(written(tmp_path))
    assert asyncio.run(_verified(tmp_path)) > 80


def test_a_head_that_lags_behind_is_brought_up(tmp_path: Path) -> None:
    asyncio.run(written(tmp_path, 1))
    behind = (tmp_path / HEAD).read_bytes()
    asyncio.run(written_again(tmp_path))
    whole = (tmp_path / HEAD).read_bytes()
    (tmp_path / HEAD).write_bytes(behind)
    store = opened(tmp_path)
    assert (tmp_path / HEAD).read_bytes() == whole != behind
    asyncio.run(store.close())


def test_a_new_journal_has_its_head_on_disk_before_its_first_event(tmp_path: Path) -> None:
    """Otherwise a power cut could leave a journal with an empty head file, which is refused."""
    store = opened(tmp_path)
    assert (tmp_path / HEAD).read_bytes().startswith(b"ring0-head-v1 %020d" % 0)
    asyncio.run(store.close())


async def written_again(folder: Path) -> None:
    store = opened(folder)
    await tell(store, "r-8", "r-9")
    await store.close()


async def _verified(folder: Path) -> int:
    store = opened(folder, write=False)
    report = await verify(store)
    assert report.ok, report.problems
    await store.close()
    return report.events


# --- kill -9 --------------------------------------------------------------------------------------


async def _numbers(folder: Path, run: str) -> dict[int, int]:
    """The numbers that a run wrote, by seq."""
    store = opened(folder)  # To write: as a kernel that starts again does.
    found = {}
    async for entry in store.entries(run):
        if isinstance(entry.body, ev.RunMoved) and entry.body.note:
            found[entry.seq] = int(entry.body.note)
    await store.close()
    return found


def test_kill_9_loses_no_acknowledged_write_and_leaves_a_prefix(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    dice = random.Random(seed)
    acknowledged = events = 0
    for turn in range(25):
        run = f"r-{turn}"
        read, told = os.pipe()
        process = forked(lambda: asyncio.run(write_for_ever(tmp_path, run, told)))  # noqa: B023
        os.close(told)
        with os.fdopen(read) as pipe:
            assert pipe.readline() == "ready\n"
            time.sleep(dice.uniform(0, 0.12))
            kill(process)
            lines = [line.split() for line in pipe if line.endswith("\n")]
        found = asyncio.run(_numbers(tmp_path, run))
        assert list(found.values()) == list(range(len(found))), f"no prefix (seed {seed})"
        for seq, number in lines:
            assert found.get(int(seq)) == int(number), f"{run} #{seq} is lost (seed {seed})"
        acknowledged += len(lines)
        events = asyncio.run(_verified(tmp_path))
    assert acknowledged > 100, "the kills never met the work"
    print(f"\n25 kills, {acknowledged} acknowledged, {events} events, none lost (seed {seed})")


def test_kill_9_while_the_journal_is_made_leaves_one_that_opens(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    dice = random.Random(seed)
    for turn in range(20):
        folder = tmp_path / str(turn)
        folder.mkdir()
        read, told = os.pipe()
        process = forked(lambda: asyncio.run(write_for_ever(folder, "r-0", told)))  # noqa: B023
        os.close(told)
        with os.fdopen(read) as pipe:
            pipe.readline()
            time.sleep(dice.uniform(0, 0.02))
            kill(process)
        try:
            asyncio.run(_numbers(folder, "r-0"))
        except Ring0Error as error:
            pytest.fail(f"{error} (seed {seed}, turn {turn}): {os.listdir(folder)}")


# --- a full disk ----------------------------------------------------------------------------------


def test_a_disk_that_is_full_loses_nothing_and_takes_only_kills_and_ends(tmp_path: Path) -> None:
    """On a real file system of 24 MB, in a mount namespace of its own."""
    mount = f"mount -t tmpfs -o size=24m tmpfs {tmp_path}"
    try:
        able = subprocess.run(["unshare", "-Urm", "sh", "-c", mount], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) here to make a small file system with")
    if able.returncode:
        pytest.skip(f"no user and mount namespaces here: {able.stderr.decode().strip()}")
    grow = f"mount -o remount,size=64m {tmp_path}"
    fill = f"{sys.executable} {HERE / 'writing.py'} {tmp_path} '{grow}'"
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", f"{mount} && {fill}"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}"},
    )
    assert done.returncode == 0, done.stderr
    assert "all there" in done.stdout


async def test_a_journal_that_may_not_grow_loses_nothing_and_takes_nothing_more(
    tmp_path: Path,
) -> None:
    store = opened(tmp_path)
    assert isinstance(store._writer, WriterThread)
    store._writer._committer._db.pragma("max_page_count", 120)
    acknowledged: list[str] = []

    async def fill(name: str) -> None:
        for number in range(10_000):
            await store.append(journals.queued(f"{name}-{number}"))
            acknowledged.append(f"{name}-{number}")

    told = await asyncio.gather(*(fill(f"r-{n}") for n in range(10)), return_exceptions=True)
    assert all(isinstance(answer, StoreFull) for answer in told)
    for _ in range(3):
        with pytest.raises(StoreFull):
            await store.append(journals.queued("r-late"))
    with pytest.raises(StoreFull):
        await store.flush()
    await store.close()
    again = opened(tmp_path)
    assert {run.id for run in await again.runs(most=10**6)} == set(acknowledged)
    await again.append(journals.queued("r-after"))
    report = await verify(again)
    assert report.ok, report.problems
    await again.close()
