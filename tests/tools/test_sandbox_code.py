"""Python source as a sandbox's program: as `python -I -c` runs it, without a new interpreter. And
what a sandbox hands over: the proxy's listener, the folder /work."""

from __future__ import annotations

import asyncio
import signal

import pytest
from sandbox_world import MIB, RUNTIME, run, sandbox, uids

from ring0 import limits
from ring0.errors import InvalidInput, NotFound, Ring0Error, SandboxFailed
from ring0.tools.sandbox import Exit, Mount, SandboxLimits, SandboxSpec, cgroups, launch


async def test_source_runs_as_main_with_its_arguments_environment_and_folder() -> None:
    code = (
        "import os, sys\nassert __name__ == '__main__' and sys.modules['__main__'].os is os\n"
        "print(sys.argv, os.environ['A'], os.getenv('HOME'), os.getcwd(), sys.stdin.read())\n"
        "os.system('echo $A')"
    )
    async with sandbox("x", "é", code=code, env={"A": "ü"}, cwd="/usr") as made:
        made.stdin.write(b"fed")
        made.stdin.close()
        assert (await made.stdout.read()).decode() == "['-c', 'x', 'é'] ü /tmp /usr fed\nü\n" or (
            await made.wait()
        ) == Exit(0, None)


@pytest.mark.parametrize(
    ("code", "ended", "said"),
    [
        ("import sys; sys.exit(7)", 7, ""),
        ("exit()", 0, ""),
        ("raise SystemExit('no')", 1, "no\n"),
        ("import os; os._exit(9)", 9, ""),
        ("def f(): 1/0\nf()", 1, "ZeroDivisionError"),
        ("x = (", 1, "SyntaxError"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
        ("import atexit; atexit.register(print, 'last')", 0, "last\n"),
        ("import threading, time\n"
         "threading.Thread(target=lambda: (time.sleep(.1), print('joined'))).start()", 0, "joined"),
        ("import sys; sys.stdout.write('no newline')", 0, "no newline"),
    ],
)  # fmt: skip
async def test_it_ends_as_python_would(code: str, ended: int, said: str) -> None:
    printed, how = await run(code=code)
    assert how == Exit(ended, None), printed
    assert said in printed if said else printed == ""
    assert "inside" not in printed and "tenant.py" not in printed


async def test_a_signal_ends_it_and_is_told() -> None:
    _, ended = await run(code="import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert ended == Exit(None, signal.SIGTERM)


async def test_a_large_program_arrives_whole() -> None:
    code = f"text = {'x' * 3_000_000!r}\nprint(len(text))"
    assert await run(code=code) == ("3000000\n", Exit(0, None))
    printed, _ = await run("sh", "-c", "echo ${#A}", env={"A": "y" * 100_000})
    assert printed == "100000\n"


async def test_it_has_subprocesses_multiprocessing_and_the_packages_of_the_environment() -> None:
    code = """
import asyncio, multiprocessing, subprocess, sys, msgspec
print(subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True).stdout)
with multiprocessing.get_context("fork").Pool(2) as pool: print(pool.map(abs, [-1, 2]))
print(asyncio.run(asyncio.to_thread(lambda: msgspec.json.encode([1]))))
"""
    assert await run(code=code) == ("b'1\\n'\n[1, 2]\nb'[1]'\n", Exit(0, None))


@pytest.mark.parametrize(
    "fields",
    [{}, {"argv": ("",)}, {"code": "a\0b"}, {"code": "'\udc00'"}, {"argv": ("a", "\udc00\ud800")},
     {"code": "1", "env": {"": "x"}}, {"code": "1", "env": {"A": "\ud800"}}],
)  # fmt: skip
async def test_what_is_no_program_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        await launch(SandboxSpec(host_uid=next(uids), **fields), RUNTIME)  # type: ignore[arg-type]


async def test_one_that_died_before_its_program_says_so() -> None:
    async with sandbox(code="pass", go=False) as made:
        made._parts.init.kill()
        await made.wait()
        with pytest.raises(SandboxFailed, match="dead"):
            await made.go()


async def test_behind_the_mounts_stands_a_second_wall_where_this_linux_has_it() -> None:
    """Seen by what Landlock alone refuses: a device's ioctl."""
    ask = """
import ctypes, fcntl, os
if ctypes.CDLL(None).syscall(444, None, ctypes.c_long(0), 1) < 5: print("none")
try: fcntl.ioctl(os.open("/dev/null", os.O_RDWR), 0x5401, bytes(64))
except OSError as error: print(error.errno)
print(open("/tmp/f", "w").write("x"))
"""
    printed, _ = await run(code=ask)
    if printed.startswith("none"):
        pytest.skip("this Linux has no Landlock, or one that is too old to be seen like this")
    assert printed == "13\n1\n"


# --- what is handed over ------------------------------------------------------------------------


async def test_the_proxys_listener_is_reachable_from_inside_alone() -> None:
    address = ("127.0.0.1", limits.PROXY_PORT)
    code = f"import socket; s=socket.create_connection({address}); s.send(b'x')"
    async with sandbox(code=code, egress=True) as made, asyncio.timeout(10):
        assert made.proxy is not None and made.tcp is made.unix is None
        assert not made.proxy.getblocking()
        connection, _ = await asyncio.get_running_loop().sock_accept(made.proxy)
        assert await asyncio.get_running_loop().sock_recv(connection, 9) == b"x"
        connection.close()
    async with sandbox(code=f"import socket; print(socket.socket().connect_ex(('127.0.0.1', "
                       f"{limits.PROXY_PORT})))") as made:  # fmt: skip
        assert made.proxy is None
        assert await made.stdout.read() == b"111\n"


async def test_the_workspace_is_reachable_from_both_sides_and_outlives_the_processes() -> None:
    code = "open('/work/out', 'w').write(open('/work/in').read() * 2)"
    async with sandbox(code=code, workspace=True, cwd="/work", go=False) as made:
        assert made.files is not None
        made.files.write("in", b"twice ")
        await made.go()
        assert await made.wait() == Exit(0, None), await made.stderr.read()
        assert made.files.read("out", 100) == b"twice twice "
        made.files.close()


async def test_there_is_no_workspace_that_nobody_asked_for() -> None:
    async with sandbox(code="import os; os.listdir('/work/nothing')") as made:
        assert made.files is None
        assert (await made.wait()).code == 1


@pytest.mark.parametrize("target", ["/work", "/work/bin", "/tmp/bin"])
async def test_nothing_is_mounted_beneath_what_the_program_writes_to(target: str) -> None:
    mounts = (Mount("/usr/bin", target),)
    with pytest.raises(InvalidInput):
        await run(code="1", workspace=True, mounts=mounts)


async def test_the_workspace_and_tmp_have_one_size_together() -> None:
    fill = """
size = 0
try:
    for name in range(16):
        with open(f"/{('tmp', 'work')[name % 2]}/{name}", "wb", 0) as file:
            size += file.write(bytes(2**20))
except OSError as error: print(error.errno, size // 2**20)
"""
    few = SandboxLimits(tmp_bytes=8 * MIB)
    printed, _ = await run(code=fill, workspace=True, limits=few)
    number, size = map(int, printed.split())
    assert number == 28 and size <= 8


async def test_links_planted_in_the_workspace_lead_nowhere() -> None:
    code = (
        "import os; os.symlink('/etc/passwd', '/work/a'); os.mkfifo('/work/b'); os.mkdir('/work/c')"
    )
    async with sandbox(code=code, workspace=True) as made:
        assert await made.wait() == Exit(0, None)
        assert made.files is not None
        for name in ("a", "b", "c", "../etc/passwd", "/etc/passwd"):
            with pytest.raises(Ring0Error):
                made.files.read(name, 1_000)
        with pytest.raises(NotFound):
            made.files.read("nothing", 10)
        made.files.close()


async def test_what_it_used_is_told_also_after_its_end() -> None:
    async with sandbox(code="x = bytearray(50 * 2**20); print(sum(range(2 * 10**6)))") as made:
        await made.wait()
        used = made.stats()
    if cgroups.found().mechanism == "rlimits":
        assert used.memory_bytes_peak == -1
    else:
        assert used.memory_bytes_peak > 50 * MIB
        assert used.cpu_us > 10_000
        assert used.memory_kills == 0 and made.stopped == ""
