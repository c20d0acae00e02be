"""A sandbox's process 1 that runs an OCI runtime (runc, runsc) within its namespaces.

So whatever that starts ends with init, sees no network, and is counted in the same cgroups; and the
machine's own tree is read-only for it. It gets a finished root: all that it mounts itself is /proc.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import ctypes
import errno
import json
import os
import resource
import select
import subprocess

from . import tree
from .bare import hear_program
from .linux import NUMBERS, Failure, call, long, receive, report, write
from .tree import (
    ATTR_NODEV,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    mount,
    restrict,
)

SIGKILL, SIGCHLD, SIGXCPU = 9, 17, 24
CLONE_PARENT, CLONE_NEWUSER, CLONE_NEWCGROUP = 0x8000, 0x1000_0000, 0x0200_0000
# Mount, uts, ipc, pid, network.
CLONE_NEW = 0x0002_0000 | 0x0400_0000 | 0x0800_0000 | 0x2000_0000 | 0x4000_0000
GROUPS_MOST = 16
ROOM = "/dev/shm"  # noqa: S108  # there everywhere, and nothing that anyone mounts comes from it
ROOT, FILES, BUNDLE, DOORS = (f"{ROOM}/{name}" for name in ("root", "files", "bundle", "doors"))
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"}  # noqa: S108
CODE = "/run/ring0/program.py"
FIRST = f"exec(compile(open({CODE!r}).read(), '<string>', 'exec', dont_inherit=True))"


def main(control_fd: int, go_fd: int, leash_fd: int) -> None:
    """Clone the sandbox's init into its namespaces, tell the kernel, and end."""
    leash = _socket.socket(fileno=leash_fd)
    uid, gid = os.getuid(), os.getgid()
    clone = NUMBERS[os.uname().machine][0]
    # CLONE_PARENT: init is the kernel's own child, which can wait for it and leaves no zombie.
    flags = CLONE_NEW | CLONE_PARENT | SIGCHLD | (CLONE_NEWUSER if uid else 0)
    try:
        pid = call("namespaces", "syscall", long(clone), long(flags), long(0), long(0), long(0),
                   long(0))  # fmt: skip
        if pid == 0:
            leash.close()
            live(control_fd, go_fd, uid, gid)
        report(leash, (os.pidfd_open(pid),), step="born", pid=pid)
    except Failure as failure:
        step, number, detail = failure.args
        report(leash, step="failed", at=step, errno=number, detail=detail)


def live(control_fd: int, go_fd: int, uid: int, gid: int) -> None:
    """All of init's life. Whatever happens, no traceback, no return and no survivor."""
    control, go = _socket.socket(fileno=control_fd), _socket.socket(fileno=go_fd)
    try:
        for fd in (control_fd, go_fd):
            os.set_inheritable(fd, False)
        asked, groups = receive(control, GROUPS_MOST)
        if not isinstance(asked, dict):
            return  # the kernel has changed its mind
        for group in groups:
            os.write(group, b"0")
            os.close(group)
        serve(asked, control, go, uid, gid)
    except Failure as failure:
        step, number, detail = failure.args
        report(control, step="failed", at=step, errno=number, detail=detail)
    except OSError as error:
        report(control, step="failed", at="setup", errno=error.errno or 0,
               detail=str(error.filename or ""))  # fmt: skip
    except BaseException as error:
        report(control, step="failed", at="launcher", errno=0, detail=repr(error)[:500])
    finally:
        os._exit(0)


