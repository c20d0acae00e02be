"""The sandbox's process 1: builds, gives up all power, waits for "go", runs the tenant, reaps.

The order, and why. The namespaces come first, from whoever the kernel is. The tree is built with
that identity, because it may be the only one that can read the interpreter (a 0700 home). Then the
uid is dropped, then a user namespace of its own is entered: it owns none of the other namespaces,
so a capability in it is worth nothing. Then all capabilities go, then the filter comes, then the
kernel hears "ready".
"""

import _signal  # type: ignore[import-not-found]
import _socket
import ctypes
import marshal
import os
import resource
import select
import sys

from .linux import INSIDE_ID, NUMBERS, Failure, Spec, call, libc, long, map_ids, report, write
from .tree import build_tree, name_host, open_doors, raise_loopback, seal_tree

SIGINT, SIGPIPE, SIGCHLD, SIGXFSZ = 2, 13, 17, 25
CLONE_PARENT, CLONE_NEWUSER = 0x8000, 0x1000_0000
# Mount, cgroup, uts, ipc, pid, network.
CLONE_NEW = 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x2000_0000 | 0x4000_0000
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS = 4, 24, 28, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECUREBITS_ALL_LOCKED = 0xEF
SECCOMP_SET_MODE_FILTER = 1
SYS_CLOSE_RANGE, CLOSE_RANGE_CLOEXEC = 436, 4
KEYCTL_JOIN_SESSION_KEYRING = 1


def prctl(step: str, option: int, value: int) -> None:
    call(step, "prctl", ctypes.c_int(option), long(value), long(0), long(0), long(0))


def limit(which: int, soft: int, hard: int) -> None:
    """Lower a limit; one that is lower already stays."""
    ceiling = resource.getrlimit(which)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(which, (soft, hard))


