"""`python` and `shell`: a program uses up its own sandbox and changes its run's files, no more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kernel_world import World, world

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.kernel.agent.manifests import Config, NetworkTable
from ring0.kernel.calls.egress import EgressKind, Outside, Reach
from ring0.runtime import Runtime
from ring0.store.events import CallEnded
from ring0.tools.programs.settings import read
from ring0.tools.programs.tool import drivers
from ring0.tools.registry import Tool
from ring0.tools.workspace.history import changes_of_call
from ring0.types import CallKind, CallState, Effect, Integrity, Operator, Outcome, RunState

CANARY = "canary-5f0c7d"


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with desk(tmp_path) as here:
        yield here


@contextlib.asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[World]:
    async with world(
        folder / "home",
        environment={"OPENAI_API_KEY": CANARY},
        tools={"files": {"use": "files"}},
    ) as here:
        add(here, "py", use="python", timeout_s=20)
        add(here, "sh", use="shell", timeout_s=20)
        yield here


def add(here: World, instance: str, **config: Any) -> Any:
    [driver] = drivers(instance, config, Runtime())
    return here.tool(driver)


async def py(here: World, code: str, tool: str = "py", **args: Any) -> Outcome:
    return await asyncio.wait_for(here.call(f"{tool}.run", {"code": code, **args}), 60)


async def sh(here: World, command: str, tool: str = "sh", **args: Any) -> Outcome:
    return await asyncio.wait_for(here.call(f"{tool}.run", {"command": command, **args}), 60)


async def write(here: World, path: str, text: str) -> None:
    assert (await here.call("files.write", {"path": path, "text": text})).state is CallState.OK


async def contents(here: World) -> dict[str, bytes]:
    workspace = here.run.workspace
    return {file.path: await workspace.content(file.blob) for file in await workspace.list()}


# --- what it is for -------------------------------------------------------------------------


async def test_python_computes_and_says_what_it_printed(w: World) -> None:
    outcome = await py(
        w, "import sys; print(sum(map(int, sys.stdin))); sys.exit(3)", stdin="1\n2\n"
    )
    assert outcome.state is CallState.OK, outcome
    assert outcome.value == {"stdout": "3\n", "stderr": "", "exit_code": 3, "files": []}


async def test_python_fails_with_its_own_words(w: World) -> None:
    outcome = await py(w, "raise ValueError('no luck')")
    assert outcome.state is CallState.OK
    assert outcome.value["exit_code"] == 1
    assert "ValueError: no luck" in outcome.value["stderr"]


async def test_a_shell_command_is_a_program_like_any_other(w: World) -> None:
    outcome = await sh(w, "tr a-z A-Z | sed s/B/8/; echo no >&2; exit 4", stdin="abc")
    assert outcome.value == {"stdout": "A8C", "stderr": "no\n", "exit_code": 4, "files": []}


async def test_a_program_works_in_the_runs_own_files(w: World) -> None:
    await write(w, "data/in.txt", "seven")
    await write(w, "old.txt", "old")
    outcome = await py(
        w,
        "import os\n"
        "text = open('data/in.txt').read()\n"
        "os.makedirs('out/deep')\n"
        "open('out/deep/upper.txt', 'w').write(text.upper())\n"
        "os.remove('old.txt')\n"
        "print(os.getcwd())\n",
    )
    assert outcome.value == {
        "stdout": "/work\n",
        "stderr": "",
        "exit_code": 0,
        "files": [
            {"path": "old.txt", "removed": True},
            {"path": "out/deep/upper.txt", "size_bytes": 5},
        ],
    }, outcome
    assert await contents(w) == {"data/in.txt": b"seven", "out/deep/upper.txt": b"SEVEN"}


async def test_the_files_of_a_program_that_failed_are_kept_and_those_of_one_that_was_stopped_not(
    w: World,
) -> None:
    await sh(w, "echo log > log.txt; exit 1")
    assert await contents(w) == {"log.txt": b"log\n"}
    add(w, "brief", use="shell", timeout_s=1)
    outcome = await sh(w, "echo half > half.txt; echo working; sleep 60", "brief")
    assert outcome.state is CallState.ERROR and outcome.error is not None
    assert "timeout_s" in outcome.error["what"] and "working" in outcome.error["why"]
    assert list(await contents(w)) == ["log.txt"]


async def test_one_that_was_stopped_before_it_said_a_word_is_told_without_last_words(
    w: World,
) -> None:
    add(w, "brief", use="shell", timeout_s=1)
    outcome = await sh(w, "sleep 60", "brief")
    assert outcome.error is not None
    assert outcome.error["why"] == "Nothing of its files was taken. It said nothing."


async def test_each_call_has_a_sandbox_of_its_own(w: World) -> None:
    await sh(w, "echo left > /tmp/left; (sleep 300 &) ; true")
    outcome = await sh(w, "ls /tmp; ls /proc | grep -c '^[0-9]'")
    assert outcome.value["stdout"].split()[:1] != ["left"]
    assert int(outcome.value["stdout"].split()[-1]) <= 5, "what the first left behind is gone"


# --- what it can't do -----------------------------------------------------------------------


async def test_no_network_no_secret_and_no_host_file_is_there(w: World) -> None:
    probe = (
        "import os, socket\n"
        "def closed(act):\n"
        "    try: act()\n"
        "    except OSError: return\n"
        "    print('OPEN', act.__name__)\n"
        "def dial(): socket.create_connection(('1.1.1.1', 53), 2)\n"
        "def resolve(): socket.getaddrinfo('example.com', 443)\n"
        "def shadow(): open('/etc/shadow').read()\n"
        "def home(): os.listdir('/home')\n"
        "def writes(): open('/usr/planted', 'w')\n"
        "for act in (dial, resolve, shadow, home, writes): closed(act)\n"
        f"print({CANARY[:6]!r} + {CANARY[6:]!r} in str(os.environ) + open('/proc/1/environ').read()"
        " if os.access('/proc/1/environ', os.R_OK) else False)\n"
    )
    outcome = await py(w, probe)
    assert outcome.value["stdout"] == "False\n", outcome


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "/proc/self/environ"])
async def test_a_link_to_what_the_kernel_can_read_brings_nothing_back(
    w: World, target: str
) -> None:
    outcome = await sh(w, f"ln -s {target} loot; mkdir d; ln -s / d/root; mkfifo pipe; echo x > ok")
    assert [file["path"] for file in outcome.value["files"]] == ["ok"]
    assert [left["path"] for left in outcome.value["left_out"]] == ["d/root", "loot", "pipe"]
    assert await contents(w) == {"ok": b"x\n"}


async def test_hostile_names_come_back_as_harmless_text(w: World) -> None:
    outcome = await py(
        w,
        "import os\nfor name in (b'\\xff\\xfe', b'\\x1b[2J', b'a\\\\b', b'..\\n'): open(name, 'w')",
    )
    assert outcome.state is CallState.OK, outcome
    assert outcome.value["files"] == []
    assert [left["path"] for left in outcome.value["left_out"]] == [
        "\x1b[2J", "..\n", "a\\b", "\\udcff\\udcfe"
    ]  # fmt: skip


async def test_a_program_that_prints_without_end_is_stopped(w: World) -> None:
    outcome = await sh(w, "yes")
    assert outcome.state is CallState.ERROR and outcome.error is not None
    assert "printed more" in outcome.error["what"]


async def test_of_much_output_the_beginning_and_the_end_are_told(w: World) -> None:
    outcome = await sh(w, "echo begin; head -c 1000000 /dev/zero; echo end")
    said = outcome.value["stdout"]
    assert said.startswith("begin\n") and said.endswith("end\n")
    assert "bytes are left out here" in said
    assert len(said) < limits.PROGRAM_SHOWN_SIZE_BYTES_MAX + 100


async def test_a_file_that_no_workspace_can_hold_is_refused_clearly(w: World) -> None:
    most = limits.WORKSPACE_FILE_SIZE_BYTES_MAX
    fits = await sh(w, f"head -c {most} /dev/zero > fits")
    assert fits.value["files"] == [{"path": "fits", "size_bytes": most}]
    await w.call("files.remove", {"path": "fits"})
    outcome = await sh(w, f"head -c {most + 1} /dev/zero > big; echo x > small")
    assert outcome.state is CallState.ERROR and outcome.error is not None
    assert "'big'" in outcome.error["what"] and str(most) in outcome.error["why"]
    assert "exit code 0" in outcome.error["why"]
    assert await contents(w) == {}


async def test_a_full_disk_and_too_many_files_harm_only_the_call(w: World) -> None:
    outcome = await sh(w, "for n in 1 2 3; do head -c 60000000 /dev/zero > big$n; done; rm big*")
    assert "No space left" in outcome.value["stderr"]
    outcome = await py(
        w, f"for n in range({limits.WORKSPACE_FILES_MAX + 1}): open(str(n), 'w').close()"
    )
    assert outcome.state is CallState.ERROR and outcome.error is not None
    assert f"{limits.WORKSPACE_FILES_MAX + 1} files" in outcome.error["what"]
    assert (await sh(w, "echo fine")).value["stdout"] == "fine\n"


async def test_a_command_too_long_for_linux_is_refused_before_it_starts(w: World) -> None:
    outcome = await sh(w, "#" * (limits.PROGRAM_COMMAND_SIZE_BYTES_MAX + 1))
    assert outcome.state is CallState.REFUSED
    outcome = await sh(w, "echo " + "#" * (limits.PROGRAM_COMMAND_SIZE_BYTES_MAX - 5))
    assert outcome.value["exit_code"] == 0, outcome


async def test_code_of_a_megabyte_runs(w: World) -> None:
    outcome = await py(w, "print('first')\n" + "#" * 900_000 + "\nprint('last')")
    assert outcome.value["stdout"] == "first\nlast\n"


# --- labels, undo, replay -------------------------------------------------------------------


async def test_what_a_program_says_and_makes_is_untrusted(w: World) -> None:
    await write(w, "mine.txt", "mine")
    assert w.run.row.label.integrity is Integrity.USER
    outcome = await sh(w, "cp mine.txt copy.txt")
    assert outcome.label.integrity is Integrity.UNTRUSTED
    rows = {file.path: file.label.integrity for file in await w.run.workspace.list()}
    assert rows == {"mine.txt": Integrity.USER, "copy.txt": Integrity.UNTRUSTED}
    assert w.run.row.label.integrity is Integrity.UNTRUSTED


async def test_undo_takes_all_of_a_programs_changes_back(w: World) -> None:
    await write(w, "a", "a")
    await write(w, "b", "b")
    await sh(w, "echo 2 > a; rm b; echo new > c")
    call = (await w.calls())[-1]
    assert (call.effect, bool(call.undo)) == (Effect.IDEMPOTENT, True)
    undone = await w.kernel.undo(w.run.id, by="alice", only=call.id)
    assert undone.state is RunState.DONE
    assert await contents(w) == {"a": b"a", "b": b"b"}


async def test_a_recorded_call_is_recalled_with_its_files_and_runs_no_second_time(
    w: World,
) -> None:
    code = "import os; open('id', 'wb').write(os.urandom(8))"
    first = await w.call("py.run", {"code": code}, counter=700)
    before = await contents(w)
    again = await w.call("py.run", {"code": code}, counter=700)
    assert again == first
    assert await contents(w) == before


async def test_two_programs_at_once_see_the_same_start_and_neither_destroys_the_others_work(
    w: World,
) -> None:
    await write(w, "shared", "0")
    both = await asyncio.gather(
        *(sh(w, f"sleep 1; echo {n} > own{n}; echo {n} > shared") for n in (1, 2))
    )
    assert sorted(one.state for one in both) == [CallState.ERROR, CallState.OK]
    [lost] = [one for one in both if one.error]
    assert lost.error is not None and "another call" in lost.error["what"]
    left = await contents(w)
    winner = left["shared"].decode().strip()
    assert left == {"shared": f"{winner}\n".encode(), f"own{winner}": f"{winner}\n".encode()}


async def test_a_change_of_a_file_waits_until_the_one_before_it_is_on_record(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, release = asyncio.Event(), asyncio.Event()
    append = w.store.append

    async def slow(write: Any) -> int:
        if isinstance(write.events[0], CallEnded) and not recording.is_set():
            recording.set()
            await release.wait()
        return int(await append(write))

    await sh(w, "true")  # from here on the run's label rises no more
    monkeypatch.setattr(w.store, "append", slow)
    first = w.start("sh.run", {"command": "echo program > shared"})
    await recording.wait()
    later = [
        w.start("files.write", {"path": "shared", "text": "write"}),
        w.start("sh.run", {"command": "echo other > shared"}),
    ]
    await asyncio.wait(later, timeout=1)
    assert not any(task.done() for task in later)
    release.set()
    states = [(await task).state for task in (first, *later)]
    assert states == [CallState.OK, CallState.OK, CallState.ERROR], "the last one saw no file"
    written = next(call for call in await w.calls() if call.name == "files.write")
    [change] = await changes_of_call(w.store, written)
    assert change.before is not None
    assert await w.store.blob(change.before.blob) == b"program\n"


async def test_a_killed_run_takes_its_programs_with_it(w: World) -> None:
    task = w.start("sh.run", {"command": "sleep 600.25"})
    async with asyncio.timeout(15):
        while not _running("600.25"):
            await asyncio.sleep(0.02)
    await w.kernel.kill("run", w.run.id, by="alice")
    assert not _running("600.25")
    with contextlib.suppress(BaseException):
        await task


def _running(argument: str) -> list[int]:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            if command[:1] == [b"sleep"] and argument.encode() in command:
                found.append(int(entry))
    return found


# --- what the operator says -----------------------------------------------------------------


async def test_a_pure_program_has_no_files_but_scratch_ones(w: World) -> None:
    await write(w, "mine.txt", "mine")
    tool = add(w, "calc", use="python", effect="pure")
    assert tool.manifest.effect is Effect.PURE
    outcome = await py(
        w,
        "import os\nopen('scratch', 'w').write('x')\n"
        # A Python that lies in /tmp is there as a folder.
        "files = [name for name in os.listdir() if os.path.isfile(name)]\n"
        "print(os.getcwd(), os.access('/work', os.W_OK), files)",
        "calc",
    )
    assert outcome.value["stdout"] == "/tmp False ['scratch']\n", outcome
    assert await contents(w) == {"mine.txt": b"mine"}
    assert (await w.calls())[-1].undo == ""


async def test_modules_of_the_image_are_there_before_the_program_starts(w: World) -> None:
    add(w, "img", use="python", image=["decimal", "sqlite3"])
    outcome = await py(w, "import sys; print({'decimal', 'sqlite3'} <= set(sys.modules))", "img")
    assert outcome.value["stdout"] == "True\n", outcome


async def test_limits_are_those_that_the_operator_sets(w: World) -> None:
    add(w, "small", use="python", limits={"memory_mb": 64, "tmp_mb": 4, "processes": 4})
    outcome = await py(w, "x = bytearray(200 * 2**20)", "small")
    assert outcome.state is CallState.ERROR or outcome.value["exit_code"] != 0
    outcome = await py(
        w, "for n in (1, 2): open(f'/tmp/{n}', 'wb').write(bytes(3 * 2**20))", "small"
    )
    assert "No space left" in outcome.value["stderr"]


async def test_a_workspace_that_does_not_fit_is_refused_before_the_program_starts(
    w: World,
) -> None:
    await sh(w, "head -c 6000000 /dev/urandom > big")
    add(w, "small", use="shell", limits={"tmp_mb": 4})
    outcome = await sh(w, "echo started", "small")
    assert outcome.error is not None and "full" in outcome.error["what"], outcome


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"use": "python", "colour": "red"}, "colour"),
        ({"use": "python", "timeout_s": 0}, "timeout_s"),
        ({"use": "python", "image": ["os; evil"]}, "no name of a module"),
        ({"use": "shell", "image": ["json"]}, "image"),
        ({"use": "shell", "tier": "vm"}, "tier"),
        ({"use": "python", "secrets": ["KEY"]}, "no `egress`"),
        ({"use": "python", "egress": ["example.com"], "effect": "pure"}, "not pure"),
        ({"use": "python", "egress": ["example.com"], "effect": "idempotent"}, "not idempotent"),
        ({"use": "python", "egress": ["exa mple.com"]}, "[tools.py] egress"),
        ({"use": "python", "limits": {"memory_mb": -1}}, "memory_mb"),
        ({"use": "python", "effect": "harmless"}, "effect"),
    ],
)
def test_a_setting_that_is_unknown_or_contradicts_itself_is_refused(
    config: dict[str, Any], said: str
) -> None:
    with pytest.raises(ManifestInvalid, match=re.escape(said)):
        read("py", config)


async def test_a_program_reaches_what_its_egress_names_and_nothing_else(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = Config(network=NetworkTable(allow_private=("127.0.0.0/8",)))
    outside = Outside(config, lambda name: "", Runtime())
    policy = '@id("t") @reason("Of this test.") permit (principal, action, resource);'
    async with server, world(tmp_path / "home", policy=policy) as here:
        here.kernel.gate.kinds[CallKind.EGRESS] = Tool(EgressKind(outside))
        reach = Reach(here.kernel.gate, outside, Runtime())
        settings = {"use": "python", "egress": [f"http://127.0.0.1:{port}/allowed/*"]}
        [driver] = drivers("out", settings, Runtime(), reach)
        here.tool(driver)
        outcome = await py(here, FETCHES.replace("PORT", str(port)), "out")
        calls = await here.calls()
        question = (await here.evidence(calls[0]))["question"]
    assert (question["own"], question["mutates"]) == (False, True)
    assert outcome.state is CallState.OK, outcome
    assert outcome.value["stdout"] == "answer\nrefused\nrefused\n", outcome
    assert outcome.value["files"] == [{"path": "page", "size_bytes": 6}], "and no certificate"
    assert [request.split(b" ")[1] for request in heard] == [b"/allowed/a"]
    program, *requests = calls
    assert (program.name, program.effect, program.undo) == ("out.run", Effect.ONCE, "")
    assert [(call.kind, call.state) for call in requests[:2]] == [
        (CallKind.EGRESS, CallState.OK),
        (CallKind.EGRESS, CallState.REFUSED),
    ]


FETCHES = """
import os, socket, urllib.error, urllib.request
os.environ["no_proxy"] = os.environ["NO_PROXY"] = ""  # the test's server is on loopback
page = urllib.request.urlopen("http://127.0.0.1:PORT/allowed/a").read()
open("page", "wb").write(page)
print(page.decode())
try:
    print(urllib.request.urlopen("http://127.0.0.1:PORT/other").read())
except urllib.error.HTTPError as error:
    print("refused" if b"which no rule of its `egress` allows" in error.read() else "why?")
try:
    socket.create_connection(("127.0.0.1", PORT), 2)
except OSError:
    print("refused")
"""


async def test_egress_without_anything_that_serves_it_is_refused(w: World) -> None:
    add(w, "out", use="shell", egress=["example.com"], secrets=["example"])
    task = w.start("out.run", {"command": "echo started"})
    approval = await w.pending()  # It may change the world: a person is asked.
    shown = await w.shown(approval)
    assert "  that may reach example.com" in shown["dry_run"]
    assert "  with the credential example" in shown["dry_run"]
    await w.kernel.answer(approval.id, yes=True, by=Operator(name="alice"))
    outcome = await task
    assert outcome.error is not None and outcome.error["code"] == "sandbox_unavailable"


def test_what_a_program_runs_in_is_part_of_the_tools_digest() -> None:
    one, other = (
        drivers("py", {"use": "python", "image": image}, Runtime())[0].manifest
        for image in (["json"], ["json", "csv"])
    )
    assert one.code_digest != other.code_digest
