"""The built-in tools `python` and `shell`: a program in a fresh sandbox, beside the run's files.

What it can change is the run's own workspace, and that can be taken back; what it can reach is what
the operator's `egress` names, and nothing where that is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.errors import (
    CallInvalid,
    EffectUnknown,
    LimitReached,
    SandboxFailed,
    ToolFailed,
)
from ring0.runtime import Runtime
from ring0.tools.driver import CallContext, Prepared, Result
from ring0.tools.programs.settings import WORK, Settings, manifest_of, read
from ring0.tools.reach import Reach, sandbox_for
from ring0.tools.sandbox.beneath import Beneath, LeftOut
from ring0.tools.sandbox.host import Sandbox, SandboxSpec
from ring0.tools.sandbox.running import Ran, run
from ring0.tools.workspace.inside import Collected, LaidOut, collect, lay_out
from ring0.types import Effect, Label


class Program:
    """`NAME.run` of a `python` or `shell` instance."""

    def __init__(
        self, instance: str, settings: Settings, runtime: Runtime, reach: Reach | None
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._reach = reach
        self._python = settings.use == "python"
        self.manifest = manifest_of(instance, settings)

    @property
    def _pure(self) -> bool:
        return self.manifest.effect is Effect.PURE

    async def prepare(self, args: dict[str, Any], context: CallContext) -> Prepared:
        command = args.get("command", "")
        if len(command.encode()) > limits.PROGRAM_COMMAND_SIZE_BYTES_MAX or "\0" in command:
            raise CallInvalid(
                "The command can't be given to a shell.",
                why=f"It is longer than {limits.PROGRAM_COMMAND_SIZE_BYTES_MAX} bytes or holds a"
                " NUL.",
                todo="Write it into a file of the workspace, and run that.",
            )
        reaches = bool(self._settings.egress)
        source = args["code"] if self._python else command
        return Prepared(
            driver_bytes=msgspec.json.encode(args, order="sorted"),
            own=not reaches,
            mutates=reaches,
            slots=("sandbox",),
            lines=(
                f"run {source.count(chr(10)) + 1} lines of {self._settings.use} in a sandbox",
                *(f"  that may reach {rule}" for rule in self._settings.egress),
                *(f"  with the credential {name}" for name in self._settings.secrets),
            ),
        )

    async def execute(
        self, args: dict[str, Any], prepared: Prepared, context: CallContext
    ) -> Result:
        laid = LaidOut()

        async def before_go(sandbox: Sandbox) -> None:
            nonlocal laid
            if not self._pure:
                laid = await lay_out(context.workspace, _files(sandbox), self._runtime)

        spec = self._spec(args)
        async with sandbox_for(self.manifest, spec, context, self._reach, before_go) as sandbox:
            ran = await run(
                sandbox,
                self._runtime,
                stdin=args.get("stdin", "").encode(),
                wall_s=self.manifest.wall_s,
                output_bytes=limits.PROGRAM_OUTPUT_SIZE_BYTES_MAX,
            )
            if ran.stopped:
                raise self._cut_off(ran)
            label = self._label(laid, context)
            collected = await self._collect(ran, sandbox, laid, label, context)
        return Result(
            value=_told(ran, collected),
            label=label,
            files=collected.files if collected else (),
            # What it did outside stays done: its files alone are not what it did.
            undo=collected.undo if collected and not self._settings.egress else b"",
        )

    def _spec(self, args: dict[str, Any]) -> SandboxSpec:
        return SandboxSpec(
            argv=() if self._python else ("/bin/sh", "-c", args["command"]),
            code=args["code"] if self._python else "",
            image=self._settings.image,
            cwd="/tmp" if self._pure else WORK,  # noqa: S108  # of the sandbox
            limits=self._settings.limits.as_sandbox(),
            workspace=not self._pure,
            tier=self._settings.tier,
        )

    async def _collect(
        self, ran: Ran, sandbox: Sandbox, laid: LaidOut, label: Label, context: CallContext
    ) -> Collected | None:
        """What it did to the files, now that all its processes are dead."""
        if self._pure:
            return None
        await context.workspace.turn()
        try:
            return await collect(
                context.workspace,
                _files(sandbox),
                laid,
                self._runtime,
                context.run.label.join(label),
            )
        except LimitReached as error:
            raise ToolFailed(
                f"What {self.manifest.name} left does not fit into the workspace, and nothing of it"
                f" was taken: {error.what}",
                why=f"{error.why} The program itself had ended with exit code {ran.code}.",
                todo=error.todo,
            ) from None

    def _label(self, laid: LaidOut, context: CallContext) -> Label:
        """What a program says is no better than what it is made of: the run's words, the files."""
        said = Label(
            integrity=self.manifest.output, sources=(f"{self.manifest.name}@{context.call}",)
        )
        of_run = Label(
            integrity=context.run.label.integrity, confidentiality=context.run.label.confidentiality
        )
        return said.join(of_run).join(laid.label)

    def _cut_off(self, ran: Ran) -> EffectUnknown | ToolFailed:
        what = f"{self.manifest.name} was stopped: {_STOPPED[ran.stopped]}."
        said = _shown(ran.stderr or ran.stdout)[-_LAST_WORDS_CHARS:].strip()
        said = f"Its last words: {said}" if said else "It said nothing."
        if self.manifest.effect is Effect.ONCE:
            return EffectUnknown(
                what,
                why=f"What it had done outside by then, nobody can tell. {said}",
                todo="Look at the world, then `ring0 settle CALL happened` or `did-not-happen`.",
            )
        return ToolFailed(
            what,
            why=f"Nothing of its files was taken. {said}",
            todo="Let it do less at a time; the operator may raise the tool's limits.",
        )


