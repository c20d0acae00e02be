"""One command in one fresh sandbox: what it may use up, see and reach, and what it leaves.

For `ring0 sandbox exec`. There is no run and no journal here: nothing but the sandbox decides.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from ring0 import limits
from ring0.cli.leaving import why_not
from ring0.cli.piping import ReaderGone, hand_on, standard_input
from ring0.cli.place import Place
from ring0.errors import (
    CallDenied,
    CallInvalid,
    InvalidInput,
    LimitReached,
    NotFound,
    Ring0Error,
    ToolFailed,
)
from ring0.kernel.agent import hostfiles, manifests
from ring0.kernel.calls.outside import Outside
from ring0.kernel.folder import SNAPSHOTS
from ring0.kernel.sandboxes import UID_COUNT, UID_FIRST
from ring0.runtime import Runtime
from ring0.tools.egress import Authority, EgressAnswer, EgressRequest, Rules, parse_rules, serve
from ring0.tools.reach import AUTHORITY, with_way_out
from ring0.tools.sandbox import Mount, Sandbox, SandboxLimits, SandboxSpec, tiers
from ring0.tools.sandbox.beneath import Beneath
from ring0.tools.sandbox.running import Ran, run
from ring0.tools.sandbox.zygote import Zygotes
from ring0.tools.workspace import canonical_path

WORK: Final = "/work"
READER_GONE_EXIT: Final = 128 + 13
"""As a shell says of a program that SIGPIPE ended."""
_SIZE: Final = re.compile(r"(\d{1,12})([KMG]?)")
_TIME: Final = re.compile(r"(\d{1,9})([smh]?)")
_STOPPED: Final = {
    "wall": "it took longer than wall={wall_s} s",
    "output": "it printed more than output={output_bytes} bytes",
    "memory": "it used more memory than memory={memory_bytes} bytes and tmp={tmp_bytes} bytes",
    "cpu": "it used more CPU time than cpu={cpu_s} s",
}


class Bounds(msgspec.Struct, frozen=True):
    """What a command may use up."""

    sandbox: SandboxLimits = SandboxLimits()
    wall_s: int = limits.EXEC_WALL_S_DEFAULT
    output_bytes: int = limits.EXEC_OUTPUT_SIZE_BYTES_DEFAULT

    def told(self, stopped: str) -> str:
        """Which bound it was that ended it, and how high it was."""
        values = {**msgspec.structs.asdict(self.sandbox), "wall_s": self.wall_s,
                  "output_bytes": self.output_bytes}  # fmt: skip
        return _STOPPED[stopped].format(**values)


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for."""

    argv: tuple[str, ...]
    tier: str
    allow: tuple[str, ...] = ()
    bounds: Bounds = Bounds()
    read: tuple[str, ...] = ()
    """PATH or PATH:INSIDE."""
    workspace: Path | None = None
    out: Path | None = None
    env: dict[str, str] = {}


class Ended(msgspec.Struct, frozen=True):
    """What came of it."""

    code: int
    """Its exit code, as a shell says it."""
    copied: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    """Path, why: changed files that stay behind."""
    refused: tuple[tuple[str, int], ...] = ()
    """What it asked the network for in vain, and how often."""


