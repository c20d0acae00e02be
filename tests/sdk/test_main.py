"""The program inside the sandbox, as a real process with a real socket as its door."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ring0 import errors
from ring0.sdk.door import HttpDoor, error_of
from ring0.types import AgentManifest, CallKind, Request, ToolManifest

SOURCE = str(Path(__file__).parents[2] / "src")

AGENT = """
from __future__ import annotations
import asyncio, sys
from ring0 import Context, agent, tool
import beside

print("printed at import")

@tool
async def refund(ctx: Context, order_id: str, amount: int = 3) -> dict[str, object]:
    print("printed by the tool")
    ctx.log("logged")
    return {"order": order_id, "amount": amount, "call": ctx.call_id}

@tool
def broken() -> None:
    raise ValueError("oh no")

@tool
def greedy(ctx: Context) -> None:
    ctx.memory

@tool
def leaving() -> None:
    sys.exit(3)

@agent(tools=[refund], agents=["other"])
async def support(ctx: Context, task: str) -> str:
    a, b = await asyncio.gather(ctx.tool("a", n=1), ctx.tool("b", n=2))
    return f"{task}: {a} {b}"

@agent
async def other(ctx: Context) -> None:
    raise RuntimeError("the agent's fault")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "desk.py").write_text(AGENT)
    (tmp_path / "beside.py").write_text("X = 1\n")
    return tmp_path


def sdk(*arguments: str, frame: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ring0.sdk.main", *arguments],
        input=frame, capture_output=True, timeout=60, check=False,
        env={"PYTHONPATH": SOURCE, "PATH": os.environ["PATH"], **env},
    )  # fmt: skip


def frame(body: Any) -> bytes:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return struct.pack(">I", len(encoded)) + encoded


def unframe(answer: bytes) -> Any:
    (length,) = struct.unpack(">I", answer[:4])
    assert len(answer) == 4 + length
    return json.loads(answer[4:])


def tool(folder: Path, name: str, args: Any) -> tuple[int, Any, bytes]:
    done = sdk(
        "tool", str(folder / "desk.py"), name, frame=frame({"args": args, "call_id": "r/0/1"})
    )
    return done.returncode, unframe(done.stdout), done.stderr


def test_describe_writes_only_the_manifests_of_the_file(folder: Path) -> None:
    import msgspec

    done = sdk("describe", str(folder / "desk.py"))
    assert done.returncode == 0, done.stderr
    assert b"printed at import" in done.stderr
    found = json.loads(done.stdout)
    agents = {one["name"]: msgspec.convert(one, AgentManifest) for one in found["agents"]}
    tools = {one["name"]: msgspec.convert(one, ToolManifest) for one in found["tools"]}
    assert list(agents) == ["support", "other"]
    assert list(tools) == ["refund", "broken", "greedy", "leaving"]
    assert agents["support"].entry == "desk.py:support"
    assert agents["support"].code == ("beside.py", "desk.py")
    assert agents["support"].folder == str(folder)


@pytest.mark.parametrize(
    ("text", "line", "place"),
    [
        ("import nowhere_at_all", "No module named 'nowhere_at_all'", "bad.py, line 1"),
        ("x = 1\nx = = 2", "invalid syntax", "bad.py, line 2"),
        ("def f():\n    raise ValueError('oh')\nf()", "ValueError: oh", "bad.py, line 2"),
        ("import sys\nsys.exit(0)", "SystemExit: 0", "bad.py, line 2"),
        ("from ring0 import tool\n@tool\ndef f(x): ...", "declaration", "bad.py, line 2"),
    ],
)
def test_a_file_that_does_not_import_says_where(
    tmp_path: Path, text: str, line: str, place: str
) -> None:
    (tmp_path / "bad.py").write_text(text)
    done = sdk("describe", str(tmp_path / "bad.py"))
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 2
    assert error["code"] == "agent_invalid"
    if line != "declaration":
        assert line in error["what"]
    assert error["why"].startswith(place)


@pytest.mark.parametrize(
    ("given", "what", "why"),
    [
        ('budget="5 potatoes"', "The budget '5 potatoes' can't be read.", "'5 potatoes' is not an"),
        ("priority=42", "The declaration of clerk is invalid.", "priority=42"),
    ],
)
def test_what_is_wrong_in_a_declaration_is_said_once(
    tmp_path: Path, given: str, what: str, why: str
) -> None:
    text = f"from ring0 import agent\n@agent({given})\nasync def clerk(ctx, task): ...\n"
    (tmp_path / "bad.py").write_text(text)
    done = sdk("describe", str(tmp_path / "bad.py"))
    error = json.loads(done.stdout)["error"]
    assert error["what"] == f"bad.py does not import: {what}"
    assert error["why"].startswith(f"bad.py, line 2, in <module>: {why}") and error["todo"]
    shown = done.stderr.decode()
    assert (shown.count("Why:"), shown.count("Do:")) == (1, 1) and "Traceback" not in shown


