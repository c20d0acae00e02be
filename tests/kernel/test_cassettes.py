"""Runs of each kind, exported and replayed in another folder and another HOME, from the file alone;
and files from strangers, which are refused."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_isolated import ask_of, kernel_at, result, start

from ring0 import limits
from ring0.errors import CassetteInvalid
from ring0.gateway.playing import _check_sandbox, play
from ring0.kernel.kernel import Kernel
from ring0.kernel.replay import Replayed
from ring0.kernel.replaying import cassette as tape
from ring0.kernel.replaying.exporting import export
from ring0.observability.proof.proofs import inclusion
from ring0.observability.proof.tiles import Tiles
from ring0.runtime import Runtime
from ring0.store import address
from ring0.store.merkle import Tree, leaf_hash
from ring0.tools.sandbox import tiers
from ring0.tools.sandbox.probe import Probe
from ring0.types import AgentManifest, Budget, CallState, ModelConfig, Operator, SandboxProfile

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


def recorded(record: Callable[[Path], Coroutine[Any, Any, Any]], folder: Path) -> Any:
    """Recorded once for all tests. Nothing is left of the folder that it was recorded in."""
    with ThreadPoolExecutor() as threads:
        found = threads.submit(lambda: asyncio.run(record(folder))).result()
    shutil.rmtree(folder)
    return found


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    found: tuple[bytes, str] = recorded(family_run, tmp_path_factory.mktemp("family"))
    return found


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str, Any]:
    found: tuple[bytes, str, Any] = recorded(program_run, tmp_path_factory.mktemp("program"))
    return found


async def played(data: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Replayed]:
    """In another folder and another HOME."""
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    return await play(data, Runtime())


@pytest.fixture
def there(tmp_path: Path) -> Path:
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


async def test_a_family_of_runs_replays_elsewhere_from_its_export_alone(
    family: tuple[bytes, str], there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = family
    found = await played(data, there, monkeypatch)
    assert [one.ok for one in found] == [True] * 3, [one.divergence for one in found]
    assert found[0].run == run and found[0].calls == found[0].matched > 8
    assert all(one.calls == one.matched == 4 for one in found[1:])


async def test_an_unmodified_program_hears_the_same_bytes_in_the_same_pieces_elsewhere(
    program: tuple[bytes, str, Any], there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _, value = program
    assert value["one"][1] >= 3 and value["one"] != value["two"], "it did stream"
    (found,) = await played(data, there, monkeypatch)
    assert found.ok and found.calls == found.matched == 3, found.divergence


async def test_other_code_is_held_against_the_recording(
    family: tuple[bytes, str], there: Path
) -> None:
    data, run = family
    changed = there / "changed"
    changed.mkdir()
    code = (HERE / "recorded_agents.py").read_text()
    (changed / "agent.py").write_text(code)
    assert all(one.ok for one in await play(data, Runtime(), code=changed))
    (changed / "agent.py").write_text(code.replace('("stuck", {})', '("stuck", {"x": 1})'))
    first, *others = await play(data, Runtime(), code=changed)
    assert not first.ok and "stuck" in first.divergence and first.at == f"{run}/0/6"
    assert all(one.ok for one in others), "the children do as they did"


# --- files from strangers ------------------------------------------------------------------------


async def test_a_cassette_is_refused_wherever_a_byte_of_it_is_another(
    program: tuple[bytes, str, Any],
) -> None:
    data, _, _ = program
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
    program: tuple[bytes, str, Any],
) -> None:
    data, run, _ = program
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
        # Only of its names: they are printed.
        instead(0, frames[0][1].replace(run.encode(), b"r-\\u001b[2J")),
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


async def test_code_that_is_not_what_ran_is_not_run(program: tuple[bytes, str, Any]) -> None:
    data, _, _ = program
    frames = [
        (kind, content + b"\n# more" if kind == b"C" else content)
        for kind, content in frames_of(data)
    ]
    with pytest.raises(CassetteInvalid, match="not what"):
        await play(sealed(*frames), Runtime())


def told_otherwise(data: bytes, which: bytes, other: bytes) -> bytes:
    """The cassette as a stranger writes it who has its key: with another value, and a log of its
    own that says so."""
    frames = frames_of(data)
    head = json.loads(frames[0][1])
    key = bytes.fromhex(head["runs"][0]["key"])
    (was,) = [body[:64] for kind, body in frames if kind == b"B" and body[64:].startswith(which)]
    now = address(key, other).encode()
    bodies = []
    for kind, body in frames:
        if kind == b"E":
            _, hashes = tape._PLACE.unpack_from(body, 0)
            bodies.append(body[tape._PLACE.size + 32 * hashes :].replace(was, now))
    leaves, tree = [leaf_hash(body) for body in bodies], Tree()
    for leaf in leaves:
        tree.append(leaf)
    head |= {"size": tree.size, "root": tree.root().hex()}
    nodes = Tiles(lambda begin, end: leaves[begin:end]).nodes
    made = [(b"H", json.dumps(head).encode())]
    for index, body in enumerate(bodies):
        proof = inclusion(nodes, index, tree.size)
        made.append((b"E", tape._PLACE.pack(index, len(proof)) + b"".join(proof) + body))
    rest = [(kind, body) for kind, body in frames if kind in (b"B", b"C")]
    made += [(kind, now + other if body[:64] == was else body) for kind, body in rest]
    return sealed(*made)


async def test_values_that_make_no_sense_are_told_as_such(program: tuple[bytes, str, Any]) -> None:
    data, _, _ = program
    for which, other in (
        (b'{"manifest"', b"[]"),
        (b'{"manifest"', b"[" * 50_000),
        (b'{"manifest"', b'{"manifest":{"name":'),
        (b"go", b"\xff\xfe"),
    ):
        with pytest.raises(CassetteInvalid):
            await play(told_otherwise(data, which, other), Runtime())
    for other in (b"[]", b'{"error":"x"}', b'{"error":[]}', b'{"value":1}'):
        (found,) = await play(told_otherwise(data, b'{"value":"{', other), Runtime())
        assert not found.ok


def manifest_of(profile: SandboxProfile) -> AgentManifest:
    return AgentManifest(name="stranger", entry="a.py", folder="/srv/agent", sandbox=profile)


def test_a_strangers_recording_is_not_shown_what_its_manifest_names(tmp_path: Path) -> None:
    """What differs in a replay is printed: that would tell what lies in those files."""
    (tmp_path / "plan.txt").write_text("secret plan")
    for name in (
        str(tmp_path),
        f"{tmp_path}/plan.txt",
        "~/work",
        "~nobody-at-all",
        "../x",
        "/a\0b",
    ):
        with pytest.raises(CassetteInvalid, match="asks to be shown") as told:
            _check_sandbox(manifest_of(SandboxProfile(read=(name,))), [])
        assert "--read" in told.value.todo
    _check_sandbox(manifest_of(SandboxProfile(read=(f"{tmp_path}/plan.txt",))), [tmp_path])
    _check_sandbox(manifest_of(SandboxProfile(read=(sys.prefix,))), [])


@pytest.mark.parametrize(
    "profile",
    [
        SandboxProfile(memory_bytes=2**50),
        SandboxProfile(tmp_bytes=2**50),
        SandboxProfile(processes=2**22),
        SandboxProfile(processes=0),
        SandboxProfile(memory_bytes=-1),
    ],
)
def test_a_strangers_recording_gets_no_sandbox_without_bounds(profile: SandboxProfile) -> None:
    with pytest.raises(CassetteInvalid, match="can't be used"):
        _check_sandbox(manifest_of(profile), [])


async def test_a_stranger_can_not_have_each_value_tried_with_a_thousand_keys(
    program: tuple[bytes, str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _, _ = program
    frames = frames_of(data)
    head = json.loads(frames[0][1])
    others = [{**head["runs"][0], "run": f"r-{n}", "key": f"{n:064x}"} for n in range(900)]
    head["runs"] += others
    frames[0] = (b"H", json.dumps(head).encode())
    at = next(at for at, (kind, _) in enumerate(frames) if kind == b"B")
    frames[at] = (b"B", frames[at][1] + b"other")
    tried = 0

    def counted(key: bytes, value: bytes) -> str:
        nonlocal tried
        tried += 1
        return address(key, value)

    monkeypatch.setattr(tape, "address", counted)
    with pytest.raises(CassetteInvalid, match="not what was stored"):
        tape.read(sealed(*frames))
    assert tried <= 5


async def test_a_recording_runs_in_no_weaker_sandbox_than_the_operator_wants(
    program: tuple[bytes, str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _, _ = program
    no = Probe(available=False, error={"what": "There is none.", "why": "", "todo": ""})
    monkeypatch.setattr(tiers, "_seen", dict.fromkeys(tiers.ORDER, no))
    (found,) = await play(data, Runtime(), tier_min="container")
    assert not found.ok and "No sandbox of the tier container" in found.divergence, found


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
