"""`ring0 sandbox exec` and `selftest`, as processes: what goes in, what comes out, what is left."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cli_world import RING0, Done, World
from forked import forking

from ring0.runtime import Runtime
from ring0.tools.egress import Authority, parse_rules


def execute(world: World, *arguments: str, stdin: bytes | None = None) -> tuple[int, bytes, str]:
    """`ring0 sandbox exec` with bytes in and out; started from nothing where something goes in."""
    words = ("sandbox", "exec", *arguments)
    if stdin is None:
        code, out, said = forking(RING0).run(words, world.folder, world.environment, b"", 60)
    else:
        done = subprocess.run(
            [RING0, *words], cwd=world.folder, env=world.environment, input=stdin,
            capture_output=True, timeout=60,
        )  # fmt: skip
        code, out, said = done.returncode, done.stdout, done.stderr
    error = said.decode()
    assert "Traceback" not in error or "python" in arguments, error
    assert code != 70, error
    return code, out, error


def shell(world: World, script: str, *options: str, stdin: bytes | None = None) -> Any:
    return execute(world, *options, "--", "sh", "-c", script, stdin=stdin)


# --- streams and ends -------------------------------------------------------------------------


def test_what_goes_in_comes_out_byte_for_byte(world: World) -> None:
    every = bytes(range(256)) * 20_000
    code, out, error = execute(world, "--", "cat", stdin=every)
    assert (code, error) == (0, "")
    assert hashlib.sha256(out).digest() == hashlib.sha256(every).digest()


def test_both_streams_stay_apart(world: World) -> None:
    code, out, error = shell(world, "printf out; printf error >&2")
    assert (code, out, error) == (0, b"out", "error")


@pytest.mark.parametrize("wanted", [0, 1, 7, 255])
def test_its_exit_code_is_handed_on(world: World, wanted: int) -> None:
    assert shell(world, f"exit {wanted}")[0] == wanted


def test_a_signal_that_ends_it_is_said_as_a_shell_says_it(world: World) -> None:
    assert shell(world, "kill -9 $$")[0] == 137
    assert shell(world, "kill -15 $$")[0] == 143


def test_its_input_streams_while_it_runs(world: World) -> None:
    """The second line goes in only after the answer to the first came out."""
    process = subprocess.Popen(
        [RING0, "sandbox", "exec", "--", "sh", "-c", "while read l; do echo got $l; done"],
        cwd=world.folder, env=world.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin and process.stdout
    for word in (b"one\n", b"two\n"):
        process.stdin.write(word)
        process.stdin.flush()
        assert process.stdout.readline() == b"got " + word
    process.stdin.close()
    assert process.wait(20) == 0


def test_a_reader_that_has_enough_ends_it(world: World) -> None:
    piped = subprocess.run(
        f"{RING0} sandbox exec -- yes | head -2; echo ${{PIPESTATUS[0]}}", shell=True,
        executable="/bin/bash", env=world.environment, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert piped.stdout == "y\ny\n141\n" and piped.stderr == ""


def test_closed_streams_are_no_fault(world: World) -> None:
    for redirect in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(
            f"{RING0} sandbox exec -- sh -c 'cat; echo x; echo y >&2; exit 5' {redirect}",
            shell=True, env=world.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.returncode == 5 and "Traceback" not in done.stderr, (redirect, done)


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_at_once_and_all_that_it_started(world: World, which: int) -> None:
    marker = f"{time.monotonic_ns()}"
    script = (
        f"(setsid sh -c 'trap \"\" INT TERM HUP; sleep 300; : {marker}' &) ; echo up; sleep 300"
    )
    process = world.start("sandbox", "exec", "--", "sh", "-c", script)
    assert process.stdout and process.stdout.readline() == "up\n"
    world.until(lambda: alive(marker))
    began = time.monotonic()
    process.send_signal(which)
    done = world.finish(process)
    assert done.code == 130 and "Interrupted" in done.err
    assert time.monotonic() - began < 5
    assert not alive(marker)


def alive(marker: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            # Of the sandbox: not ring0 itself, which has the whole command line.
            if marker.encode() in text and b"sandbox" not in text:
                found.append(entry.name)
    return found


# --- what it may use up -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "script", "says"),
    [
        ("wall=1s", "sleep 60", "took longer than wall=1 s"),
        ("output=100K", "yes", "printed more than output=102400 bytes"),
        ("cpu=1s", "while :; do :; done", "more CPU time than cpu=1 s"),
    ],
)
def test_a_bound_that_ends_it_is_named(world: World, limit: str, script: str, says: str) -> None:
    code, _, error = shell(world, script, "--limit", limit)
    assert code == 3 and says in error, error


def test_the_other_limits_hold_inside(world: World) -> None:
    code, out, _ = shell(
        world,
        "head -c 3000000 /dev/zero > /tmp/f; wc -c < /tmp/f; ulimit -n",
        "--limit", "tmp=1M,files=33", "--limit", "processes=9",
    )  # fmt: skip
    assert code == 0 and out.split() == [b"1048576", b"33"]


@pytest.mark.parametrize(
    "limit", ["memory", "memory=", "memory=0", "memory=256", "memory=1T", "memory=-1", "wall=1d",
              "cpu=1.5s", "processes=x", "processes=٣", "bananas=1", "=1"],
)  # fmt: skip
def test_a_limit_that_makes_no_sense_is_refused(world: World, limit: str) -> None:
    code, out, error = shell(world, "echo ran", "--limit", limit)
    assert code == 2 and not out and "Do:" in error


# --- what it sees -----------------------------------------------------------------------------


def test_it_sees_nothing_of_this_machine_but_what_is_named(world: World) -> None:
    shown = world.write("shown.txt", "shown")
    world.write("hidden.txt", "hidden")
    shown.chmod(0o644)
    world.environment["CANARY_OF_TEST"] = "leaks"
    script = f"cat /opt/shown; env; ls {world.folder} || true"
    code, out, _ = shell(world, script, "--read", f"{shown}:/opt/shown", "--env", "A=b=c")
    assert code == 0 and out.startswith(b"shown")
    assert b"A=b=c" in out and b"leaks" not in out and b"hidden" not in out
    assert b"RING0_HOME" not in out


def test_what_is_shown_can_not_be_written(world: World) -> None:
    world.write("shown.txt", "as it was").chmod(0o666)
    code, _, _ = shell(world, "echo x > /opt/shown", "--read", "shown.txt:/opt/shown")
    assert code != 0 and (world.folder / "shown.txt").read_text() == "as it was"


def test_secrets_and_the_data_folder_are_never_shown(world: World) -> None:
    (world.folder / "project").mkdir()
    world.write("project/.env", "KEY=canary")
    world.ring0("ps")
    world.home.mkdir(exist_ok=True)
    hidden, own, homes = "holds", "data folder", "not shown"
    for path, why in {
        "project": hidden, "project/.env": hidden, "home": own, ".": own, "/": own,
        "/root": homes, "/home": homes, "nowhere": "nothing",
    }.items():  # fmt: skip
        code, out, error = shell(world, "echo ran", "--read", f"{path}:/opt/shown")
        assert code == 2 and not out and why in error, (path, out, error)


def test_a_value_of_the_environment_is_never_repeated_in_an_error(world: World) -> None:
    code, out, error = shell(world, "echo ran", "--env", "=secret-value")
    assert code == 2 and not out and "secret-value" not in error


# --- its files --------------------------------------------------------------------------------


def project(world: World) -> Path:
    folder = world.folder / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src/a.txt").write_text("a")
    (folder / "same.txt").write_text("same")
    (folder / ".env").write_text("KEY=canary")
    (folder / "link").symlink_to("/etc/passwd")
    return folder


def test_a_folder_is_copied_in_without_secrets_and_stays_as_it_is(world: World) -> None:
    folder = project(world)
    code, out, _ = shell(
        world, "pwd; find . -xdev -type f -o -type l | sort; echo b > src/a.txt",
        "--workspace", str(folder),
    )  # fmt: skip
    assert code == 0
    assert out.decode().split() == ["/work", "./same.txt", "./src/a.txt"]
    assert (folder / "src/a.txt").read_text() == "a"


def test_changed_regular_files_come_out_without_exec_bits(world: World) -> None:
    script = """