def test_a_file_that_is_not_there_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    done = sdk("describe", str(tmp_path / "none.py"))
    assert done.returncode == 2 and b"Traceback" not in done.stderr
    assert json.loads(done.stdout)["error"]["todo"]


def test_a_file_named_like_a_standard_module_does_not_replace_it(tmp_path: Path) -> None:
    text = "import sys\nassert sys.modules.get('queue') is not sys.modules[__name__]\n"
    text += "from ring0 import agent\n@agent\ndef a(ctx): ...\n"
    (tmp_path / "queue.py").write_text(text)
    done = sdk("describe", str(tmp_path / "queue.py"))
    assert json.loads(done.stdout)["agents"][0]["entry"] == "queue.py:a"


def test_a_tool_answers_in_one_frame_whatever_it_prints(folder: Path) -> None:
    code, answer, log = tool(folder, "refund", {"order_id": "7"})
    assert (code, answer) == (0, {"value": {"order": "7", "amount": 3, "call": "r/0/1"}})
    assert b"printed by the tool" in log and b"logged" in log


@pytest.mark.parametrize(
    ("name", "args", "code", "text"),
    [
        ("refund", {"order_id": 7}, "call_invalid", "order_id"),
        ("refund", {"order_id": "7", "more": 1}, "call_invalid", "more"),
        ("broken", {}, "tool_failed", "ValueError: oh no"),
        ("greedy", {}, "tool_failed", "ctx.memory"),
        ("leaving", {}, "tool_failed", "SystemExit: 3"),
        ("nothing", {}, "agent_invalid", "nothing"),
    ],
)
def test_a_tool_that_fails_says_so_in_one_frame(
    folder: Path, name: str, args: Any, code: str, text: str
) -> None:
    exit_code, answer, _ = tool(folder, name, args)
    assert exit_code != 0
    assert answer["error"]["code"] == code
    assert text in answer["error"]["what"] + answer["error"]["why"]


@pytest.mark.parametrize(
    "given", [b"", b"\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x09{}", frame(b"{}"), frame(b"[1"),
              frame({"args": {}, "call_id": "x", "more": 1})]
)  # fmt: skip
def test_a_frame_that_is_cut_or_odd_is_refused(folder: Path, given: bytes) -> None:
    done = sdk("tool", str(folder / "desk.py"), "refund", frame=given)
    assert unframe(done.stdout)["error"]["code"] == "call_invalid"


