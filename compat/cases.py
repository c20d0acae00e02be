"""What is tried with each client: five cases, each a run of the real `ring0`, on a data folder of
the client's own, with the client's program in a real sandbox.

A case says in a few words what did not hold; nothing: it held.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from compat import environments
from compat.clients import Client
from compat.model import StubModel

LOOK: Final = "Where is order 1234?"
PAY: Final = "Please refund order 1234."
SETTLED: Final = "Order 1234 is settled"
PAID: Final = "refunded 19.00 EUR for order 1234"
WAIT_S: Final = 240
_PIECE: Final = re.compile(r"^\[(.*)\]$", re.MULTILINE)


class Failed(Exception):
    """A case did not hold, and why."""


class World:
    """One client's data folder, and the command line."""

    def __init__(
        self, ring0: Path, root: Path, client: Client, home: Path, model: StubModel
    ) -> None:
        self.client = client
        self.model = model
        self._ring0 = ring0
        self._home = home
        self._folder = root / "examples" / client.folder
        self._bin = environments.place(root) / client.environment / "bin"

    async def prepare(self, address: str) -> None:
        self._home.mkdir(parents=True)
        (self._home / "ring0.toml").write_text(
            "[models.default]\n"
            f'provider = "openai"\nmodel = "stub"\nbase_url = "{address}"\n'
            "price_in_microusd_per_mtok = 0\nprice_out_microusd_per_mtok = 0\n"
        )

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """`ring0 …`, as whoever sits in the activated environment of that program types it."""
        path = f"{self._bin}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        return await asyncio.create_subprocess_exec(
            self._ring0, "--home", self._home, *arguments,
            cwd=self._folder,
            env={"PATH": path, "HOME": str(self._home), "LANG": "C.UTF-8"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def program(self, task: str, *more: str) -> asyncio.subprocess.Process:
        manifest = ("--manifest", "agent.toml", "--json")
        command = ("python", "support.py", *self.client.arguments, *more, task)
        return await self.start("run", *manifest, "--", *command)

    async def said(self, *arguments: str) -> Any:
        """The JSON that a verb prints."""
        done = await ended(await self.start(*arguments))
        try:
            return json.loads(done[0])
        except ValueError:
            raise Failed(f"`ring0 {' '.join(arguments)}`: {last(done[1])}") from None

    async def held(self, by: asyncio.subprocess.Process) -> Any:
        """The approval that a run of this kernel waits for."""
        async with asyncio.timeout(WAIT_S):
            while True:
                gone = by.returncode is not None
                if asks := (await self.said("approvals", "--json")).get("approvals"):
                    return asks[0]
                if gone:
                    out, err = await ended(by)
                    raise Failed(f"it ended before it was held: {last(err) or last(out)}")
                await asyncio.sleep(0.5)

    async def result(self, process: asyncio.subprocess.Process) -> str:
        """What the program printed last, where its run is done."""
        out, err = await ended(process)
        if process.returncode != 0:
            raise Failed(last(out) or last(err))
        return str(json.loads(out)["value"])


async def ended(process: asyncio.subprocess.Process) -> tuple[str, str]:
    try:
        async with asyncio.timeout(WAIT_S):
            out, err = await process.communicate()
    except TimeoutError:
        raise Failed(f"it had not ended after {WAIT_S} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


@asynccontextmanager
async def killed_after(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """Whatever happens inside, nothing is left behind."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def last(text: str) -> str:
    """What a verb said in the end: its error, where it has one."""
    try:
        error = json.loads(text)["error"]
        return f"{error['what']} {error['why']}".strip()[:300]
    except (ValueError, KeyError, TypeError):
        return " ".join(line.strip() for line in text.strip().splitlines()[-2:])[:300]


def _check(holds: bool, why: str) -> None:
    if not holds:
        raise Failed(why)


# --- the cases -------------------------------------------------------------------------------


async def round_trip(world: World) -> None:
    """A tool of the agent's own is proposed, carried out by it, and its result told to the model,
    which the kernel has taken in as untrusted."""
    value = await world.result(await world.program(LOOK))
    _check(SETTLED in value and "lost on its way" in value, f"it said {value[-200:]!r}")
    shown = await world.said("show", "last", "--json")
    kinds = [call["kind"] for call in shown["calls"]]
    _check("proposal" in kinds, f"no proposal on record: {kinds}")
    if world.client.tells_results:
        _check("observed" in kinds, f"no result of a tool on record: {kinds}")
        label = shown["run"]["label"]["integrity"]
        _check(label == "untrusted", f"the run has read what its tool returned, and is {label}")


async def streaming(world: World) -> None:
    """The same in pieces, and the pieces are the whole."""
    value = await world.result(await world.program(LOOK, "--stream"))
    pieces = _PIECE.findall(value)
    _check(len(pieces) > 3, f"it came in {len(pieces)} pieces: {value[-200:]!r}")
    if "smolagents" not in world.client.name:  # Its last word is a tool's argument, never text.
        _check(SETTLED in "".join(pieces), f"the pieces are {''.join(pieces)[-200:]!r}")
    _check(SETTLED in value.splitlines()[-1], f"it said {value[-200:]!r}")


async def approved(world: World) -> None:
    """A proposal waits for a person; the agent hears of it once they have said yes."""
    process = await world.program(PAY)
    async with killed_after(process):
        ask = await world.held(process)
        tool = ask.get("shown", {}).get("tool")
        _check(tool == world.client.refund, f"{tool} was held")
        await world.said("approve", ask["id"], "--json")
        value = await world.result(process)
    _check(PAID in value, f"it said {value[-200:]!r}")


async def denied(world: World) -> None:
    """A person says no: the tool never runs, and the program goes on to a good end."""
    process = await world.program(PAY)
    async with killed_after(process):
        ask = await world.held(process)
        await world.said("deny", ask["id"], "--json")
        value = await world.result(process)
    _check(PAID not in value, "the refund was made all the same")
    _check("not allowed" in value, f"it said {value[-200:]!r}")


async def recovered(world: World) -> None:
    """Killed with SIGKILL while a person is asked, started again, approved, done: the same calls,
    no question to the model twice; and its journal alone brings the program to the same result."""
    process = await world.program(PAY)
    async with killed_after(process):
        ask = await world.held(process)
        before = await world.said("show", "last", "--json")
        process.send_signal(signal.SIGKILL)
        await process.wait()
    again = await world.start("recover", "--json")
    async with killed_after(again):
        await asyncio.sleep(1)
        ask = await world.held(again)
        await world.said("approve", ask["id"], "--json")
        _, err = await ended(again)
        _check(again.returncode == 0, f"recover: {last(err)}")
    after = await world.said("show", "last", "--json")
    value = str(after["result"])
    _check(PAID in value, f"it said {value[-200:]!r}")
    lost = {call["id"] for call in before["calls"]} - {call["id"] for call in after["calls"]}
    _check(not lost, f"other calls than before: {sorted(lost)}")
    paid, calls = world.model.asked, [one for one in after["calls"] if one["kind"] == "model"]
    _check(paid == len(calls), f"{len(calls)} questions were asked of the model {paid} times")
    replay = await world.start("replay", "last")
    out, err = await ended(replay)
    _check(replay.returncode == 0, f"replay: {last(err or out)}")


CASES: Final[dict[str, Callable[[World], Awaitable[None]]]] = {
    "tool round trip": round_trip,
    "streaming": streaming,
    "held, allowed": approved,
    "held, denied": denied,
    "killed, recovered": recovered,
}