echo b > src/a.txt; mkdir -p new/deep; printf '#!/bin/sh' > new/deep/run; chmod 755 new/deep/run
ln -s /etc/passwd planted; ln -s /etc outside; mkfifo pipe; mkdir -p .git/hooks
echo evil > .git/hooks/pre-commit; echo evil > conftest.py; echo evil > x.pth; echo e > .envrc
"""
    folder = project(world)
    code, _, error = shell(world, script, "--workspace", str(folder), "--out", "out")
    assert code == 0
    out = world.folder / "out"
    left = sorted(str(path.relative_to(out)) for path in out.rglob("*") if not path.is_dir())
    assert left == ["new/deep/run", "src/a.txt"]
    assert (out / "src/a.txt").read_text() == "b\n"
    assert (out / "new/deep/run").stat().st_mode & 0o7777 == 0o644
    for name in ("planted", "outside", "pipe", ".git/hooks/pre-commit", "conftest.py", "x.pth"):
        assert name in error, name
    assert "2 files copied to out" in error


def test_out_may_be_the_folder_itself_and_a_link_there_is_not_followed(world: World) -> None:
    folder = project(world)
    (folder / "link").unlink()
    victim = world.write("victim.txt", "untouched")
    (folder / "result.txt").symlink_to(victim)
    code, _, _ = shell(
        world, "echo new > result.txt", "--workspace", str(folder), "--out", str(folder)
    )
    assert code == 0 and victim.read_text() == "untouched"
    assert not (folder / "result.txt").is_symlink()
    assert (folder / "result.txt").read_text() == "new\n"


def test_files_come_out_of_a_command_that_fails_too(world: World) -> None:
    code, _, _ = shell(world, "echo partly > result.txt; exit 3", "--out", "out")
    assert code == 3 and (world.folder / "out/result.txt").read_text() == "partly\n"


def test_holes_and_odd_names_do_not_come_out_and_stop_nothing_else(world: World) -> None:
    script = r"""