class Kernel:
    """A door's far side on a real unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.calls: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        self.cut = 0
        self.answer: Any = None

    async def __aenter__(self) -> Kernel:
        app = web.Application()
        app.router.add_post("/v1/call", self.on_call)
        app.router.add_get("/v1/run", self.on_run)
        app.router.add_post("/v1/result", self.on_result)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.UnixSite(self.runner, self.path).start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.runner.cleanup()

    async def on_call(self, request: web.Request) -> web.Response:
        self.calls.append(await request.json())
        if self.cut:
            self.cut -= 1
            assert request.transport is not None
            request.transport.abort()
        if self.answer is not None:
            return self.answer
        return web.json_response(
            {"value": self.calls[-1]["name"] * 2, "label": {"integrity": "system"}}
        )

    async def on_run(self, request: web.Request) -> web.Response:
        return web.json_response({"run": "r-1", "agent": "support", "task": "job"})

    async def on_result(self, request: web.Request) -> web.Response:
        self.results.append(await request.json())
        return web.json_response({})

    async def play(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return await asyncio.to_thread(sdk, "run", *arguments, RING0_DOOR=self.path)


async def test_run_calls_through_the_door_and_posts_the_result(folder: Path) -> None:
    async with Kernel(folder / "s") as kernel:
        done = await kernel.play(str(folder / "desk.py"), "support")
    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    assert kernel.results == [{"value": "job: aa bb"}]
    calls = sorted(kernel.calls, key=lambda call: call["counter"])
    assert calls == [
        {"kind": "tool", "name": "a", "args": {"n": 1}, "path": "0", "counter": 1},
        {"kind": "tool", "name": "b", "args": {"n": 2}, "path": "0", "counter": 2},
    ]


async def test_run_posts_the_agents_own_fault_and_prints_its_traceback(folder: Path) -> None:
    async with Kernel(folder / "s") as kernel:
        done = await kernel.play(str(folder / "desk.py"), "other")
    assert done.returncode == 1
    assert b"Traceback" in done.stderr and b"the agent's fault" in done.stderr
    (result,) = kernel.results
    assert result["error"]["code"] == "run_failed"
    assert "RuntimeError: the agent's fault" in result["error"]["what"]
    assert result["error"]["why"].startswith("desk.py, line ")


@pytest.mark.parametrize(("name", "text"), [("nobody", "nobody"), ("", "several agents")])
async def test_run_of_an_agent_that_is_not_clear_is_refused(
    folder: Path, name: str, text: str
) -> None:
    async with Kernel(folder / "s") as kernel:
        done = await kernel.play(str(folder / "desk.py"), *([name] if name else []))
    assert done.returncode == 2
    assert text in kernel.results[0]["error"]["what"]
    assert "support, other" in kernel.results[0]["error"]["todo"]
    assert json.loads(done.stdout) == kernel.results[0]


def test_run_without_a_door_ends_with_a_clear_error(folder: Path) -> None:
    done = sdk("run", str(folder / "desk.py"), "support", RING0_DOOR=str(folder / "none"))
    assert done.returncode == 1
    assert b"The door to the kernel is closed." in done.stderr and b"Traceback" not in done.stderr


async def test_a_run_that_is_put_away_or_has_ended_prints_no_error_about_it(folder: Path) -> None:
    async with Kernel(folder / "s") as kernel:
        dead = errors.RunDead("r-1 goes on no more.", todo="Start a new run.").as_dict()
        kernel.answer = web.json_response({"error": dead}, status=403)
        done = await kernel.play(str(folder / "desk.py"), "support")
    assert done.returncode == 1 and kernel.results == []
    assert done.stderr == b"printed at import\n"


REQUEST = Request(kind=CallKind.TOOL, name="a", args={}, path="0", counter=1)


async def test_a_broken_connection_is_tried_once_more_with_the_same_id(tmp_path: Path) -> None:
    door = HttpDoor(str(tmp_path / "s"))
    async with Kernel(tmp_path / "s") as kernel:
        kernel.cut = 1
        value, label = await door.call(REQUEST)
        assert (value, label.integrity) == ("aa", "system")
        assert kernel.calls[0] == kernel.calls[1]
        kernel.cut = 2
        with pytest.raises(errors.RunDead):
            await door.call(REQUEST)
        assert len(kernel.calls) == 4
    with pytest.raises(errors.RunDead):
        await door.call(REQUEST)
    await door.close()


@pytest.mark.parametrize("status", [200, 403, 500])
async def test_an_error_in_the_answer_is_raised_as_its_class(tmp_path: Path, status: int) -> None:
    door = HttpDoor(str(tmp_path / "s"))
    async with Kernel(tmp_path / "s") as kernel:
        body = {"error": errors.LoopStopped("again", why="w", todo="t").as_dict()}
        kernel.answer = web.json_response(body, status=status)
        with pytest.raises(errors.LoopStopped) as caught:
            await door.call(REQUEST)
        assert caught.value.as_dict() == body["error"]
    await door.close()


async def test_an_answer_that_is_not_one_is_an_error_of_ours(tmp_path: Path) -> None:
    door = HttpDoor(str(tmp_path / "s"))
    async with Kernel(tmp_path / "s") as kernel:
        kernel.answer = web.Response(text="<html>")
        with pytest.raises(errors.Ring0Error, match="can't be read"):
            await door.call(REQUEST)
    await door.close()


def test_an_unknown_code_is_a_plain_error() -> None:
    assert type(error_of({"code": "news", "what": "x"})) is errors.Ring0Error
    assert type(error_of({"code": "run_dead", "what": "x"})) is errors.RunDead


def test_the_types_of_what_authors_import_are_seen_by_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "typed.py").write_text(
        "from ring0 import Context, agent, tool\n"
        "from ring0 import nothing\n"
        "@tool(effect='pure')\n"
        "def double(n: int) -> int:\n    return 2 * n\n"
        "@agent(tools=[double], budget='1 call')\n"
        "async def desk(ctx: Context, task: str) -> str:\n"
        "    answer = await ctx.loop(user=task)\n"
        "    wrong: int = answer.text\n"
        "    return answer.text + double(2)\n"
        "@tool(effect='twice')\n"
        "def odd() -> None: ...\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "typed.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"MYPYPATH": SOURCE, "PATH": os.environ["PATH"]},
    )  # fmt: skip
    wrong = [
        line.split(":")[1]
        for line in done.stdout.splitlines()
        if line.startswith("typed.py:") and ": error: " in line
    ]
    assert sorted(set(wrong), key=int) == ["2", "9", "10", "11"], done.stdout


def test_importing_ring0_loads_neither_aiohttp_nor_the_kernel() -> None:
    text = "import sys, ring0; before = len(sys.modules); from ring0 import agent, Context\n"
    text += "assert 'aiohttp' not in sys.modules and 'ring0.sdk.door' in sys.modules\n"
    text += "assert not [m for m in sys.modules if m.startswith(('ring0.kernel', 'ring0.store'))]"
    done = subprocess.run([sys.executable, "-c", text], env={"PYTHONPATH": SOURCE}, check=False)
    assert done.returncode == 0
