"""How a driver gets its sandbox a way out: the kernel gives one, and judges what goes through it.

Here are the words between them and what a program finds inside; the proxy itself is `egress/`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, Protocol

import msgspec

from ring0.errors import Ring0Error, SandboxUnavailable
from ring0.tools.driver import CallContext
from ring0.tools.egress import Credential, Egress, proxy_environment
from ring0.tools.sandbox import Sandbox, SandboxSpec
from ring0.types import ToolManifest

AUTHORITY: Final = ".ring0/egress.pem"
"""Beneath /work: the certificate that the sandbox's proxy signs with."""


class Outlet(Protocol):
    """The way out of one sandbox. What it asks for outside of a call is refused."""

    authority: bytes
    """The certificate (PEM) that the program has to trust."""

    def during(
        self, tool: ToolManifest, context: CallContext
    ) -> AbstractAsyncContextManager[object]:
        """While it is entered, requests are answered: as calls within this one."""
        ...

    async def close(self) -> None: ...


class Outside(Protocol):
    """What the kernel has beyond itself."""

    @property
    def egress(self) -> Egress: ...

    def of(self, names: tuple[str, ...], place: str) -> list[Credential]:
        """The credentials of these names. Raises ManifestInvalid."""
        ...

    def refusal(
        self, instance: str, status: int, challenge: str, credential: Credential | None
    ) -> Ring0Error | None:
        """What to say where a server elsewhere wants another token than the credential's. `status`
        and `challenge` (WWW-Authenticate): its answer. None: another one would not help."""
        ...

    def seen_by(self, agent: str) -> Outside:
        """The same, with the credentials that this agent's tools may use."""
        ...


class Reach(Protocol):
    """Gives a sandbox its way out. The kernel's."""

    async def __call__(self, sandbox: Sandbox, rules: tuple[str, ...]) -> Outlet: ...


def environment(rules: tuple[str, ...]) -> dict[str, str]:
    """What tells a program where its proxy is and whom to trust. Its own loopback is reached
    without it, but for a name there that a rule is about."""
    found = proxy_environment(f"/work/{AUTHORITY}")
    own = [host for host in found["no_proxy"].split(",") if not any(host in rule for rule in rules)]
    return {**found, "no_proxy": ",".join(own), "NO_PROXY": ",".join(own)}


def with_way_out(spec: SandboxSpec, rules: tuple[str, ...]) -> SandboxSpec:
    """The same sandbox with a proxy, and a program that knows of it."""
    env = {**spec.env, **environment(rules)}
    return msgspec.structs.replace(spec, egress=True, workspace=True, env=env)


@asynccontextmanager
async def sandbox_for(
    tool: ToolManifest,
    spec: SandboxSpec,
    context: CallContext,
    reach: Reach | None,
    before_go: Callable[[Sandbox], Awaitable[None]] | None = None,
) -> AsyncIterator[Sandbox]:
    """A running sandbox for one call of a tool, with a way out where the tool has one. It is ended
    however this is left."""
    async with AsyncExitStack() as stack:

        async def prepare(sandbox: Sandbox) -> None:
            if tool.egress:
                if reach is None:
                    raise SandboxUnavailable(
                        f"{tool.name} reaches out, and this kernel gives tools no network.",
                        todo="Take `egress` out, or run it with `ring0 run`.",
                    )
                outlet = await open_outlet(reach, sandbox, tool.egress)
                stack.push_async_callback(outlet.close)
                await stack.enter_async_context(outlet.during(tool, context))
            if before_go is not None:
                await before_go(sandbox)

        wanted = with_way_out(spec, tool.egress) if tool.egress else spec
        sandbox = await context.sandboxes.start(context.run.id, wanted, tool.name, prepare)
        stack.push_async_callback(context.sandboxes.end, sandbox)
        yield sandbox


async def open_outlet(reach: Reach, sandbox: Sandbox, rules: tuple[str, ...]) -> Outlet:
    """A way out by these rules, with its certificate where `environment` says. For a sandbox with
    `egress` and a workspace, before its program starts."""
    outlet = await reach(sandbox, rules)
    assert sandbox.files is not None, "its spec asked for a workspace"
    try:
        sandbox.files.write(AUTHORITY, outlet.authority, 0o444)
    except BaseException:
        await outlet.close()
        raise
    return outlet