printf x > "$(printf 'evil\033]0;owned\007')"; printf y > "$(printf 'two\nlines')"
for i in 1 2 3 4 5 6 7 8 9; do truncate -s 60M hole$i; done
echo secret > locked; chmod 000 locked; echo kept > a.txt
"""
    code, _, error = shell(world, script, "--out", "out")
    assert code == 0 and "\x1b" not in error
    out = world.folder / "out"
    assert (out / "a.txt").read_text() == "kept\n"
    holes = [path for path in out.iterdir() if path.name != "a.txt"]
    assert len(holes) == 4 and all(path.name.startswith("hole") for path in holes)
    for name in ("locked", "evil", "two", "hole9"):
        assert name in error


def test_a_file_name_can_not_speak_to_the_terminal(world: World) -> None:
    script = r"""python3 -c 'open(".\x1b[31mred\u202e", "w").write("x")'"""
    _, _, error = shell(world, script, "--out", "out")
    assert "red" in error and "\x1b" not in error and "\u202e" not in error


# --- where it reaches -------------------------------------------------------------------------


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"answer to {self.path} for {self.headers.get('X-Api-Key')}".encode())

    def log_message(self, *arguments: object) -> None:
        pass


ASKS = """
import os, sys, urllib.request
for name in "no_proxy", "NO_PROXY": del os.environ[name]  # it is its own loopback, otherwise
for url in sys.argv[1:]:
    request = urllib.request.Request(url, headers={"X-Api-Key": "own"})
    try: print(urllib.request.urlopen(request, timeout=10).read().decode())
    except Exception as error: print(type(error).__name__, getattr(error, "code", ""))