def serve(asked: dict, control: _socket.socket, go: _socket.socket, uid: int, gid: int) -> None:  # type: ignore[type-arg]
    """From where it has joined its cgroups. Any failure is raised."""
    call("namespaces", "unshare", ctypes.c_int(CLONE_NEWCGROUP))
    if not asked["host_uid"]:
        become_root_of_nothing(uid, gid)
    write("/proc/self/oom_score_adj", "800")
    handed = build(asked)
    report(control, tuple(handed), step="built")
    report(control, step="ready")
    for fd in handed:
        os.close(fd)
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    _signal.signal(SIGCHLD, lambda *_: None)
    _signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(control.fileno(), 0)  # its end alone says something
    poll.register(go.fileno(), select.POLLIN)
    if control.fileno() in [fd for fd, _ in poll.poll()]:
        return
    program = hear_program(go)
    if program is None:
        return
    pid = start(asked, program, go)
    go.close()
    poll.unregister(go.fileno()) if go.fileno() >= 0 else None
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):  # the program's streams end when its processes do
        os.dup2(null, fd)
    os.close(null)
    if pid:
        bounds = {which: soft for which, soft, _ in asked["limits"]}
        reap(control, pid, woken, bounds.get(resource.RLIMIT_CPU, 0))


def become_root_of_nothing(uid: int, gid: int) -> None:
    """A runtime wants to be root, if only of this user namespace."""
    try:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/gid_map", f"0 {gid} 1")
        write("/proc/self/uid_map", f"0 {uid} 1")
    except OSError as error:
        raise Failure("user namespace", error.errno, "") from None


