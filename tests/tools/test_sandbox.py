"""What a sandboxed program can reach. Each way out has a control outside, where it is open."""

from __future__ import annotations

import ast
import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sandbox_world import (
    AS_ROOT,
    FOLDERS,
    PATHS,
    REPO,
    SHOWN,
    as_kernel,
    questions,
    run,
    sandbox,
)

from ring0.tools.sandbox import runtime_mounts

USER = 65534
Answers = dict[str, Any]


@pytest.fixture(scope="module")
def outside() -> Answers:
    """The answers on the host: the control."""
    done = subprocess.run(questions(), capture_output=True, check=True, text=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module", params=["kernel: the tests' user", "kernel: an ordinary user"])
def inside(request: pytest.FixtureRequest) -> Iterator[Answers]:
    """The answers from a sandbox, whose kernel is once whoever runs the tests, once nobody."""
    if request.param == "kernel: the tests' user":
        groups = ("setpriv", "--groups=4,20") if AS_ROOT and shutil.which("setpriv") else ()
        yield _answers(as_kernel({"argv": questions()}, prefix=groups))
        return
    python, prefix = _ordinary_user()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        shutil.copytree(REPO / "src/ring0", Path(folder, "ring0"))
        shutil.copytree(Path(msgspec.__file__).parent, Path(folder, "msgspec"))
        argv = (python, *questions()[1:])
        yield _answers(as_kernel({"argv": argv}, prefix=prefix, python=python, path=folder))


def _ordinary_user() -> tuple[str, tuple[str, ...]]:
    """A Python that nobody may run (ours may lie in a home), and how to become nobody."""
    if not AS_ROOT:
        pytest.skip("the tests run as an ordinary user already")
    ours = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = shutil.which(ours, path="/usr/bin:/usr/local/bin")
    if found is None or shutil.which("setpriv") is None:
        pytest.skip(f"there is no {ours} of the system, or no setpriv, for uid {USER} to use")
    return found, ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")


def _answers(kernel: subprocess.Popen[str]) -> Answers:
    printed, _ = kernel.communicate(timeout=30)
    lines = printed.splitlines()
    assert len(lines) > 1, printed
    return json.loads(lines[1])


# --- the machine ------------------------------------------------------------------------------


def test_there_is_no_network_but_its_own_loopback(inside: Answers) -> None:
    assert inside["interfaces"] == ["lo"]
    assert inside["connect"] == errno.ENETUNREACH


def test_only_unix_and_ip_sockets_can_be_made(inside: Answers, outside: Answers) -> None:
    open_inside = {name for name, error in inside["sockets"].items() if error == 0}
    assert open_inside == {"unix", "inet", "inet6"}
    for family in ("netlink", "packet", "vsock", "alg"):
        assert inside["sockets"][family] == errno.EAFNOSUPPORT
    assert inside["sockets"]["mptcp"] == errno.EPROTONOSUPPORT
    assert outside["sockets"]["netlink"] == 0
    if AS_ROOT:
        assert outside["sockets"]["packet"] == outside["sockets"]["raw"] == 0


def test_no_file_of_the_host_is_there(inside: Answers, outside: Answers) -> None:
    homes = {"/root"} if sys.base_prefix.startswith("/root/") else set()  # as an empty folder
    shown = {path for path, exists in inside["exists"].items() if exists}
    assert shown - homes == SHOWN
    assert {path for path, exists in outside["exists"].items() if exists} > SHOWN
    assert outside["exists"][str(REPO / "pyproject.toml")]


async def test_its_mounts_are_the_named_ones_and_no_other() -> None:
    listing = "print([line.split()[4] for line in open('/proc/self/mountinfo')], end='')"
    printed, _ = await run(sys.executable, "-I", "-S", "-c", listing)
    devices = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom")}
    named = {mount.target for mount in runtime_mounts() if not Path(mount.source).is_symlink()}
    seen = set(ast.literal_eval(printed))
    assert {"/", "/tmp", "/proc", *devices} <= seen
    beneath = seen - {"/", "/tmp", "/proc", *devices} - named
    assert all(point.startswith("/usr/") for point in beneath), beneath  # the host's own, read-only
    printed, _ = await run("ls", "-A", "/")
    made = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "dev", "etc", "proc", "run", "tmp"}
    assert set(printed.split()) <= made | {Path(target).parts[1] for target in named}