"""


def test_it_reaches_the_hosts_that_are_allowed_and_no_other(world: World) -> None:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        port = server.server_port
        url = f"http://127.0.0.1:{port}"
        world.home.mkdir(mode=0o700)
        (world.home / "ring0.toml").write_text('[network]\nallow_private = ["127.0.0.0/8"]\n')
        program = ("--", "python3", "-c", ASKS, f"{url}/open/x", f"{url}/closed")
        # Of its own loopback, which the proxy's variables leave out.
        code, out, error = execute(world, "--allow", f"GET {url}/open/*", *program)
    finally:
        server.shutdown()
    assert code == 0, error
    assert out.decode().splitlines() == ["answer to /open/x for None", "HTTPError 403"]
    assert f"refused: GET {url}" in error


def test_it_reaches_by_tls_and_trusts_only_its_proxy(world: World) -> None:
    """The server's certificate is checked on the far side; inside, the proxy's own is enough."""
    authority = Authority(parse_rules(["127.0.0.1"], "test"), Runtime())
    server = HTTPServer(("127.0.0.1", 0), Answers)
    server.socket = authority.context("127.0.0.1").wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"https://127.0.0.1:{server.server_port}"
        world.home.mkdir(mode=0o700)
        network = '[network]\nallow_private = ["127.0.0.0/8"]\n'
        asked = ("--allow", url, "--", "python3", "-c", ASKS, f"{url}/x")
        (world.home / "ring0.toml").write_text(network)
        unknown = execute(world, *asked)
        world.write("authority.pem", authority.certificate_pem.decode())
        trusted = f'authorities = ["{world.folder}/authority.pem"]\n'
        (world.home / "ring0.toml").write_text(network + trusted)
        known = execute(world, *asked)
    finally:
        server.shutdown()
    assert unknown[1] == b"HTTPError 502\n", unknown
    assert known[1] == b"answer to /x for None\n", known


def test_without_a_rule_there_is_no_way_out(world: World) -> None:
    ask = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 7421)) != 0)"
    assert execute(world, "--", "python3", "-c", ask)[1] == b"True\n"


def test_a_rule_that_is_none_is_refused(world: World) -> None:
    for rule in ("https://*", "ftp://host", "a b c", "api.openai.com", ""):
        code, out, error = shell(world, "echo ran", "--allow", rule)
        assert code == 2 and not out, (rule, error)


# --- errors -----------------------------------------------------------------------------------


def test_less_than_the_tier_that_was_asked_for_is_an_error(world: World) -> None:
    code, out, error = shell(world, "echo ran", "--tier", "microvm")
    assert code == 6 and not out and "Do:" in error
    code, out, error = shell(world, "echo ran", "--tier", "none")
    assert code == 2 and not out and "Do:" in error


def test_less_than_the_tier_of_ring0_toml_is_an_error_too(world: World) -> None:
    world.home.mkdir(parents=True, exist_ok=True)
    (world.home / "ring0.toml").write_text('[sandbox]\ntier = "microvm"\n')
    code, out, error = shell(world, "echo ran")
    assert code == 6 and not out and "microvm" in error


def test_a_command_that_is_not_there_and_none_at_all_are_errors(world: World) -> None:
    assert execute(world, "--", "no-such-program")[0] == 2
    assert execute(world)[0] == 2
    assert execute(world, "echo", "x")[0] == 2


def test_it_needs_no_data_folder_and_makes_none(world: World) -> None:
    assert shell(world, "true")[0] == 0
    assert not world.home.exists()


# --- selftest ---------------------------------------------------------------------------------


def test_the_selftest_says_what_it_tried_and_what_came_of_it(world: World) -> None:
    done = world.ring0("sandbox", "selftest", "--only", "environment", "--only", "unshare-user")
    assert done.code == 0, done.all
    assert "closed" in done.out and "proc-environ" in done.out
    assert "7 attacks, 0 open" in done.out and "7 controls held" in done.out
    told: Done = world.ring0("sandbox", "selftest", "--only", "unshare-user", "--json")
    (finding,) = told.json["findings"]
    assert (finding["state"], finding["held"]) == ("closed", True)
    assert told.json["good"] is True and told.json["open"] == 0
    assert told.json["kernel_uid"] == os.getuid()


def test_an_attack_that_is_not_known_is_an_error(world: World) -> None:
    done = world.ring0("sandbox", "selftest", "--only", "magic")
    assert done.code == 2 and "families" in done.err


def test_ctrl_c_ends_the_selftest_and_takes_its_world_down(world: World) -> None:
    with tempfile.TemporaryDirectory(prefix="st-") as folder:  # the names of sockets are short
        world.environment["TMPDIR"] = folder
        process = world.start("sandbox", "selftest")
        assert process.stdout and process.stdout.readline().startswith("closed")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        done = world.finish(process)
        assert done.code == 130 and "Interrupted" in done.err
        assert time.monotonic() - began < 10
        assert not list(Path(folder).iterdir())


def test_a_full_disk_under_the_selftests_report_is_an_error(world: World) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [RING0, "sandbox", "selftest", "--only", "unshare-user"], env=world.environment,
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 74 and "can't be written to" in done.stderr
