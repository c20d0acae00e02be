"""An isolated agent's process: the sandbox it gets, and how it ends.

Also `describe`: the agent's file is imported in a sandbox to learn what it declares; the kernel
itself never imports an agent's code.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

from ring0 import limits
from ring0.errors import AgentInvalid, ManifestInvalid, NotFound, Ring0Error, RunFailed
from ring0.kernel import values
from ring0.kernel.agent import hostfiles
from ring0.kernel.agent.agents import Agent
from ring0.kernel.agent.printed import Output, plain
from ring0.kernel.folder import SNAPSHOTS
from ring0.kernel.live import LiveRun
from ring0.kernel.sandboxes import Sandboxes
from ring0.runtime import Runtime
from ring0.tools.functions import Function
from ring0.tools.registry import Means
from ring0.tools.sandbox import Exit, Mount, Sandbox, SandboxLimits, SandboxSpec
from ring0.tools.sandbox.mounts import has_place
from ring0.types import AgentManifest, Frozen, SandboxProfile, ToolManifest

_NO_KEY = "ring0-needs-no-key"
INSIDE = "/agent"
"""Where an agent's code lies inside its sandbox."""


class Declared(Frozen, frozen=True, kw_only=True):
    """What an agent's file declares."""

    agents: tuple[AgentManifest, ...] = ()
    tools: tuple[ToolManifest, ...] = ()


def _sdk(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "ring0.sdk.main", *arguments)


def _environment(program: str = "") -> dict[str, str]:
    """`program`: of a command. Where it is named by its whole path, what lies beside it comes
    first: in an environment, that is its own Python."""
    folders = [str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]
    if program.startswith("/"):
        folders.insert(0, str(Path(program).parent))
    return {
        "PATH": ":".join(dict.fromkeys(folders)),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
    }


def _spec(
    agent: Agent, argv: tuple[str, ...], sandboxes: Sandboxes, *, doors: bool, cwd: str = INSIDE
) -> SandboxSpec:
    assert agent.code is not None
    profile = agent.manifest.sandbox
    mounts = [
        Mount(str(agent.code), INSIDE),
        *_host_mounts(profile, agent.manifest.folder, agent.code.parent.parent.resolve()),
    ]
    environment = _environment(agent.manifest.command[0] if agent.manifest.command else "")
    if doors:
        environment["RING0_DOOR"] = "/run/ring0/door.sock"
        url = f"http://127.0.0.1:{limits.DOOR_PORT}"
        environment["RING0_URL"] = url
        # Where clients of any maker look for their models; which key they show is all the same.
        environment["OPENAI_BASE_URL"] = f"{url}/v1"
        environment["OPENAI_API_KEY"] = _NO_KEY
        environment["ANTHROPIC_BASE_URL"] = url
        environment["ANTHROPIC_API_KEY"] = _NO_KEY
        # No framework looks for these by itself: a program is told them in a line of its own.
        environment["RING0_MCP_URL"] = f"{url}/mcp"
        environment["RING0_MCP_CONFIG"] = "/run/ring0/mcp.json"
    return SandboxSpec(
        argv=argv,
        env=environment,
        cwd=cwd,
        mounts=tuple(mounts),
        doors=doors,
        tier=profile.tier,
        limits=SandboxLimits(
            memory_bytes=profile.memory_bytes,
            tmp_bytes=profile.tmp_bytes,
            processes=profile.processes,
        ),
        host_uid=sandboxes.next_uid(),
    )


