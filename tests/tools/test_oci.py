"""The tiers `container` and `gvisor`: what their programs can reach, and how they end."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sandbox_world import AS_ROOT, FOLDERS, PATHS, QUESTIONS, RUNTIME, SHOWN, uids
from test_sandbox import REFUSED
from tier_world import PYTHON, Answers, run_kernel

from ring0.errors import InvalidInput, Ring0Error, SandboxUnavailable
from ring0.tools.sandbox import (
    Exit,
    Sandbox,
    SandboxLimits,
    SandboxSpec,
    containers,
    oci,
    syscalls,
    tiers,
)

LIMITS = {"wall_s": 30, "output_bytes": 1 << 20}
ASKED = QUESTIONS.partition("if __name__")[0] + (
    f"print(json.dumps(answer({ {'paths': PATHS, 'folders': FOLDERS}!r})), flush=True)"
)
KINDS = {"container": containers.CONTAINER, "gvisor": containers.GVISOR}


@asynccontextmanager
async def _made(tier: str, *argv: str, **fields: Any) -> AsyncIterator[Sandbox]:
    if not (await tiers._TIERS[tier].probe(RUNTIME)).available:
        pytest.skip(f"the tier {tier} is not on this machine")
    made = await containers.make(
        KINDS[tier], SandboxSpec(argv=argv, host_uid=next(uids), **fields), RUNTIME
    )
    try:
        yield made
    finally:
        await made.close()


async def _run(tier: str, *argv: str, **fields: Any) -> tuple[str, Exit]:
    async with _made(tier, *argv, **fields) as made:
        await made.go()
        printed = await RUNTIME.wait_for(made.stdout.read(), 20), await made.stderr.read()
        return b"".join(printed).decode(), await made.wait()


# --- walls -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["root", "nobody"])
def inside(request: pytest.FixtureRequest) -> Answers:
    """The questions of the tier `ns` (its tests hold the controls), asked in a container."""
    found = run_kernel("container", request.param, {"asked": (ASKED, LIMITS)})["asked"]
    assert found["stdout"], found
    return {**json.loads(found["stdout"]), "kernel": request.param}


def test_a_container_sees_no_file_of_the_host_and_writes_only_to_its_tmp(inside: Answers) -> None:
    shown = {path for path, exists in inside["exists"].items() if exists}
    homes = {"/root"} if sys.base_prefix.startswith("/root/") else set()  # as an empty folder
    assert shown - homes == SHOWN
    assert inside["create"].pop("/tmp") == 0
    assert set(inside["create"].values()) <= {errno.EROFS, errno.ENOENT, errno.EACCES}
    assert inside["core_pattern"] == errno.ENOENT


def test_a_container_has_no_network_and_no_other_sockets(inside: Answers) -> None:
    assert inside["interfaces"] == ["lo"]
    assert inside["connect"] == errno.ENETUNREACH
    assert {name for name, error in inside["sockets"].items() if error == 0} == {
        "unix", "inet", "inet6",
    }  # fmt: skip


def test_a_container_has_no_power_and_no_way_to_get_one(inside: Answers) -> None:
    for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert int(inside["status"][f"Cap{kind}"], 16) == 0
    assert inside["status"]["NoNewPrivs"] == "1" and inside["status"]["Seccomp"] == "2"
    assert inside["uid"] == (1000 if inside["kernel"] == "root" else 0)


def test_a_container_has_namespaces_of_its_own(inside: Answers) -> None:
    same = {n for n, i in inside["namespaces"].items() if os.readlink(f"/proc/self/ns/{n}") == i}
    assert same <= {"time", "time_for_children"}
    assert inside["hostname"] == "agent" and inside["processes"] == [1]


def test_a_container_gets_no_descriptor_and_no_environment(inside: Answers) -> None:
    assert inside["descriptors"] == [0, 1, 2]
    assert set(inside["environment"]) <= {"PATH", "HOME", "LC_CTYPE"}
    assert "canary-in-env" not in json.dumps(inside)


@pytest.mark.parametrize("name", REFUSED)
def test_this_call_is_refused_in_a_container_too(name: str, inside: Answers) -> None:
    expected = {errno.EPERM, errno.ENOSYS}  # a libseccomp that is older than a call says ENOSYS
    assert inside["calls"][name] in expected


def test_clone3_does_not_exist_and_the_other_table_is_death(inside: Answers) -> None:
    assert inside["calls"]["clone3"] == errno.ENOSYS
    assert inside["calls"]["newer_than_known"] in (errno.ENOSYS, errno.EPERM)
    assert inside["calls"]["x32"] < 0 or inside["calls"]["x32"] == errno.EPERM


def test_gvisor_is_another_linux() -> None:
    found = run_kernel("gvisor", "root", {
        "version": ("print(open('/proc/version').read())", LIMITS),
        "files": (f"import os; print([p for p in {PATHS!r} if os.path.exists(p)])", LIMITS),
        "net": ("import socket; print([n for _, n in socket.if_nameindex()])", LIMITS),
        "caps": ("print([l for l in open('/proc/self/status') if l[:3] == 'Cap'])", LIMITS),
    })  # fmt: skip
    assert found["version"]["stdout"].strip() != Path("/proc/version").read_text().strip()
    assert "shadow" not in found["files"]["stdout"] and ".git" not in found["files"]["stdout"]
    assert found["net"]["stdout"] in ("['lo']\n", "[]\n"), found["net"]
    assert found["caps"]["stdout"].count("0000000000000000") >= 4


# --- what a container is given -----------------------------------------------------------------


DOORS = """
import socket
for port in (7420, 7421): socket.create_connection(("127.0.0.1", port), 2).send(b"%d" % port)
unix = socket.socket(socket.AF_UNIX); unix.connect("/run/ring0/door.sock"); unix.send(b"unix")
print("sent")
"""


async def test_the_doors_and_the_proxy_of_a_container_are_its_own_listeners() -> None:
    argv = (PYTHON, "-I", "-S", "-c", DOORS)
    async with _made("container", *argv, doors=True, egress=True) as made:
        assert made.tcp is not None and made.unix is not None and made.proxy is not None
        await made.go()
        assert await RUNTIME.wait_for(made.stdout.read(), 20) == b"sent\n"
        heard = []
        for listener in (made.tcp, made.proxy, made.unix):
            connection, _ = listener.accept()
            with connection:
                connection.setblocking(True)
                heard.append(connection.recv(10))
        assert heard == [b"7420", b"7421", b"unix"]


@pytest.mark.parametrize("tier", KINDS)
async def test_a_workspace_is_read_by_the_kernel_when_the_program_has_ended(tier: str) -> None:
    async with _made(tier, "/bin/sh", "-c", "cat /work/in > /work/out", workspace=True) as made:
        assert made.files is not None
        made.files.write("in", b"hello")
        await made.go()
        assert await made.wait() == Exit(0, None), await made.stderr.read()
        assert made.files.read("out", 100) == b"hello"


@pytest.mark.parametrize("tier", KINDS)
async def test_python_source_longer_than_an_argument_runs(tier: str) -> None:
    code = f"import sys\nprint(sys.argv, __name__)\n# {'x' * 300_000}"
    printed, ended = await _run(tier, "a", code=code)
    assert (printed, ended) == ("['-c', 'a'] __main__\n", Exit(0, None))


async def test_a_container_may_have_less_memory_than_its_runtime_needs() -> None:
    """The limit is set when runc has done its part, before the program begins."""
    few = SandboxLimits(memory_bytes=16 << 20)
    printed, ended = await _run("container", "/bin/sh", "-c", "ulimit -d", limits=few)
    assert (printed, ended) == ("16384\n", Exit(0, None))


@pytest.mark.parametrize("tier", KINDS)
async def test_the_exit_code_comes_back(tier: str) -> None:
    assert await _run(tier, "/bin/sh", "-c", "exit 7") == ("", Exit(7, None))


@pytest.mark.parametrize("tier", KINDS)
async def test_a_program_that_is_not_there_is_the_callers_mistake(tier: str) -> None:
    async with _made(tier, "/usr/bin/no-such-program") as made:
        with pytest.raises(InvalidInput, match="no-such-program"):
            await made.go()


async def test_a_folder_that_is_not_there_is_the_callers_mistake() -> None:
    async with _made("container", "/bin/true", cwd="/nowhere") as made:
        with pytest.raises(InvalidInput, match="no folder"):
            await made.go()


# --- the end -----------------------------------------------------------------------------------

DAEMONS = "(setsid sleep 60 &) ; (setsid sleep 60 &) ; echo up; sleep 60"


def _alive(uid: int) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid:
                found.append(pid)
        except OSError:
            pass
    return found


@pytest.mark.skipif(not AS_ROOT, reason="only root gives each sandbox a uid to be counted by")
@pytest.mark.parametrize("how", ["kill", "crash"])
async def test_nothing_of_a_container_outlives_its_end(how: str) -> None:
    """`crash`: as at boot after one, when all that is known is the identity on record."""
    async with _made("container", "/bin/sh", "-c", DAEMONS) as made:
        await made.go()
        assert await RUNTIME.wait_for(made.stdout.readline(), 20) == b"up\n"
        assert len(_alive(made.uid)) >= 3
        if how == "kill":
            await made.kill()
        else:
            os.kill(made.identity.pid, signal.SIGKILL)
            await RUNTIME.wait_for(made.wait(), 10)
        assert _alive(made.uid) == []


async def test_what_runs_gvisor_ends_with_the_sandbox() -> None:
    async with _made("gvisor", "/bin/sh", "-c", DAEMONS) as made:
        await made.go()
        await RUNTIME.wait_for(made.stdout.readline(), 20)
        inside = Path(f"/proc/{made.identity.pid}/ns/pid").readlink()
        assert len(_in_namespace(inside)) >= 3
        await made.kill()
        assert _in_namespace(inside) == []


def _in_namespace(namespace: Path) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if Path(f"/proc/{pid}/ns/pid").readlink() == namespace:
                found.append(pid)
        except OSError:
            pass
    return found


async def test_the_machine_has_no_mount_and_no_file_of_it_afterwards() -> None:
    before = Path("/proc/self/mounts").read_text(), set(os.listdir("/dev/shm"))
    await _run("container", "/bin/true")
    after = Path("/proc/self/mounts").read_text(), set(os.listdir("/dev/shm"))
    assert after[0] == before[0]
    assert not {"root", "files", "bundle", "doors", "state"} & (after[1] - before[1])


# --- what the runtime is told ------------------------------------------------------------------


def test_every_call_that_is_allowed_or_examined_is_in_the_runtimes_words() -> None:
    told = oci.seccomp()
    assert told["defaultAction"] == "SCMP_ACT_ERRNO" and told["defaultErrnoRet"] == errno.EPERM
    named = {name for entry in told["syscalls"] for name in entry["names"]}
    assert named == set(syscalls.ALLOWED) | set(syscalls.EXAMINED)


def test_no_examined_call_is_allowed_without_looking_at_its_arguments() -> None:
    for entry in oci.seccomp()["syscalls"]:
        if entry["action"] == "SCMP_ACT_ALLOW" and set(entry["names"]) & set(syscalls.EXAMINED):
            assert entry["args"], entry


def test_what_a_runtime_may_do_to_terminals_is_an_allow_list() -> None:
    """libseccomp can't refuse TIOCSTI whatever its upper half; it can allow what is known."""
    ways = [e["args"] for e in oci.seccomp()["syscalls"] if e["names"] == ["ioctl"]]
    allowed = {arguments[0]["valueTwo"] for arguments in ways}
    assert {0x5412, 0x541C} & allowed == set() and 0x5401 in allowed
    assert {arguments[0]["value"] for arguments in ways} == {0xFFFF_FFFF}


async def test_a_machine_without_a_runtime_says_which_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(containers, "_PATH", "/nowhere")
    with pytest.raises(SandboxUnavailable) as error:
        await containers.make(containers.CONTAINER, SandboxSpec(argv=("x",), host_uid=7), RUNTIME)
    assert "no runc in" in error.value.why and error.value.todo


async def test_a_runtime_that_fails_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "runc"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    kind = containers.CONTAINER
    spec = SandboxSpec(argv=("/bin/true",), host_uid=next(uids))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(containers, "_PATH", str(tmp_path))
        made = await containers.make(kind, spec, RUNTIME)
    try:
        with pytest.raises(Ring0Error, match="could not be started"):
            await made.go()
        await RUNTIME.wait_for(made.wait(), 10)
    finally:
        await made.close()