async def test_folders_on_the_way_to_the_interpreter_show_nothing_else() -> None:
    way = [str(p) for p in [*Path(sys.base_prefix).parents, *(REPO / "src/ring0").parents]]
    listing = "import json,os,sys; print(json.dumps({p: os.listdir(p) for p in sys.argv[1:]}))"
    printed, _ = await run(sys.executable, "-I", "-S", "-c", listing, *way)
    mounted = json.loads(printed)
    own = {"src"} | ({Path(sys.prefix).name} if Path(sys.prefix).parent == REPO else set())
    assert set(mounted[str(REPO)]) == own
    assert mounted[str(REPO / "src")] == ["ring0"]
    if "/root" in mounted:
        assert len(mounted["/root"]) == 1
        assert len(os.listdir("/root")) > 1  # the control


def test_nothing_can_be_written_but_in_tmp(inside: Answers, outside: Answers) -> None:
    assert inside["create"].pop("/tmp") == 0
    refusals = {errno.EROFS, errno.ENOENT, errno.EACCES}
    assert set(inside["create"].values()) <= refusals
    if AS_ROOT:
        assert outside["create"]["/usr"] == outside["create"]["/etc"] == 0


def test_the_core_pattern_of_the_machine_is_out_of_reach(inside: Answers, outside: Answers) -> None:
    assert inside["core_pattern"] == errno.ENOENT
    if AS_ROOT:
        assert outside["core_pattern"] == 0