def build(asked: dict) -> list[int]:  # type: ignore[type-arg]
    """The tree that the program will see, and what is handed to the kernel, in init.py's order."""
    mount("mounts", "", "/", "", MS_REC | MS_PRIVATE)
    restrict("/", ATTR_RDONLY, recursive=True)
    mount("mounts", "room", ROOM, "tmpfs", MS_NOSUID | MS_NODEV, "mode=711,size=8m")
    mount("proc", "proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for folder in (ROOT, FILES, BUNDLE, DOORS):
        os.mkdir(folder, 0o755)
    owner, top = asked["owner"], asked["top"]
    os.chown(ROOT, top, top)
    for name in ("dev", "etc", "proc", "run", "run/ring0", "sys"):
        os.mkdir(f"{ROOT}/{name}", 0o755)
    size = asked["tmp_bytes"]
    mount("mounts", "files", FILES, "tmpfs", MS_NOSUID | MS_NODEV,
          f"mode=755,size={size},nr_inodes={max(1024, size // 4096)}")  # fmt: skip
    for name in ("tmp", "work") if asked["workspace"] else ("tmp",):
        os.mkdir(f"{FILES}/{name}", 0o700)
        os.chown(f"{FILES}/{name}", owner, owner)
        os.mkdir(f"{ROOT}/{name}", 0o755)
        mount("mounts", f"{FILES}/{name}", f"{ROOT}/{name}", "", MS_BIND)
    for target, text in asked["links"]:
        os.makedirs(os.path.dirname(ROOT + target), 0o755, exist_ok=True)
        os.symlink(text, ROOT + target)
    for source, target in asked["mounts"]:
        bind(source, ROOT + target, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
    for name in ("null", "zero", "full", "random", "urandom"):
        bind(f"/dev/{name}", f"{ROOT}/dev/{name}", ATTR_NOSUID | ATTR_NOEXEC)
    for name, text in (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"),
                       ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
                       ("shm", "/tmp")):  # fmt: skip  # noqa: S108
        os.symlink(text, f"{ROOT}/dev/{name}")
    for name, text in tree.ETC.items():
        write(f"{ROOT}/etc/{name}", text)
    mount("mounts", DOORS, f"{ROOT}/run/ring0", "", MS_BIND)
    restrict(f"{ROOT}/run/ring0", ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, recursive=False)
    if not asked["config"]["root"]["readonly"]:  # the runtime leaves that to us
        mount("mounts", ROOT, ROOT, "", MS_BIND | MS_REC)
        restrict(ROOT, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, recursive=False)
    for fd in (0, 1, 2):
        os.fchown(fd, owner, owner)
    return listeners(asked)


def listeners(asked: dict) -> list[int]:  # type: ignore[type-arg]
    """On this namespace's loopback, which the container has too; the door's socket as a file."""
    tree.raise_loopback()
    handed = []
    if asked["door_port"]:
        unix = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        unix.bind(f"{DOORS}/door.sock")
        os.chmod(f"{DOORS}/door.sock", 0o666)  # noqa: S103  # nobody else sees it
        unix.listen(tree.LISTEN_BACKLOG)
        write(f"{DOORS}/mcp.json", tree.MCP_JSON % asked["door_port"])
        handed += [tree.listen(asked["door_port"]).detach(), unix.detach()]
    if asked["proxy_port"]:
        handed.append(tree.listen(asked["proxy_port"]).detach())
    if asked["workspace"]:
        handed.append(os.open(f"{FILES}/work", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    return handed


def bind(source: str, target: str, attributes: int) -> None:
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(target, 0o755, exist_ok=True)
    else:
        write(target, "")
    mount("mounts", source, target, "", MS_BIND | MS_REC)
    restrict(target, attributes, recursive=True)


def start(asked: dict, program: dict, go: _socket.socket) -> int:  # type: ignore[type-arg]
    """The container's first process, as a child of this one; 0 where it can't be started."""
    config = asked["config"]
    process = config["process"]
    process["args"] = program["argv"]
    process["env"] = [
        f"{name}={value}" for name, value in {**ENVIRONMENT, **program["env"]}.items()
    ]
    process["cwd"] = program["cwd"]
    if program["code"]:
        write(f"{DOORS}/program.py", program["code"])
        os.chmod(f"{DOORS}/program.py", 0o644)
        process["args"] = [asked["python"], "-I", "-c", FIRST, *program["argv"]]
    if not os.path.isdir(ROOT + os.path.normpath(program["cwd"])):
        report(go, step="refused", at="cwd", errno=errno.ENOENT)
        return 0
    with open(f"{BUNDLE}/config.json", "w") as file:
        json.dump(config, file)
    runtime = [*asked["runtime"], "--root", f"{ROOM}/state", "--log", f"{BUNDLE}/log"]
    create = ["create", "--bundle", BUNDLE, "--pid-file", f"{BUNDLE}/pid", "box"]
    made = subprocess.run([*runtime, *create], env=asked["environment"], check=False)
    if made.returncode == 0:
        with open(f"{BUNDLE}/pid") as file:
            pid = int(file.read())
        for which, soft, hard in asked["set_later"]:
            resource.prlimit(pid, which, (soft, hard))
        report(go, step="going")
        made = subprocess.run([*runtime, "start", "box"], env=asked["environment"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, check=False)  # fmt: skip
    if made.returncode != 0:
        why = last_words()
        is_missing = "executable file not found" in why or "no such file or directory" in why
        report(go, step="refused", at="exec" if is_missing else "runtime",
               errno=errno.ENOENT if is_missing else 0, detail=why)  # fmt: skip
        return 0
    return pid


def last_words() -> str:
    try:
        with open(f"{BUNDLE}/log", errors="replace") as file:
            return file.read()[-500:]
    except OSError:
        return "The runtime left no log."


def reap(control: _socket.socket, wanted: int, woken: int, cpu_s: int) -> None:
    """Tell how the container ended. Whatever else there is ends with this process."""
    poll = select.poll()
    poll.register(control.fileno(), 0)
    poll.register(woken, select.POLLIN)
    while True:
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            if pid == wanted:
                if not os.WIFSIGNALED(status):
                    report(control, step="exit", code=os.WEXITSTATUS(status))
                    return
                number = os.WTERMSIG(status)
                # A container's first process is deaf to the signal that says why it must end.
                if number == SIGKILL and 0 < cpu_s <= used.ru_utime + used.ru_stime:
                    number = SIGXCPU
                report(control, step="exit", signal=number)
                return
        if control.fileno() in [fd for fd, _ in poll.poll()]:
            return
        os.read(woken, 512)
