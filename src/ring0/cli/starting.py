"""What `ring0 run` is asked to start, as a manifest: a file's agent or any program."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from ring0 import limits
from ring0.errors import AgentInvalid, InvalidInput, ManifestInvalid
from ring0.kernel.agent import environments, manifests, processes
from ring0.kernel.agent.agents import Family
from ring0.kernel.kernel import Kernel
from ring0.sdk.budget import parse_budget
from ring0.tools.sandbox.mounts import has_place
from ring0.types import AgentManifest, Budget


@dataclass(frozen=True)
class Bare:
    """A manifest as far as files say it; the rest is declared by the agent's own code."""

    manifest: AgentManifest
    around: tuple[str, ...] = ()
    """Files beside the entry that it may import while it is described."""

    async def describe(self, kernel: Kernel) -> Family:
        """With all that its code declares. Raises AgentInvalid."""
        return await kernel.describe(self.manifest, around=self.around)


def agent_of_file(named: str, manifest: Path | None, search: str = "") -> Bare:
    """`FILE.py:FUNCTION`, with the agent.toml given, or the one beside it that names this file.

    Without FILE.py: the agent of the manifest. search: the PATH on which its `command` is looked
    for, where it has one. Raises ManifestInvalid, AgentInvalid.
    """
    if not named:
        assert manifest is not None
        found = manifests.read_agent(manifest)
        if found.command:
            return Bare(_command(found, Path(found.folder), search))
        _check_places(found)
        return Bare(found, _around(found))
    name, _, function = named.partition(":")
    file = Path(name)
    if not file.is_file():
        raise AgentInvalid(
            f"There is no file {name!r}.", todo="Give the path of the agent's Python file."
        )
    file = file.absolute()
    if manifest is not None:
        read = manifests.read_agent(manifest)
        entry = os.path.relpath(file, read.folder)
        if entry.startswith(".."):
            raise ManifestInvalid(
                f"{name} does not lie beneath the folder of {manifest}.",
                why="An agent's code lies beside its manifest.",
                todo="Move one of them.",
            )
        entry += f":{function}" if function else ""
        chosen = replace(read, entry=entry, command=())
        return Bare(chosen, _around(chosen))
    beside = file.parent / manifests.AGENT_TOML
    if beside.is_file():
        read = manifests.read_agent(beside)
        its_file, _, its_function = read.entry.partition(":")
        if its_file == file.name and function in ("", its_function):
            return Bare(read, _around(read))
    entry = file.name + (f":{function}" if function else "")
    bare = AgentManifest(name="", entry=entry, folder=str(file.parent))
    return Bare(bare, _around(bare))


def _around(manifest: AgentManifest) -> tuple[str, ...]:
    """The Python files and packages beside the entry; none where the manifest names its code."""
    if manifest.code or not manifest.entry:
        return ()
    folder = Path(manifest.folder, manifest.entry.partition(":")[0]).parent
    if not folder.is_dir():
        return ()
    found = [folder / name for name in environments.beside(folder)]
    return tuple(os.path.relpath(path, manifest.folder) for path in found)


def agent_of_command(
    command: tuple[str, ...], manifest: Path | None, folder: Path, search: str
) -> Bare:
    """Any program, with the manifest given, or with none: then it has no tools. `search`: the PATH
    of whoever asks, on which a Python is looked for. Raises NotFound, ManifestInvalid,
    InvalidInput."""
    if not command:
        raise InvalidInput("There is no command after `--`.", todo="`ring0 run -- CMD ARGS`.")
    if manifest is None:
        name = os.path.basename(command[0]) or "command"
        found = AgentManifest(
            name=name, command=command, folder=str(folder), budget=limits_of_commands()
        )
    else:
        found = replace(manifests.read_agent(manifest), command=command, entry="")
    found = _command(found, folder, search)
    processes.check_command(found.command)
    return Bare(found)


def budgeted(bare: Bare, text: str) -> Bare:
    """With another budget, where it says one. Raises ManifestInvalid, InvalidInput."""
    if not bare.manifest.command:
        raise InvalidInput(
            "--budget is for programs.",
            why="What an @agent may use up stands in its decorator, or in its agent.toml.",
            todo='Write it there: `@agent(budget="0.50 USD")`, or [budget] cost_usd.',
        )
    budget = parse_budget(text, bare.manifest.budget)
    return dataclasses.replace(bare, manifest=replace(bare.manifest, budget=budget))


def limits_of_commands() -> Budget:
    """What a program may use up of which no manifest speaks: enough money for a first look."""
    return Budget(cost_microusd=limits.COMMAND_COST_MICROUSD_DEFAULT)


def beside(command: tuple[str, ...], folder: Path) -> Path | None:
    """The agent.toml in that folder, where it is about this very command."""
    path = folder / manifests.AGENT_TOML
    if not path.is_file():
        return None
    said = manifests.read_agent(path).command
    return path if said and said == command[: len(said)] else None


def typed_to(command: tuple[str, ...], here: Path) -> str:
    """The task of a program that is given none: what was typed to it, after its own file. Whoever
    typed it is the one that the run acts for."""
    files = processes.command_code(command, here)
    own = min((n for n, word in enumerate(command) if os.path.normpath(word) in files), default=0)
    return " ".join(command[own + 1 :])[: limits.TASK_SIZE_BYTES_MAX // 4]


def _command(manifest: AgentManifest, here: Path, search: str) -> AgentManifest:
    """With the Python environment that its command is of, and its code where it names none: the
    files of the command line, and those that Python may import from beside them. Raises
    ManifestInvalid."""
    _check_places(manifest)
    found = environments.with_environment(manifest, here, search)
    _check_places(found, of=found.command[0])
    if found.code:
        return found
    folder = Path(found.folder)
    code = processes.command_code(found.command, folder)
    if environments.is_python(found.command[0]):
        code += environments.imported(found.command, code, folder)
    return replace(found, code=code)


def _check_places(manifest: AgentManifest, of: str = "") -> None:
    """What can't be shown in a sandbox is told before anything starts. `of`: the program of the
    Python environment that needs it; empty: the manifest names it. Raises ManifestInvalid."""
    for name in manifest.sandbox.read:
        path = os.path.realpath(Path(manifest.folder, os.path.expanduser(name)))
        if has_place(path):
            continue
        top = os.path.join("/", Path(path).parts[1]) if len(Path(path).parts) > 1 else "/"
        why = f"It lies beneath {top}, of which each sandbox has its own: nothing is shown there."
        if not of:
            raise ManifestInvalid(
                f"[sandbox] read names {name!r}, which can't be shown to a sandbox.",
                why=why,
                todo="Put it elsewhere, beside the agent for instance.",
            )
        raise ManifestInvalid(
            f"The Python environment of {of} can't be shown to a sandbox.",
            why=why,
            todo=f"Make it elsewhere (`python -m venv ~/venvs/NAME`), install into that what the"
            f" program needs, and run that one's {os.path.basename(of)}.",
        )