_LAST_WORDS_CHARS: Final = 2_000
_STOPPED: Final[Mapping[str, str]] = {
    "wall": "it took longer than its `timeout_s`",
    "output": f"it printed more than {limits.PROGRAM_OUTPUT_SIZE_BYTES_MAX} bytes",
    "memory": "it took more memory than its `memory_mb`",
    "cpu": "it took more processor time than its `cpu_s`",
    "disk": "it wrote more than its `tmp_mb`",
}


def _files(sandbox: Sandbox) -> Beneath:
    if sandbox.files is None:
        raise SandboxFailed(
            "The sandbox has no folder for the run's files.",
            why="Its tier gave none.",
            todo="Name another `tier` for the tool; `ring0 doctor` lists them.",
        )
    return sandbox.files


def _told(ran: Ran, collected: Collected | None) -> dict[str, Any]:
    value: dict[str, Any] = {
        "stdout": _shown(ran.stdout),
        "stderr": _shown(ran.stderr),
        "exit_code": ran.code,
        "files": [],
    }
    if collected is None:
        return value
    value["files"] = [
        {"path": change.path, "removed": True}
        if change.value is None
        else {"path": change.path, "size_bytes": len(change.value)}
        for change in collected.files[: limits.PROGRAM_FILES_SHOWN_MAX]
    ]
    if (more := len(collected.files) - limits.PROGRAM_FILES_SHOWN_MAX) > 0:
        value["files_more"] = more
    if collected.left_out:
        shown = collected.left_out[: limits.PROGRAM_LEFT_OUT_SHOWN_MAX]
        value["left_out"] = [_named(left) for left in shown]
        if more := len(collected.left_out) - len(shown):
            value["left_out_more"] = more
    return value


def _named(left: LeftOut) -> dict[str, str]:
    path = left.path.encode("utf-8", "backslashreplace").decode()
    return {"path": path[: limits.WORKSPACE_PATH_CHARS_MAX], "why": left.why[:200]}


def _shown(printed: bytes) -> str:
    """As text; of what is long, the beginning and the end."""
    most = limits.PROGRAM_SHOWN_SIZE_BYTES_MAX
    if len(printed) <= most:
        return printed.decode("utf-8", "replace")
    begins = printed[: most // 2].decode("utf-8", "replace")
    ends = printed[-most // 2 :].decode("utf-8", "replace")
    return f"{begins}\n[... {len(printed) - most} bytes are left out here ...]\n{ends}"


def drivers(
    instance: str, config: Mapping[str, Any], runtime: Runtime, reach: Reach | None = None
) -> list[Program]:
    """The operation of one `python` or `shell` instance. Raises ManifestInvalid."""
    return [Program(instance, read(instance, config), runtime, reach)]