def _host_mounts(profile: SandboxProfile, folder: str, home: Path) -> list[Mount]:
    mounts = []
    for name in profile.read:
        named = os.path.join(os.path.abspath(folder), os.path.expanduser(name))
        path = Path(named).resolve()
        if not path.exists():
            raise ManifestInvalid(
                f"[sandbox] read names {name!r}, and {path} is not there.",
                todo="Correct the path, or take it out.",
            )
        if hidden := hostfiles.secret_in(path):
            raise ManifestInvalid(
                f"[sandbox] read names {name!r}, which holds {hidden}.",
                why="What holds secrets is never given to an agent, also not as part of a folder.",
                todo="Name the files or folders that it needs, one by one.",
            )
        snapshots = path.is_relative_to(home / SNAPSHOTS)
        if home.is_relative_to(path) or path.parent == home or snapshots:
            raise ManifestInvalid(
                f"[sandbox] read names {name!r}.",
                why="ring0's own data folder is never given to an agent.",
                todo="Name less.",
            )
        mounts.append(Mount(str(path), str(path)))
        # Where a link is on the way, a program knows it by that name.
        if named == os.path.normpath(named) != str(path) and has_place(named):
            mounts.append(Mount(str(path), named))
    return mounts


def agent_spec(agent: Agent, sandboxes: Sandboxes, task: bytes) -> SandboxSpec:
    """The sandbox of an agent's own process, with its doors. A program finds its task in
    RING0_TASK. Raises ManifestInvalid."""
    manifest = agent.manifest
    if manifest.entry:
        file, _, function = manifest.entry.partition(":")
        argv = _sdk("run", f"{INSIDE}/{file}", *([function] if function else []))
    else:
        argv = manifest.command
    spec = _spec(agent, argv, sandboxes, doors=True)
    if manifest.entry or len(task) > limits.TASK_VARIABLE_SIZE_BYTES_MAX or b"\0" in task:
        return spec  # The SDK has it by itself; what no variable can hold, GET /v1/run tells.
    return msgspec.structs.replace(spec, env={**spec.env, "RING0_TASK": task.decode()})


def _tool_spec(agent: Agent, file: str, name: str, sandboxes: Sandboxes) -> SandboxSpec:
    """The sandbox of one call of a `@tool` function: the SDK is there already, the agent's file is
    imported anew."""
    arguments = ["tool", f"{INSIDE}/{file}", name]
    spec = _spec(agent, (), sandboxes, doors=False)
    code = f"import sys; from ring0.sdk.main import main; sys.exit(main({arguments!r}))"
    return msgspec.structs.replace(spec, code=code, image=("ring0.sdk.main",))


def functions(agent: Agent, sandboxes: Sandboxes, means: Means) -> list[Function]:
    """The drivers of an agent's `@tool` functions, each call in a sandbox of its own."""
    file = agent.manifest.entry.partition(":")[0]
    return [
        Function(
            # A tool is more than its schema: pinned with it is the code that it runs.
            msgspec.structs.replace(tool, code_digest=agent.digest),
            lambda name=tool.name: _tool_spec(  # type: ignore[misc]
                agent, file, name, sandboxes
            ),
            means.runtime,
            means.reach,
        )
        for tool in agent.manifest.functions
    ]


async def describe(agent: Agent, sandboxes: Sandboxes, runtime: Runtime) -> Declared:
    """Imports the agent's file in a sandbox of its own. Raises AgentInvalid with what it said."""
    file = agent.manifest.entry.partition(":")[0]
    spec = _spec(agent, _sdk("describe", f"{INSIDE}/{file}"), sandboxes, doors=False)
    sandbox = await sandboxes.start("kernel", spec, "describe")
    try:
        output = Output()
        async with asyncio.timeout(limits.TOOL_WALL_S_DEFAULT):
            await asyncio.gather(output.read(sandbox), sandbox.wait())
    except TimeoutError:
        raise AgentInvalid(
            f"{file} did not finish importing within {limits.TOOL_WALL_S_DEFAULT} s.",
            why="Something in it waits.",
            todo="Do the work in the agent function, not at import.",
        ) from None
    finally:
        await sandboxes.end(sandbox)
    return _declared(file, output)


