"""`make phoenix`: spans of real runs at Arize Phoenix, counted by asking it. Offline.

Phoenix comes from PyPI into an environment of its own and runs in a network namespace of its own
(its gRPC listens on every interface; and so nothing of either can reach the network). Runs are made
by `ring0 run`, sent by `ring0 export otlp`, over HTTP and over gRPC. An answer of 200 does not mean
that anything was stored: what is there is asked for, until it is there. Not a benchmark.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
PHOENIX = Path(os.environ.get("RING0_PHOENIX", HERE / ".venv-phoenix" / "bin" / "phoenix"))
RING0 = Path(sys.executable).with_name("ring0")
HTTP, GRPC = 6006, 4317
WAIT_S = 90
INSIDE = "--inside"
AGENT = '''
from ring0 import Context, agent, tool


@tool(effect="pure")
def double(n: int) -> int:
    """Doubles."""
    return 2 * n


@agent(builtins={"files": {"use": "files"}})
async def plain(ctx: Context, task: str):
    await ctx.tool("files.write", path="a.txt", text=task)
    return task


@agent(tools=[double], agents=["plain"], builtins={"files": {"use": "files"}})
async def parent(ctx: Context, task: str):
    for number in range(5):
        await ctx.tool("double", n=number)
    try:
        await ctx.tool("files.read", path="not-there.txt")
    except Exception as error:
        print(error)
    children = [await ctx.spawn("plain", f"part {number}") for number in range(3)]
    return [await child.wait() for child in children]
'''


def main() -> int:
    if INSIDE in sys.argv:
        return inside(Path(sys.argv[-1]))
    if not PHOENIX.exists():
        print(f"there is no {PHOENIX}: `make phoenix` installs it", file=sys.stderr)
        return 1
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "-r", "--net"]
    with tempfile.TemporaryDirectory(prefix="ring0-phoenix-") as folder:
        return subprocess.run([*unshare, sys.executable, __file__, INSIDE, folder]).returncode


def inside(folder: Path) -> int:
    """In the namespace: there is nothing but its own loopback."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    phoenix = started(folder)
    try:
        return compared(folder)
    finally:
        phoenix.send_signal(signal.SIGTERM)
        phoenix.wait(30)


def started(folder: Path) -> subprocess.Popen[bytes]:
    kept = folder / "phoenix"
    kept.mkdir()
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "PHOENIX_WORKING_DIR": str(kept),
        "PHOENIX_HOST": "127.0.0.1", "PHOENIX_PORT": str(HTTP), "PHOENIX_GRPC_PORT": str(GRPC),
        "PHOENIX_TELEMETRY_ENABLED": "false", "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }  # fmt: skip
    with (folder / "phoenix.log").open("wb") as log:
        phoenix = subprocess.Popen(
            [PHOENIX, "serve"], env=environment, cwd=folder, stdout=log, stderr=log
        )
    ends = time.monotonic() + WAIT_S
    while time.monotonic() < ends and phoenix.poll() is None:
        try:
            stored()
            return phoenix
        except (OSError, ValueError, KeyError):
            time.sleep(0.3)
    raise SystemExit(f"Phoenix does not answer:\n{(folder / 'phoenix.log').read_text()[-2_000:]}")


def stored() -> set[str]:
    """Ids of all spans that Phoenix gives back when it is asked for them."""
    found: set[str] = set()
    after = ""
    while True:
        url = f"http://127.0.0.1:{HTTP}/v1/projects/default/spans?limit=1000{after}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            page: dict[str, Any] = json.load(answer)
        found |= {span["context"]["span_id"] for span in page["data"]}
        if not page.get("next_cursor"):
            return found
        after = f"&cursor={page['next_cursor']}"


def until(count: int) -> int:
    """How many are there once they are, or after a while."""
    ends = time.monotonic() + 30
    while len(stored()) < count and time.monotonic() < ends:
        time.sleep(0.3)
    time.sleep(2)  # What would come twice has its time to come.
    return len(stored())


def ring0(folder: Path, *given: str) -> Any:
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "RING0_HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
    }  # fmt: skip
    done = subprocess.run(
        [RING0, *given, "--json"], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"ring0 {' '.join(given)}:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def configure(folder: Path, protocol: str) -> None:
    address = (
        f"http://127.0.0.1:{HTTP}/v1/traces" if protocol == "http" else (f"http://127.0.0.1:{GRPC}")
    )
    (folder / "home" / "ring0.toml").write_text(
        f'[otlp]\nendpoint = "{address}"\nprotocol = "{protocol}"\n'
        '[network]\nallow_private = ["127.0.0.1/32"]\n'
    )


def compared(folder: Path) -> int:
    (folder / "home").mkdir(mode=0o700)
    (folder / "agent.py").write_text(AGENT)
    print(f"{'':<38}{'sent':>8}{'found':>8}")
    good, there = True, 0
    for protocol in ("http", "grpc"):
        configure(folder, protocol)
        run = ring0(folder, "run", "agent.py:parent", f"over {protocol}")["run"]
        sent = ring0(folder, "export", "otlp", run)["spans"]
        there += sent
        found = until(there)
        print(f"{f'over {protocol}, a tree of 4 runs':<38}{sent:>8}{found:>8}")
        again = ring0(folder, "export", "otlp", run)["spans"]
        after = until(there)
        print(f"{'  the same once more':<38}{again:>8}{after:>8}")
        good = good and found == there == after and again == sent > 0
    print("N of N by query, and once more adds none" if good else "NOT the same: see above")
    return 0 if good else 1


if __name__ == "__main__":
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        raise SystemExit("It needs `unshare` (util-linux) and `ip` (iproute2).")
    sys.exit(main())