class Maker:
    """Makes fresh sandboxes, each with a uid of its own where this process is root. `close` it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._zygotes = Zygotes(runtime)
        self._uid = int.from_bytes(runtime.random_bytes(4), "big")

    async def __call__(self, spec: SandboxSpec) -> Sandbox:
        """Raises SandboxUnavailable where this machine has nothing as strong as spec.tier."""
        self._uid += 1
        own = UID_FIRST + self._uid % UID_COUNT if os.geteuid() == 0 else None
        wanted = msgspec.structs.replace(spec, host_uid=own)
        return await tiers.make(wanted, self._runtime, self._zygotes)

    async def close(self) -> None:
        await self._zygotes.close()


# --- what was asked for -----------------------------------------------------------------------


def bounds_of(texts: list[str]) -> Bounds:
    """`memory=256M,processes=8,tmp=64M,cpu=5s,wall=30s,output=1M`. Raises InvalidInput."""
    sandbox: dict[str, int] = {}
    more: dict[str, int] = {}
    for pair in (part for text in texts for part in text.split(",") if part):
        name, _, value = pair.partition("=")
        if name in ("memory", "tmp"):
            sandbox[f"{name}_bytes"] = _size(pair, value)
            if name == "memory" and sandbox["memory_bytes"] < limits.EXEC_MEMORY_BYTES_MIN:
                raise _unreadable(pair, "1M or more: no program starts with less")
        elif name in ("processes", "files"):
            sandbox["open_files" if name == "files" else name] = _count(pair, value)
        elif name == "cpu":
            sandbox["cpu_s"] = _time(pair, value)
        elif name == "wall":
            more["wall_s"] = _time(pair, value)
        elif name == "output":
            more["output_bytes"] = _size(pair, value)
        else:
            raise InvalidInput(
                f"There is no limit {name[:40]!r}.",
                todo="There are: memory, tmp, processes, files, cpu, wall, output.",
            )
    return Bounds(SandboxLimits(**sandbox), **more)


def _size(pair: str, value: str) -> int:
    if (found := _SIZE.fullmatch(value)) is None:
        raise _unreadable(pair, "a size like 64M (K, M, G; else bytes)")
    number, unit = found.groups()
    return _above_zero(pair, int(number) * 1024 ** " KMG".index(unit or " "))


def _time(pair: str, value: str) -> int:
    if (found := _TIME.fullmatch(value)) is None:
        raise _unreadable(pair, "a time like 30s (s, m, h)")
    number, unit = found.groups()
    return _above_zero(pair, int(number) * {"m": 60, "h": 3_600}.get(unit, 1))


def _count(pair: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise _unreadable(pair, "a number")
    return _above_zero(pair, int(value))


def _above_zero(pair: str, value: int) -> int:
    if value == 0:
        raise _unreadable(pair, "more than 0")
    return value


def _unreadable(pair: str, wanted: str) -> InvalidInput:
    return InvalidInput(f"The limit {pair[:60]!r} can't be read.", todo=f"Give {wanted}.")


def environment_of(pairs: list[str]) -> dict[str, str]:
    """NAME=VALUE each. Raises InvalidInput; what it says shows no value: it may be a secret."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InvalidInput(
                f"An --env is not of the form NAME=VALUE: {name[:40]!r}.",
                why="Nothing of this environment is handed on by its name alone.",
                todo="Give the value, too.",
            )
        found[name] = value
    return found


def _mounts(place: Place, names: tuple[str, ...]) -> tuple[Mount, ...]:
    """Each at the same place inside, or where its name says. Raises InvalidInput."""
    mounts = []
    home = place.home.resolve()
    for name in names:
        outside, _, inside = name.partition(":")
        path = Path(outside)
        if not outside or not path.exists():
            raise NotFound(f"There is nothing at {outside!r} to read.", todo="Correct --read.")
        real = path.resolve()
        if home.is_relative_to(real) or real.is_relative_to(home):
            raise InvalidInput(
                f"--read {path} is, or holds, ring0's own data folder.",
                why="The journal and the vault are nobody's to read.",
                todo="Name less.",
            )
        if hidden := hostfiles.secret_in(real):
            raise InvalidInput(
                f"--read {path} holds {hidden}.",
                why="What holds secrets is not shown, also not as part of a folder.",
                todo="Name the files or folders that it needs, one by one.",
            )
        mounts.append(Mount(str(real), inside or os.path.abspath(path)))
    return tuple(mounts)


def _copied_in(place: Place, folder: Path | None) -> dict[str, bytes]:
    """The regular files of a folder; without links, and without what holds secrets."""
    if folder is None:
        return {}
    taken = hostfiles.Taken(
        key="--workspace",
        files_max=limits.WORKSPACE_FILES_MAX,
        file_size_bytes_max=limits.EXEC_FILE_SIZE_BYTES_MAX,
        size_bytes_max=limits.EXEC_FILES_SIZE_BYTES_MAX,
        todo="Name a smaller folder, or show it with --read.",
    )
    return hostfiles.read(str(folder), (".",), taken, place.home / SNAPSHOTS)


# --- carrying it out --------------------------------------------------------------------------


async def confine(place: Place, command: Command) -> Ended:
    """Run it. Raises LimitReached where a bound ended it; its own end is no error."""
    files = _copied_in(place, command.workspace)
    target = _opened(command.out) if command.out else None
    rules = parse_rules(command.allow, "--allow")
    spec = _spec(place, command)
    maker = Maker(place.runtime)
    refused: Counter[str] = Counter()
    try:
        sandbox = await maker(spec)
        try:
            if files and sandbox.files is not None:
                await place.runtime.in_thread(_lay_out, sandbox.files, files)
            async with _way_out(place, sandbox, rules, refused):
                await sandbox.go()
                ran = await _run(place.runtime, sandbox, command.bounds)
            if ran is None:
                return Ended(READER_GONE_EXIT)
            _check(ran, command.bounds)
            copied: list[str] = []
            left_out: list[tuple[str, str]] = []
            if target is not None and sandbox.files is not None:
                copied, left_out = await place.runtime.in_thread(
                    _copy_out, sandbox.files, files, target
                )
            return Ended(ran.code, tuple(copied), tuple(left_out), tuple(refused.most_common()))
        finally:
            await sandbox.close()
    finally:
        await maker.close()
        if target is not None:
            target.close()