def _declared(file: str, output: Output) -> Declared:
    # The SDK writes one line of JSON; what the author prints goes to standard error.
    try:
        body: Any = msgspec.json.decode(bytes(output.stdout))
        if isinstance(body, dict) and "error" in body:
            error = body["error"]
            raise AgentInvalid(
                plain(str(error.get("what", ""))),
                why=plain(str(error.get("why", ""))),
                todo=plain(str(error.get("todo", ""))),
            )
        return msgspec.convert(body, Declared)
    except (msgspec.MsgspecError, AttributeError, RecursionError) as error:
        raise AgentInvalid(
            f"{file} could not be read by the SDK.",
            why=plain(output.errors()[-800:]) or str(error)[:300],
            todo="Run it with Python to see why.",
        ) from None


def choose(declared: Declared, entry: str) -> AgentManifest:
    """The agent that `file.py:function` names. Raises AgentInvalid, NotFound."""
    file, _, function = entry.partition(":")
    if not declared.agents:
        raise AgentInvalid(
            f"{file} declares no agent.",
            why="No function in it has @agent.",
            todo="Decorate one: `from ring0 import agent`.",
        )
    if not function:
        if len(declared.agents) > 1:
            names = ", ".join(a.entry.partition(":")[2] or a.name for a in declared.agents)
            raise AgentInvalid(
                f"{file} declares several agents: {names}.", todo=f"Say which: `{file}:NAME`."
            )
        return declared.agents[0]
    for manifest in declared.agents:
        if function in (manifest.entry.partition(":")[2], manifest.name):
            return manifest
    raise NotFound(f"{file} declares no agent {function!r}.", todo="Correct the name.")


async def outcome(
    run: LiveRun, sandbox: Sandbox, output: Output, reading: asyncio.Task[None]
) -> Any:
    """What comes first: a result through the door, the end of the process, a divergence."""
    ending = asyncio.ensure_future(sandbox.wait())
    await asyncio.wait({ending, run.result}, return_when=asyncio.FIRST_COMPLETED)
    if not run.result.done():
        exited = await ending
        await asyncio.wait({reading}, timeout=limits.SANDBOX_KILL_S_MAX)
        if (error := run.diverged or ended_badly(run.id, exited, output)) is not None:
            raise error
        if run.agent.manifest.entry:
            raise RunFailed(
                "The agent's process ended without a result.",
                why="It left by exit() in the middle, or its loop was closed.",
                todo=f"See its output: `ring0 show {run.id} --output`.",
            )
        return plain(output.stdout.decode("utf-8", "replace")).strip()[-4000:]
    # It said what it had to say; a moment to end by itself, so that its output is whole.
    await asyncio.wait({ending}, timeout=2)
    await asyncio.wait({reading}, timeout=0.2)
    result = run.result.result()
    if isinstance(result, Ring0Error):
        raise run.diverged or result
    return result


def ended_badly(run: str, exited: Exit, output: Output) -> Ring0Error | None:
    """What the end of a process means; None: it ended well."""
    if exited.code == 0:
        return None
    how = f"exit code {exited.code}" if exited.code is not None else f"signal {exited.signal}"
    last = plain(output.errors()).strip().splitlines()[-1:] or [""]
    return RunFailed(
        f"The agent's process ended with {how}.",
        why=values.why(last[0]),
        todo=f"See its output: `ring0 show {run} --output`.",
    )


def command_code(command: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """The files of a command line that lie beneath `folder`: they are its code."""
    found = []
    for number, part in enumerate(command):
        if number == 0 and "/" not in part:
            continue  # Found on the PATH, not here.
        path = folder / part
        try:
            is_code = not part.startswith("-") and not Path(part).is_absolute() and path.is_file()
        except (OSError, ValueError):  # Too long for a path, or with a NUL: it is none.
            is_code = False
        if is_code:
            found.append(os.path.normpath(part))
    return tuple(found)


def check_command(command: tuple[str, ...]) -> None:
    """Raises NotFound early, where a command's program is nowhere on the sandbox's PATH."""
    path = _environment()["PATH"]
    if "/" not in command[0] and shutil.which(command[0], path=path) is None:
        raise NotFound(
            f"There is no program {command[0]!r} for the sandbox.",
            why=f"Its PATH is {path}.",
            todo="Install it under /usr, or name it by a path in `[sandbox] read`.",
        )