def test_no_environment_of_the_host_is_there(inside: Answers, outside: Answers) -> None:
    given = {"HOME": "/tmp", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    assert given.items() <= inside["environment"].items()
    assert set(inside["environment"]) - set(given) <= {"LC_CTYPE"}
    assert inside["environments"] == {"1": "EACCES"}
    assert "canary-in-env" not in json.dumps(inside)
    assert any("=" in text for text in outside["environments"].values())


def test_no_process_of_the_host_is_visible(inside: Answers, outside: Answers) -> None:
    assert inside["processes"][0] == 1
    assert len(inside["processes"]) == 2
    assert len(outside["processes"]) > 2


def test_all_seven_namespaces_are_its_own(inside: Answers, outside: Answers) -> None:
    same = {n for n, id in inside["namespaces"].items() if outside["namespaces"][n] == id}
    assert same == {"time", "time_for_children"}
    assert inside["hostname"] == "agent" != outside["hostname"]


# --- power ------------------------------------------------------------------------------------


def test_it_has_no_capability_and_no_way_to_get_one(inside: Answers, outside: Answers) -> None:
    status = inside["status"]
    for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert int(status[f"Cap{kind}"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    if AS_ROOT:
        assert status["Groups"] == ""
    assert int(outside["status"]["CapBnd"], 16) != 0


def test_it_is_not_root_inside(inside: Answers) -> None:
    assert inside["uid"] == 1000
    assert set(inside["status"]["Uid"].split()) == {"1000"}


@pytest.mark.skipif(not AS_ROOT, reason="only root can give a uid of its own")
async def test_it_has_the_uid_that_was_given_on_the_host_and_its_init_has_no_power() -> None:
    async with sandbox("sleep", "60") as made:
        assert Path(f"/proc/{made.identity.pid}/environ").read_bytes() == b""
        status = Path(f"/proc/{made.identity.pid}/status").read_text()
        children = Path(f"/proc/{made.identity.pid}/task/{made.identity.pid}/children").read_text()
        tenant = Path(f"/proc/{children.split()[0]}/status").read_text()
        wanted = made._spec.host_uid
        for text in (status, tenant):
            ids = next(line for line in text.splitlines() if line.startswith("Uid:"))
            assert set(ids.split()[1:]) == {str(wanted)}
            powers = [line.split()[1] for line in text.splitlines() if line.startswith("Cap")]
            assert {int(power, 16) for power in powers} == {0}
            assert "Seccomp:\t2" in text
        assert Path(f"/proc/{made.identity.pid}/uid_map").read_text().split() == [
            "1000", str(wanted), "1",
        ]  # fmt: skip


def test_it_holds_no_descriptor_but_the_three(inside: Answers) -> None:
    assert inside["descriptors"] == [0, 1, 2]


REFUSED = [
    "unshare",
    "setns",
    "clone_newuser",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "fsopen",
    "open_tree",
    "move_mount",
    "mount_setattr",
    "io_uring_setup",
    "bpf",
    "keyctl",
    "add_key",
    "userfaultfd",
    "perf_event_open",
    "ptrace",
    "process_vm_readv",
    "kexec_load",
    "finit_module",
    "name_to_handle_at",
    "open_by_handle_at",
    "memfd_create",
    "pidfd_getfd",
    "shmget",
    "personality",
    "prlimit_of_init",
    "tiocsti",
    "tiocsti_high_bits",
    "tioclinux_high_bits",
]


@pytest.mark.parametrize("name", REFUSED)
def test_this_call_is_refused(name: str, inside: Answers, outside: Answers) -> None:
    assert inside["calls"][name] == errno.EPERM
    if AS_ROOT and outside["calls"][name] != errno.ENOSYS:  # not built into this Linux
        assert outside["calls"][name] != errno.EPERM, "the control proves nothing"


def test_clone3_and_calls_of_tomorrow_do_not_exist(inside: Answers, outside: Answers) -> None:
    assert inside["calls"]["clone3"] == errno.ENOSYS
    assert inside["calls"]["newer_than_known"] == errno.ENOSYS
    assert outside["calls"]["clone3"] == errno.EINVAL


def test_a_call_of_the_other_table_is_death(inside: Answers, outside: Answers) -> None:
    assert inside["calls"]["x32"] == -31, "SIGSYS"
    assert outside["calls"]["x32"] != -31


# --- ordinary programs ------------------------------------------------------------------------

ORDINARY = {
    "sh": ("sh", "-c", "echo a | tr a b; f=$(mktemp) && echo c > $f && cat $f && "
           "awk 'BEGIN{print 3}'"),
    "git": ("sh", "-c", "git init -q r && cd r && git -c user.name=a -c user.email=b commit -qm m "
            "--allow-empty && git log --format=%s"),
    "curl": ("sh", "-c", "curl -sS file:///etc/passwd | grep -c agent"),
    "node": ("node", "-e", "require('child_process').exec('echo sub', (_, o) => console.log(o)); "
             "new (require('worker_threads').Worker)('console.log(1)', {eval: true})"),
}  # fmt: skip
PYTHON = """
import asyncio, multiprocessing, socket, subprocess, threading, tempfile
async def main():
    process = await asyncio.create_subprocess_exec("echo", "sub", stdout=-1)
    print((await process.communicate())[0], await asyncio.to_thread(lambda: 7))
asyncio.run(main())
fork = multiprocessing.get_context("fork")
queue = fork.Queue(); queue.put(5); print(queue.get())
with fork.Pool(2) as pool: print(pool.map(abs, [-1, 2]))
print(socket.getaddrinfo("localhost", 80)[0][4], open("/dev/stdout", "w").write("w"))
tempfile.TemporaryFile().write(b"x")
"""


@pytest.mark.parametrize("name", ORDINARY)
async def test_ordinary_programs_run(name: str) -> None:
    if shutil.which(ORDINARY[name][0]) is None or shutil.which(name) is None:
        pytest.skip(f"{name} is not on this machine")
    printed, ended = await run(*ORDINARY[name])
    assert ended.code == 0, printed
    assert printed.strip() and "rror" not in printed


async def test_python_has_subprocesses_threads_and_multiprocessing() -> None:
    printed, ended = await run(sys.executable, "-c", PYTHON)
    assert ended.code == 0, printed
    assert "b'sub\\n' 7" in printed and "[1, 2]" in printed and "127.0.0.1" in printed


def test_the_lists_ask_for_something() -> None:
    assert len(PATHS) > 10 and len(FOLDERS) > 5
