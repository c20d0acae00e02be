"""Runs of each kind, exported and replayed in another folder and another HOME, from the file alone;
and files from strangers, which are refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_isolated import ask_of, kernel_at, result, start

from ring0 import limits
from ring0.errors import CassetteInvalid
from ring0.gateway.playing import play
from ring0.kernel.kernel import Kernel
from ring0.kernel.replay import Replayed
from ring0.kernel.replaying import cassette as tape
from ring0.kernel.replaying.exporting import export
from ring0.runtime import Runtime
from ring0.types import AgentManifest, Budget, CallState, ModelConfig, Operator

HERE = Path(__file__).parent
SCRIPT = """
answer = "so be it, {said} and that is all there is to say of it"
[[rules]]
when = 'one'
say = "first of all, and then on and on until it is done"
"""


def scripted(folder: Path) -> dict[str, ModelConfig]:
    (folder / "model.toml").write_text(SCRIPT)
    return {"default": ModelConfig(provider="scripted", script="model.toml")}


async def taken(kernel: Kernel, folder: Path, run: str) -> bytes:
    await kernel.store.flush()
    row = await kernel.store.run(run)
    assert row is not None
    return (await export(folder / "home", kernel.store, kernel.runtime, row)).data


async def family_run(folder: Path) -> tuple[bytes, str]:
    """A parent with two children at once, failures, a time-out, an approval, a model."""
    (folder / "agent.py").write_text((HERE / "recorded_agents.py").read_text())
    manifest = AgentManifest(
        name="parent",
        entry="agent.py:parent",
        agents=("child",),
        folder=str(folder),
        models=scripted(folder),
    )
    async with kernel_at(folder) as kernel:
        row = await start(kernel, manifest, "30")
        approval = await ask_of(kernel, row.id)
        await kernel.answer(approval, yes=True, by=Operator(name="alice"))
        value = await result(kernel, row)
        assert value["paid"] == "charged 30" and len(value["said"]) == 3
        return await taken(kernel, folder, row.id), row.id


async def program_run(folder: Path) -> tuple[bytes, str, Any]:
    (folder / "program.py").write_text((HERE / "streaming_program.py").read_text())
    manifest = AgentManifest(
        name="program",
        command=("/usr/bin/python3", "program.py"),
        code=("program.py",),
        models=scripted(folder),
        budget=Budget(calls=50),
        folder=str(folder),
    )
    async with kernel_at(folder) as kernel:
        row = await start(kernel, manifest, "go")
        value = json.loads(await result(kernel, row))
        calls = await kernel.store.calls(row.id)
        assert sum(bool(call.stream) for call in calls) == 2, "two of them went out in pieces"
        return await taken(kernel, folder, row.id), row.id, value


async def played(data: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Replayed]:
    """Where nothing is left of the folder that it was recorded in."""
    shutil.rmtree(folder)
    other = folder.parent / "elsewhere"
    other.mkdir()
    monkeypatch.setenv("HOME", str(other))
    monkeypatch.chdir(other)
    return await play(data, Runtime())


@pytest.fixture
def there(tmp_path: Path) -> Path:
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


async def test_a_family_of_runs_replays_elsewhere_from_its_export_alone(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = await family_run(there)
    found = await played(data, there, monkeypatch)
    assert [one.ok for one in found] == [True] * 3, [one.divergence for one in found]
    assert found[0].run == run and found[0].calls == found[0].matched > 8
    assert all(one.calls == one.matched == 4 for one in found[1:])


async def test_an_unmodified_program_hears_the_same_bytes_in_the_same_pieces_elsewhere(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _, value = await program_run(there)
    assert value["one"][1] >= 3 and value["one"] != value["two"], "it did stream"
    (found,) = await played(data, there, monkeypatch)
    assert found.ok and found.calls == found.matched == 3, found.divergence


async def test_other_code_is_held_against_the_recording(there: Path) -> None:
    data, run = await family_run(there)
    changed = there / "changed"
    changed.mkdir()
    code = (there / "agent.py").read_text()
    (changed / "agent.py").write_text(code)
    assert all(one.ok for one in await play(data, Runtime(), code=changed))
    (changed / "agent.py").write_text(code.replace('("stuck", {})', '("stuck", {"x": 1})'))
    first, *others = await play(data, Runtime(), code=changed)
    assert not first.ok and "stuck" in first.divergence and first.at == f"{run}/0/6"
    assert all(one.ok for one in others), "the children do as they did"


# --- files from strangers ------------------------------------------------------------------------


async def test_a_cassette_is_refused_wherever_a_byte_of_it_is_another(there: Path) -> None:
    data, _, _ = await program_run(there)
    assert tape.read(data).head.size > 10
    for at in range(0, len(data), max(1, len(data) // 400)):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(CassetteInvalid):
            tape.read(bytes(changed))
    for length in range(0, len(data), max(1, len(data) // 100)):
        with pytest.raises(CassetteInvalid):
            tape.read(data[:length])


def sealed(*frames: tuple[bytes, bytes]) -> bytes:
    """A file that is well formed, whatever is in it."""
    body = tape.MAGIC + b"".join(tape._frame(kind, content) for kind, content in frames)
    return body + tape._frame(b"Z", hashlib.sha256(body).digest())


def frames_of(data: bytes) -> list[tuple[bytes, bytes]]:
    return [(kind, bytes(content)) for kind, content in tape._frames(memoryview(data))]


async def test_a_cassette_that_a_stranger_sealed_again_is_refused_all_the_same(
    there: Path,
) -> None:
    data, run, _ = await program_run(there)
    frames = frames_of(data)
    assert sealed(*frames) == data
    events = [at for at, (kind, _) in enumerate(frames) if kind == b"E"]
    values = [at for at, (kind, _) in enumerate(frames) if kind == b"B"]
    code = [at for at, (kind, _) in enumerate(frames) if kind == b"C"]

    def without(at: int) -> bytes:
        return sealed(*frames[:at], *frames[at + 1 :])

    def instead(at: int, content: bytes, kind: bytes = b"") -> bytes:
        other = (kind or frames[at][0], content)
        return sealed(*frames[:at], other, *frames[at + 1 :])

    entry, value, file = frames[events[3]][1], frames[values[0]][1], frames[code[0]][1]
    swapped = list(frames)
    swapped[events[2]], swapped[events[3]] = swapped[events[3]], swapped[events[2]]
    longer = file[:64] + len(b"../../evil").to_bytes(2, "big") + b"../../evil" + b"x"
    absolute = file[:64] + len(b"/etc/x").to_bytes(2, "big") + b"/etc/x" + b"x"
    hostile = [
        without(events[3]),
        sealed(*swapped),
        sealed(*frames, frames[events[-1]]),
        instead(events[3], entry.replace(run.encode(), b"r-" + b"0" * (len(run) - 2))),
        instead(events[3], entry[:-2] + b" }"),
        instead(values[0], value + b" "),
        sealed(*frames, frames[values[0]]),
        instead(code[0], longer),
        instead(code[0], absolute),
        instead(code[0], file[:64] + b"\xff\xff" + file[66:]),
        instead(0, b"{}"),
        instead(0, b"[" * 100_000),
        instead(0, frames[0][1].replace(b'"size":', b'"size":9')),
        instead(events[0], b"", b"Q"),
        sealed(),
        tape.MAGIC,
        b"",
    ]
    for number, one in enumerate(hostile):
        with pytest.raises(CassetteInvalid):
            tape.read(one)
            pytest.fail(f"the hostile one #{number} was read")


async def test_code_that_is_not_what_ran_is_not_run(there: Path) -> None:
    data, _, _ = await program_run(there)
    frames = [
        (kind, content + b"\n# more" if kind == b"C" else content)
        for kind, content in frames_of(data)
    ]
    with pytest.raises(CassetteInvalid, match="not what"):
        await play(sealed(*frames), Runtime())


def test_a_frame_that_says_it_is_larger_than_its_file_takes_no_memory() -> None:
    body = tape.MAGIC + tape._FRAME.pack(b"H", 2**63)
    with pytest.raises(CassetteInvalid):
        tape.read(body + tape._frame(b"Z", hashlib.sha256(body).digest()))


def test_a_file_beyond_the_bound_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CASSETTE_SIZE_BYTES_MAX", 10)
    with pytest.raises(CassetteInvalid, match="more than"):
        tape.read(b"x" * 2_000)


async def test_an_export_says_which_tools_are_no_more_what_they_were(there: Path) -> None:
    (there / "program.py").write_text(
        (HERE / "plain_program.py").read_text().replace("delete =", "return print(1) #")
    )
    import apsw

    database = apsw.Connection(str(there / "ledger.db"))
    database.execute("CREATE TABLE ledger (id INTEGER PRIMARY KEY, entry TEXT)")
    database.close()
    manifest = AgentManifest(
        name="program",
        command=("/usr/bin/python3", "program.py"),
        code=("program.py",),
        tools={"bank": {"use": "sql", "database": "ledger.db"}},
        folder=str(there),
    )
    async with kernel_at(there) as kernel:
        row = await start(kernel, manifest, "one")
        await kernel.answer(await ask_of(kernel, row.id), yes=True, by=Operator(name="alice"))
        await result(kernel, row)
        await kernel.store.flush()
        now = await kernel.store.run(row.id)
        assert now is not None
        first = await export(there / "home", kernel.store, kernel.runtime, now)
        (there / "ledger.db").unlink()
        later = await export(there / "home", kernel.store, kernel.runtime, now)
        calls = await kernel.store.calls(row.id)
    assert any(call.state is CallState.OK and call.kind == "tool" for call in calls)
    assert not first.changed and later.changed in ((), ("bank.execute",))
    (found,) = await play(later.data, Runtime())
    assert found.ok, found.divergence
    assert msgspec.json.encode(found)