def _spec(place: Place, command: Command) -> SandboxSpec:
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    works = command.workspace is not None or command.out is not None
    tier_min = manifests.read_config(place.home).sandbox.tier
    spec = SandboxSpec(
        argv=command.argv,
        env={"PATH": path, "LANG": "C.UTF-8", **command.env},
        cwd=WORK if works else "/tmp",  # noqa: S108  # of the sandbox
        mounts=_mounts(place, command.read),
        limits=command.bounds.sandbox,
        workspace=works,
        tier=tiers.stronger(command.tier, tier_min),
    )
    return with_way_out(spec, tuple(command.allow)) if command.allow else spec


async def _run(runtime: Runtime, sandbox: Sandbox, bounds: Bounds) -> Ran | None:
    """Its streams are ours. None where nobody wants to hear more of it."""
    try:
        return await run(
            sandbox, runtime, stdin=standard_input(), heard=hand_on, wall_s=bounds.wall_s,
            output_bytes=bounds.output_bytes, keep=False,
        )  # fmt: skip
    except ReaderGone:
        return None


def _check(ran: Ran, bounds: Bounds) -> None:
    if ran.stopped:
        raise LimitReached(
            f"The command was stopped: {bounds.told(ran.stopped)}.",
            todo=f"Raise it: --limit {ran.stopped}=…",
        )


@contextlib.asynccontextmanager
async def _way_out(
    place: Place, sandbox: Sandbox, rules: Rules, refused: Counter[str]
) -> AsyncIterator[None]:
    """Serves the sandbox's proxy while it is entered; nothing where there are no rules."""
    if not rules.rules:
        yield
        return
    if sandbox.proxy is None or sandbox.files is None:
        raise AssertionError("its spec asked for both")
    config = msgspec.structs.replace(manifests.read_config(place.home), credentials={})
    egress = Outside(config, _no_secret, place.runtime).egress
    authority = Authority(rules, place.runtime)
    sandbox.files.write(AUTHORITY, authority.certificate_pem, 0o444)

    async def ask(request: EgressRequest) -> EgressAnswer:
        asked = f"{request.method} {request.origin}"
        try:
            rule = rules.allows(request)
            if rule is None:
                raise CallDenied(f"{asked} is not let out.", why="No --allow names it.")
            return await egress.send(request, rule)
        except Ring0Error as error:
            if isinstance(error, CallDenied):
                refused[asked] += 1
            raise

    proxy = await serve(sandbox.proxy, ask, rules, authority, place.runtime, tunnel=egress.tunnel)
    try:
        yield
    finally:
        await proxy.close()


def _no_secret(name: str) -> str:
    raise AssertionError(f"no credential is used here, so {name} is not asked for")


# --- files ------------------------------------------------------------------------------------


def _lay_out(beneath: Beneath, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        beneath.write(path, content, 0o600)


def _copy_out(
    beneath: Beneath, before: dict[str, bytes], target: Beneath
) -> tuple[list[str], list[tuple[str, str]]]:
    """Regular files that are new or changed, without any exec bit; and what stays, and why."""
    listing = beneath.look()
    copied: list[str] = []
    left_out = [(path, why) for path, why in listing.left_out]
    size_bytes = 0  # what it wrote is bounded by tmp=, but a file may have holes
    for path, _ in listing.files:
        if path == AUTHORITY:
            continue
        try:
            content = beneath.read(path, limits.EXEC_FILE_SIZE_BYTES_MAX)
            if before.get(path) == content:
                continue
            if why := _why_it_stays(path, size_bytes + len(content)):
                left_out.append((path, why))
                continue
            target.mkdirs(path.rpartition("/")[0], 0o755)
            target.write(path, content, 0o644)
            size_bytes += len(content)
            copied.append(path)
        except (InvalidInput, LimitReached, NotFound, ToolFailed) as error:
            left_out.append((path, error.why or error.what))
    return copied, left_out


def _why_it_stays(path: str, size_bytes: int) -> str:
    """Empty where the file may leave. `size_bytes`: of it and all before it."""
    try:
        canonical_path(path)
    except CallInvalid as error:
        return error.why
    if size_bytes > limits.EXEC_FILES_SIZE_BYTES_MAX:
        return f"all files together have more than {limits.EXEC_FILES_SIZE_BYTES_MAX} bytes"
    return why_not(path)


def _opened(folder: Path) -> Beneath:
    """The folder that files are copied to, made where it is not there. Raises InvalidInput."""
    try:
        if not folder.exists():
            folder.mkdir(mode=0o755)
        return Beneath(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise InvalidInput(
            f"--out {str(folder)[:200]!r} can't be written to: {os.strerror(error.errno or 0)}.",
            todo="Name a folder of your own.",
        ) from None
