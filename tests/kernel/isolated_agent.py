"""Agents and tools that the tests run in sandboxes: curious, faulty, or hard at work."""

import contextlib
import json
import os
import socket
import struct
import sys
import time
from pathlib import Path

from ring0 import Context, agent, tool

DOOR = "/run/ring0/door.sock"


# --- tools -----------------------------------------------------------------------------------


@tool(effect="pure")
def good(x: int) -> int:
    """Adds one."""
    return x + 1


@tool(effect="pure")
def raises() -> None:
    """Fails."""
    raise ValueError("the tool's own fault")


@tool(effect="pure", wall_s=1)
def hangs() -> None:
    """Never comes back."""
    while True:
        time.sleep(1)


@tool(effect="pure")
def dies() -> None:
    """Ends without a word."""
    os._exit(7)


@tool(effect="pure")
def floods() -> int:
    """Prints more than any pipe holds."""
    for _ in range(200):
        print("x" * 100_000)
        sys.stderr.write("y" * 100_000)
    return 5


def _answers() -> list[int]:
    """The descriptors that lead to the kernel."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            leads = os.readlink(f"/proc/self/fd/{name}")
            if int(name) > 2 and leads.startswith(("pipe", "socket")):
                found.append(int(name))
    return found


@tool(effect="pure")
def garbage(form: str) -> None:
    """Answers with what is no answer."""
    both = json.dumps({"value": 1, "error": {"what": "both"}}).encode()
    deep = b'{"value":' + b"[" * 3_000 + b"]" * 3_000 + b"}"
    body = {
        "size": struct.pack(">I", 2**32 - 1) + b"x",
        "bytes": struct.pack(">I", 4) + b"\xff\xfe\x00{",
        "both": struct.pack(">I", len(both)) + both,
        "deep": struct.pack(">I", len(deep)) + deep,
        "list": struct.pack(">I", 2) + b"[]",
        "short": b"\0",
    }[form]
    for descriptor in _answers():
        with contextlib.suppress(OSError):
            os.write(descriptor, body)
    os._exit(0)


@tool(effect="once")
def charges() -> None:
    """Acts on the world and is cut off."""
    os._exit(9)


@tool(effect="pure")
def looks(path: str) -> dict:
    """What a tool's own sandbox shows of a path and of the network."""
    return {"path": _read(path), "env": dict(os.environ), "door": os.path.exists(DOOR),
            "net": _connects("127.0.0.1", 7420)}  # fmt: skip


TOOLS = [good, raises, hangs, dies, floods, garbage, charges, looks]


@agent(name="faulty", tools=TOOLS)
async def faulty(ctx: Context, task: str) -> list:
    """Makes the calls of the task, each followed by a good one."""
    said = []
    for name, args in json.loads(task):
        try:
            said.append(["ok", await ctx.tool(name, **args)])
        except Exception as error:
            said.append([type(error).__name__, str(error)])
        said.append(["then", await ctx.tool("good", x=len(said))])
    return said


# --- curiosity -------------------------------------------------------------------------------


def _read(path: str) -> str:
    try:
        return Path(path).read_bytes()[:200].decode("latin-1")
    except OSError as error:
        return f"nothing: {type(error).__name__}"


def _connects(host: str, port: int, family: int = socket.AF_INET) -> str:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as line:
            line.settimeout(1)
            line.connect((host, port))
            return "connected"
    except OSError as error:
        return f"nothing: {type(error).__name__}"


def _datagram(host: str) -> str:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.sendto(b"out", (host, 53))
            return "sent"
    except OSError as error:
        return f"nothing: {type(error).__name__}"


def _everywhere(name: str) -> str:
    """What stands in /proc/*/NAME, of every process that shows."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{entry}/{name}").read_bytes().decode("latin-1"))
    return "\n".join(found)


def _who(path: str) -> str:
    """Which run answers at this socket."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(2)
            line.connect(path)
            line.sendall(b"GET /v1/run HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n")
            answer = b""
            while part := line.recv(65_536):
                answer += part
            return json.loads(answer.split(b"\r\n\r\n", 1)[1])["run"]
    except OSError as error:
        return f"nothing: {type(error).__name__}"


@agent(name="curious", tools=[good])
async def curious(ctx: Context, task: str) -> dict:
    """What it finds of the host, of the network and of others."""
    asked = json.loads(task)
    await ctx.tool("good", x=1)
    sockets = []
    for folder in ("/run", "/tmp", "/var", "/agent"):
        for root, _, files in os.walk(folder):
            sockets += [os.path.join(root, file) for file in files if file.endswith(".sock")]
    found = {
        "run": ctx.run,
        "files": {path: _read(path) for path in asked["files"]},
        "env": dict(os.environ),
        "processes": _everywhere("environ") + _everywhere("cmdline"),
        "net": [
            _connects("1.1.1.1", 80),
            _connects("127.0.0.1", asked["port"]),
            _connects("10.0.0.1", 22),
            _connects("::1", asked["port"], socket.AF_INET6),
            _datagram("8.8.8.8"),
        ],
        "interfaces": os.listdir("/sys/class/net") if os.path.isdir("/sys/class/net") else ["lo"],
        "sockets": sockets,
        "here": _who(DOOR),
        "elsewhere": [_who(path) for path in asked["sockets"]],
        "abstract": _read("/proc/net/unix").count("@"),
    }
    if asked.get("wait"):
        await ctx.sleep(asked["wait"])
    return found


@agent(name="leaver")
async def leaver(ctx: Context, task: str) -> str:
    """Leaves a process behind that goes on calling."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for descriptor in (0, 1, 2):
                os.close(descriptor)
            while True:
                _who(DOOR)
                time.sleep(0.01)
        os._exit(0)
    await ctx.now()
    return "left one behind"


# --- work ------------------------------------------------------------------------------------


@agent(
    name="worker",
    tools=[good],
    builtins={"files": {"use": "files"}, "bank": {"use": "sql", "database": "ledger.db"}},
)
async def worker(ctx: Context, task: str) -> dict:
    """Reads the clock, writes files and a ledger, asks once, and tells what it saw."""
    moments = [str(await ctx.now()), str(await ctx.random())]
    for name in task.split():
        await ctx.tool("files.write", path=f"notes/{name}.md", text=f"{name} at {moments[0]}")
        await ctx.tool(
            "bank.execute", statement="INSERT INTO ledger (entry) VALUES (?)", parameters=[name]
        )
    moments.append(await ctx.tool("good", x=len(task)))
    asked = await ctx.tool(
        "bank.execute", statement="DELETE FROM ledger WHERE entry = ?", parameters=["old"]
    )
    files = await ctx.tool("files.list")
    notes = [(await ctx.tool("files.read", path=one["path"]))["text"] for one in files]
    return {"moments": moments, "asked": asked, "notes": notes}