def become_nobody(spec: Spec) -> None:
    """No privilege, no way to get one, a user namespace that owns nothing, no capability in it."""
    _, _, keyctl, seccomp = NUMBERS[os.uname().machine]
    # Without the kernel's keys. It may fail: the filter keeps all of them out of reach.
    libc.syscall(long(keyctl), long(KEYCTL_JOIN_SESSION_KEYRING), None)
    prctl("privileges", PR_SET_NO_NEW_PRIVS, 1)
    if spec.host_uid:
        os.setgroups([])
        os.setresgid(spec.host_uid, spec.host_uid, spec.host_uid)
        os.setresuid(spec.host_uid, spec.host_uid, spec.host_uid)
    uid, gid = os.getuid(), os.getgid()
    prctl("privileges", PR_SET_DUMPABLE, 1)  # else /proc/self belongs to root and can't be written
    call("user namespace", "unshare", ctypes.c_int(CLONE_NEWUSER))
    map_ids("user namespace", uid, gid)
    prctl("privileges", PR_SET_DUMPABLE, 0)
    prctl("privileges", PR_SET_SECUREBITS, SECUREBITS_ALL_LOCKED)
    call("privileges", "prctl", ctypes.c_int(PR_CAP_AMBIENT), long(PR_CAP_AMBIENT_CLEAR_ALL),
         long(0), long(0), long(0))  # fmt: skip
    for capability in range(64):
        if libc.prctl(ctypes.c_int(PR_CAPBSET_DROP), long(capability), long(0), long(0), long(0)):
            break  # the first that this Linux does not have
    header = (ctypes.c_uint32 * 2)(0x2008_0522, 0)
    call("privileges", "capset", header, (ctypes.c_uint32 * 6)())

    # No core dump. Where the machine pipes them to a program, 0 would run that program, as root, on
    # the tenant's memory; 1 does not (fs/coredump.c). The filter keeps it where it is.
    limit(resource.RLIMIT_CORE, 1, 1)
    program = ctypes.create_string_buffer(spec.filter, len(spec.filter))
    head = (ctypes.c_uint64 * 2)(len(spec.filter) // 8, ctypes.addressof(program))
    call("seccomp", "syscall", long(seccomp), long(SECCOMP_SET_MODE_FILTER), long(0), head)


def run_tenant(spec: Spec, failures: int) -> None:
    """In the forked child: the last restrictions, then the tenant's program. Returns only by error,
    which it writes to `failures`, a pipe that a successful exec closes."""
    step = "limits"
    try:
        os.setsid()
        for number in (SIGPIPE, SIGCHLD, SIGXFSZ):  # Python ignores some, and exec would keep that
            _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
        for which, soft, hard in spec.limits:
            limit(which, soft, hard)
        os.umask(0o077)
        step = "cwd"
        os.chdir(spec.cwd)
        step = "exec"
        libc.syscall(long(SYS_CLOSE_RANGE), long(3), long(0x7FFF_FFFF), long(CLOSE_RANGE_CLOEXEC))
        name = spec.argv[0]
        folders = [""] if "/" in name else spec.env.get("PATH", "").split(":")
        error = OSError(2, "")
        for folder in folders:
            try:
                os.execve(os.path.join(folder, name), spec.argv, spec.env)  # noqa: S606
            except OSError as failure:
                error = failure if failure.errno != 2 else error
        raise error
    except OSError as failure:
        os.write(failures, f"{step} {failure.errno}".encode())
    except BaseException:
        os.write(failures, f"{step} 0".encode())


def start_tenant(spec: Spec, control: _socket.socket) -> int:
    """Fork, and tell the kernel how it went. Init itself then holds none of the tenant's pipes, so
    that they end when the tenant's processes do."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            run_tenant(spec, writing)
        finally:
            os._exit(127)
    os.close(writing)
    failure = os.read(reading, 64).decode()
    os.close(reading)
    if failure:
        step, _, number = failure.partition(" ")
        report(control, step="refused", at=step, errno=int(number))
    else:
        report(control, step="started")
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    return pid


def be_init(spec: Spec, control: _socket.socket) -> None:
    """Wait for "go", reap, tell how the tenant ended. When the kernel is gone the control socket
    ends; init then exits, and Linux kills whatever else lives in the namespace."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    _signal.signal(SIGINT, _signal.SIG_DFL)  # Linux keeps from an init what it has no handler for
    _signal.signal(SIGCHLD, lambda *_: None)
    _signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(control.fileno(), select.POLLIN)
    poll.register(woken, select.POLLIN)
    tenant = 0
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if control.fileno() in ready:
            if control.recv(16) != b"go":
                return
            if not tenant:
                tenant = start_tenant(spec, control)
        if woken in ready:
            os.read(woken, 512)
        while tenant:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == tenant:
                killed = os.WIFSIGNALED(status)
                report(control, step="exit", code=None if killed else os.WEXITSTATUS(status),
                       signal=os.WTERMSIG(status) if killed else None)  # fmt: skip
                return


def become_sandbox(spec: Spec, control: _socket.socket, uid: int, gid: int) -> None:
    """All of pid 1's life. Any failure is raised; the caller reports it."""
    if not spec.host_uid:
        map_ids("user namespace", uid, gid)
    write("/proc/self/oom_score_adj", "800")  # the machine's memory ends here first
    for fd in (0, 1, 2):
        if spec.host_uid:
            os.fchown(fd, spec.host_uid, spec.host_uid)  # else /dev/stdout can't be opened
    build_tree(spec, spec.host_uid or INSIDE_ID)
    name_host()
    raise_loopback()
    doors = open_doors(spec.door_port) if spec.door_port else None
    seal_tree()
    become_nobody(spec)
    if doors:
        report(control, (doors[0].fileno(), doors[1].fileno()), step="ready", port=doors[2])
        doors[0].close()
        doors[1].close()
    else:
        report(control, step="ready", port=0)
    be_init(spec, control)


def main() -> None:
    """Report every failure as one message. Whatever happens, no traceback and no survivor."""
    control = _socket.socket(fileno=int(sys.argv[1]))
    try:
        os.set_inheritable(control.fileno(), False)
        with open(int(sys.argv[2]), "rb") as file:
            spec = Spec(marshal.loads(file.read()))  # noqa: S302  # the kernel wrote it
        uid, gid = os.getuid(), os.getgid()
        clone = NUMBERS[os.uname().machine][0]
        # CLONE_PARENT: init is the kernel's own child, which can wait for it and leaves no zombie.
        flags = CLONE_NEW | CLONE_PARENT | SIGCHLD | (0 if spec.host_uid else CLONE_NEWUSER)
        pid = call("namespaces", "syscall", long(clone), long(flags), long(0), long(0), long(0),
                   long(0))  # fmt: skip
        if pid:
            report(control, (os.pidfd_open(pid),), step="born", pid=pid)
        else:
            become_sandbox(spec, control, uid, gid)
    except Failure as failure:
        step, number, detail = failure.args
        report(control, step="failed", at=step, errno=number, detail=detail)
    except OSError as error:
        report(control, step="failed", at="setup", errno=error.errno or 0,
               detail=str(error.filename or ""))  # fmt: skip
    except BaseException as error:
        report(control, step="failed", at="launcher", errno=0, detail=repr(error)[:500])
