"""The SPIFFE Workload API on a run's door, asked by an independent client (PyPI `spiffe`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from gateway_world import NOW, Line
from kernel_world import World, world

from ring0 import limits
from ring0.errors import ManifestInvalid
from ring0.gateway.door import Door, doors
from ring0.kernel import identities
from ring0.kernel.boot import open_kernel
from ring0.runtime import Runtime
from ring0.store import events as ev
from ring0.types import AgentManifest

T = TypeVar("T")
grpc = pytest.importorskip("grpc", reason="grpcio is not installed: make optional")
pytest.importorskip("grpclib", reason="grpclib is not installed: make optional")
spiffe = pytest.importorskip("spiffe", reason="the client `spiffe` is not installed: make optional")

TOML = '[identity]\nspiffe = true\ntrust_domain = "agents.example.com"\n'


class Served:
    def __init__(self, w: World, path: Path) -> None:
        self.w = w
        self.path = path
        self.name = f"spiffe://agents.example.com/run/{w.run.id}/agent/clerk"

    async def ask(self, how: Callable[[Any], T]) -> T:
        """What the client gets, which blocks its thread."""

        def go() -> T:
            # Its own retries have no end.
            with spiffe.WorkloadApiClient(f"unix:{self.path}") as client:
                return how(client)

        return await asyncio.wait_for(asyncio.to_thread(go), 20)

    async def raw(self, method: str, metadata: Any = (("workload.spiffe.io", "true"),)) -> Any:
        """The first answer of a method (its bytes), or the status that it failed with."""

        def go() -> Any:
            with grpc.insecure_channel(f"unix:{self.path}") as channel:
                call = channel.unary_stream(f"/SpiffeWorkloadAPI/{method}")
                try:
                    return next(iter(call(b"", metadata=metadata, timeout=10)))
                except grpc.RpcError as error:
                    return error.code()

        return await asyncio.to_thread(go)


@contextlib.asynccontextmanager
async def served(folder: Path, toml: str = TOML, uid: int | None = None) -> AsyncIterator[Served]:
    home = folder / "home"
    home.mkdir()
    (home / "ring0.toml").write_text(toml)
    async with world(home) as w:
        path = folder / "door.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        listener.setblocking(False)
        door = Door(w.kernel.gate, w.run, uid, w.kernel.identities)
        await door.open(listener)
        try:
            yield Served(w, path)
        finally:
            await door.close()


async def test_a_run_gets_its_certificate_as_any_workload_does(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        context = await s.ask(lambda client: client.fetch_x509_context())
        svid = context.default_svid
        assert str(svid.spiffe_id) == s.name
        bundle = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
        (authority,) = bundle.x509_authorities
        svid.leaf.verify_directly_issued_by(authority)


async def test_bundles_are_told_without_a_certificate(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        bundles = await s.ask(lambda client: client.fetch_x509_bundles())
        domain = spiffe.TrustDomain("agents.example.com")
        assert len(bundles.get_bundle_for_trust_domain(domain).x509_authorities) == 1
        keys = await s.ask(lambda client: client.fetch_jwt_bundles())
        assert len(keys.get_bundle_for_trust_domain(domain).jwt_authorities) == 1


async def test_a_jwt_svid_is_for_its_audience_and_validated_by_whoever_has_the_keys(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as s:
        svid = await s.ask(lambda client: client.fetch_jwt_svid({"https://billing"}))
        assert str(svid.spiffe_id) == s.name
        bundles = await s.ask(lambda client: client.fetch_jwt_bundles())
        bundle = bundles.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
        again = spiffe.JwtSvid.parse_and_validate(svid.token, bundle, {"https://billing"})
        assert str(again.spiffe_id) == s.name
        told = await s.ask(lambda client: client.validate_jwt_svid(svid.token, "https://billing"))
        assert str(told.spiffe_id) == s.name
        with pytest.raises(Exception, match=r"(?i)somebody else|validat|invalid"):
            await s.ask(lambda client: client.validate_jwt_svid(svid.token, "https://other"))


async def test_nobody_gets_a_jwt_of_another_run(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        other = spiffe.SpiffeId("spiffe://agents.example.com/run/r-2/agent/clerk")
        with pytest.raises(Exception, match=r"(?i)somebody else|denied|svid"):
            await s.ask(lambda client: client.fetch_jwt_svid({"x"}, other))


async def test_a_process_of_another_uid_learns_of_no_certificate(tmp_path: Path) -> None:
    async with served(tmp_path, uid=os.getuid() + 1) as s:
        assert await s.raw("FetchX509SVID") is grpc.StatusCode.UNAVAILABLE
        assert not s.w.kernel.identities._of_runs


async def test_without_the_metadata_of_spiffe_nothing_is_told(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        for metadata in ((), (("workload.spiffe.io", "false"),), (("workload.spiffe.io", "TRUE"),)):
            for method in ("FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles"):
                assert await s.raw(method, metadata) is grpc.StatusCode.INVALID_ARGUMENT
        assert isinstance(await s.raw("FetchX509SVID"), bytes)
        assert await s.raw("Other") is grpc.StatusCode.UNIMPLEMENTED


async def test_what_was_issued_is_on_record_and_made_anew_only_when_it_is_half_over(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as s:
        await s.raw("FetchX509SVID")
        await s.raw("FetchX509SVID")
        s.w.kernel.identities._of_runs = {
            run: type(one)(
                name=one.name,
                chain=one.chain,
                private=one.private,
                serial=one.serial,
                expires_us=one.expires_us - limits.CERTIFICATE_S * 500_000,
            )
            for run, one in s.w.kernel.identities._of_runs.items()
        }
        await s.raw("FetchX509SVID")
        await s.w.store.flush()
        found = [
            entry.body
            async for entry in s.w.store.entries(s.w.run.id)
            if isinstance(entry.body, ev.CertificateIssued)
        ]
        assert len(found) == 2 and len({one.serial for one in found}) == 2
        assert all(one.name == s.name for one in found)


async def test_the_native_door_still_answers_on_the_same_socket(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        line = Line(*await asyncio.open_unix_connection(str(s.path)))
        assert (await line.ask("/v1/call", NOW)).status == 200
        await line.close()
        slow = Line(*await asyncio.open_unix_connection(str(s.path)))
        await slow.send(b"P")  # As both begin.
        await asyncio.sleep(0.02)
        body = b'{"kind": "now", "args": {}, "path": "0", "counter": 2}'
        await slow.send(b"OST /v1/call HTTP/1.1\r\nHost: ring0\r\n")
        await slow.send(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert (await slow.answer()).status == 200
        await slow.close()


async def test_a_stream_ends_with_its_run(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        heard: list[Any] = []
        over = threading.Event()

        def listen() -> None:
            with grpc.insecure_channel(f"unix:{s.path}") as channel:
                call = channel.unary_stream("/SpiffeWorkloadAPI/FetchX509SVID")
                try:
                    for answer in call(b"", metadata=(("workload.spiffe.io", "true"),), timeout=20):
                        heard.append(len(answer))
                except grpc.RpcError as error:
                    heard.append(error.code())
            over.set()

        thread = threading.Thread(target=listen)
        thread.start()
        async with asyncio.timeout(10):
            while not heard:
                await asyncio.sleep(0.01)
        await s.w.kernel.kill("run", s.w.run.id, by="ann")
        assert await s.raw("FetchX509SVID") is grpc.StatusCode.PERMISSION_DENIED
        assert await s.raw("FetchX509Bundles") is grpc.StatusCode.PERMISSION_DENIED
        assert not s.w.kernel.identities._of_runs
    assert await asyncio.to_thread(over.wait, 10)
    thread.join(5)
    assert len(heard) == 2 and heard[1] is not grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_connection_that_sends_rubbish_ends_and_harms_nobody(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with served(tmp_path) as s:
        for rubbish in (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 5_000,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" * 1_000,
            b"PRI * HTTP/2.0xxxx" + b"y" * 1_000,
            b"\x16\x03\x01" + b"\0" * 500,
        ):
            reader, writer = await asyncio.open_unix_connection(str(s.path))
            with contextlib.suppress(OSError):
                writer.write(rubbish)
                await writer.drain()
                async with asyncio.timeout(1):
                    await reader.read(-1 if b"\xff" in rubbish else 100)
            writer.close()
        assert isinstance(await s.raw("FetchX509SVID"), bytes)
    assert "Traceback" not in capfd.readouterr().err


async def test_a_run_has_few_connections_and_each_says_little(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
        lines = []
        for _ in range(limits.WORKLOAD_CONNECTIONS_MAX + 1):
            reader, writer = await asyncio.open_unix_connection(str(s.path))
            writer.write(preface)
            lines.append((reader, writer))
            await asyncio.sleep(0.02)
        async with asyncio.timeout(5):
            assert await lines[-1][0].read() == b"", "one too many"
        ping = b"\0\0\x08\6\0\0\0\0\0" + b"p" * 8
        reader, writer = lines[0]

        async def drink() -> None:
            while await reader.read(65_536):
                pass

        drinking = asyncio.create_task(drink())
        with contextlib.suppress(OSError):
            for _ in range(limits.WORKLOAD_IN_BYTES_MAX // len(ping) // 1_000 + 2):
                writer.write(ping * 1_000)
                await writer.drain()
        done, _ = await asyncio.wait({drinking}, timeout=5)
        assert done, "the connection that said too much has ended"
        for _, one in lines:
            one.close()


async def test_nothing_of_it_is_there_where_ring0_toml_does_not_ask_for_it(tmp_path: Path) -> None:
    async with served(tmp_path, "") as s:
        assert await s.raw("FetchX509SVID") in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.UNKNOWN,
        )
        assert s.w.kernel.runs.environment == {}
        assert not (s.w.home / "identity.key").exists()


async def test_a_kernel_that_can_not_serve_what_ring0_toml_asks_for_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities, "_NEEDED", ("not_there_at_all",))
    with pytest.raises(ManifestInvalid, match="not installed"):
        async with served(tmp_path):
            pass


async def test_an_isolated_agent_is_told_who_it_is_inside_its_sandbox(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "ring0.toml").write_text(TOML)
    (tmp_path / "agent.py").write_text((Path(__file__).parent / "spiffe_agent.py").read_text())
    kernel = await open_kernel(home, Runtime(), {})
    kernel.runs.doors = doors(kernel.gate, kernel.identities)
    try:
        manifest = AgentManifest(name="", entry="agent.py:who", folder=str(tmp_path))
        row = await kernel.start(await kernel.describe(manifest), "who are you", principal="alice")
        row = await asyncio.wait_for(kernel.runs.wait(row.id), 60)
        said = msgspec.json.decode(await kernel.store.blob(row.result))
        name = f"spiffe://agents.example.com/run/{row.id}/agent/who"
        assert said["value"] == {"name": name, "jwt": name, "socket": "unix:///run/ring0/door.sock"}
    finally:
        await kernel.close()
