"""The sandbox's process 1: builds, gives up all power, forks the tenant's process, reaps.

The order, and why. The namespaces come first, from whoever the kernel is; then the cgroups, before
anything could be forked outside of them. The tree is built with the kernel's identity, because it
may be the only one that can read the interpreter (a 0700 home). Then the uid is dropped, then a
user namespace of its own is entered: it owns none of the other namespaces, so a capability in it is
worth nothing. Then all capabilities go, then the filter comes, then the tenant's process is forked,
then the kernel hears "ready".
"""

from __future__ import annotations

import _socket
import ctypes
import errno
import os
import resource
import select

from . import landlock, tenant
from .linux import (
    INSIDE_ID,
    NUMBERS,
    Failure,
    Making,
    call,
    libc,
    long,
    map_ids,
    receive,
    report,
)
from .tenant import close_all_but
from .tree import build_tree, listen, name_host, open_doors, raise_loopback, seal_tree

SIGCHLD = 17
CLONE_NEWCGROUP, CLONE_NEWUSER = 0x0200_0000, 0x1000_0000
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS = 4, 24, 28, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECUREBITS_ALL_LOCKED = 0xEF
SECCOMP_SET_MODE_FILTER = 1
SYS_SIGNALFD = 289 if os.uname().machine == "x86_64" else 74
KEYCTL_JOIN_SESSION_KEYRING = 1
GROUPS_MOST = 16
# Made in the zygote, so that no sandbox has to make them again.
PAIR, HEADER, NOTHING = ctypes.c_uint64 * 2, ctypes.c_uint32 * 2, ctypes.c_uint32 * 6
WRITTEN = ["/tmp", "/work"]  # noqa: S108
USED = ["/dev", "/proc"]
LANDLOCK = landlock.abi()
"""0: this Linux does not have it; then the mounts are the only wall."""


def prctl(step: str, option: int, value: int) -> None:
    call(step, "prctl", ctypes.c_int(option), long(value), long(0), long(0), long(0))


def become_nobody(making: Making, ruleset: int) -> None:
    """No privilege, no way to get one, a user namespace that owns nothing, no capability in it."""
    _, _, keyctl, seccomp = NUMBERS[os.uname().machine]
    # Without the kernel's keys. It may fail: the filter keeps all of them out of reach.
    libc.syscall(long(keyctl), long(KEYCTL_JOIN_SESSION_KEYRING), None)
    prctl("privileges", PR_SET_NO_NEW_PRIVS, 1)
    if making.host_uid:
        os.setgroups([])
        os.setresgid(making.host_uid, making.host_uid, making.host_uid)
        os.setresuid(making.host_uid, making.host_uid, making.host_uid)
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
    call("privileges", "capset", HEADER(0x2008_0522, 0), NOTHING())

    if ruleset >= 0:
        landlock.enforce(ruleset)

    # No core dump. Where the machine pipes them to a program, 0 would run that program, as root, on
    # the tenant's memory; 1 does not (fs/coredump.c). The filter keeps it where it is.
    tenant.limit(resource.RLIMIT_CORE, 1, 1)
    program = ctypes.c_char_p(making.filter)
    head = PAIR(len(making.filter) // 8, ctypes.c_uint64.from_buffer(program).value)
    call("seccomp", "syscall", long(seccomp), long(SECCOMP_SET_MODE_FILTER), long(0), head)


def take(fds: list[int]) -> tuple[_socket.socket, _socket.socket]:
    """Make what came with the request this process's own: its streams, and the two sockets that it
    gives back. Everything else that the zygote had open is closed."""
    control, go, *streams = fds
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    if go != tenant.GO:
        if control == tenant.GO:
            raise Failure("descriptors", errno.EMFILE, "")
        os.dup2(go, tenant.GO, inheritable=False)
    close_all_but(control, tenant.GO)
    return _socket.socket(fileno=control), _socket.socket(fileno=tenant.GO)


def join(groups: list[int]) -> None:
    """Enter cgroups, each by its open cgroup.procs, and see them as the top from then on."""
    for group in groups:
        try:
            os.write(group, b"0")
        except OSError as error:
            raise Failure("cgroup", error.errno, "") from None
        os.close(group)
    if groups:
        call("namespaces", "unshare", ctypes.c_int(CLONE_NEWCGROUP))


def build(making: Making, control: _socket.socket, ruleset: int) -> None:
    """All that needs power, and hand over the doors, the proxy's listener and /work: in this order,
    as far as asked for."""
    for fd in (0, 1, 2):
        if making.host_uid:
            os.fchown(fd, making.host_uid, making.host_uid)  # else /dev/stdout can't be opened
    build_tree(making, making.host_uid or INSIDE_ID)
    name_host()
    raise_loopback()
    handed = []
    if making.door_port:
        handed += [listener.detach() for listener in open_doors(making.door_port)]
    if making.proxy_port:
        handed.append(listen(making.proxy_port).detach())
    seal_tree()
    if making.workspace:
        handed.append(os.open("/work", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    if ruleset >= 0:  # a second wall behind the mounts
        landlock.allow(LANDLOCK, ruleset, ["/"], WRITTEN, USED)
    report(control, tuple(handed), step="built")


def build_in_child(making: Making, control: _socket.socket, ruleset: int) -> bool:
    """By a child, whose memory is given back when it ends: a parked init stays small (most of what
    it would have touched, it would never touch again). Did it end well?"""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1] == 0
    try:
        telling(control.fileno(), build, making, control, ruleset)
    finally:
        os._exit(1)


def start_tenant(go: _socket.socket) -> int:
    """Fork the tenant's process. Init itself then holds none of its pipes, so that they end when
    the tenant's processes do."""
    null = os.open("/dev/null", os.O_RDWR)
    pid = os.fork()
    if pid == 0:
        try:
            tenant.live(go)
        finally:
            os._exit(127)
    go.close()
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    return pid


def children_end() -> int:
    """A descriptor that can be read when a child has ended. (A handler of Python's would touch
    memory, and leave the tenant's process something to undo.)"""
    mask = ctypes.byref(ctypes.c_uint64(1 << (SIGCHLD - 1)))
    return call("signals", "syscall", long(SYS_SIGNALFD), long(-1), mask, long(8),
                long(os.O_CLOEXEC | os.O_NONBLOCK))  # fmt: skip


def reap(control: _socket.socket, wanted: int, ended: int, poll: select.poll) -> None:
    """Tell how the tenant ended. When the kernel is gone the control socket ends; init then exits,
    and Linux kills whatever else lives in the namespace."""
    while True:
        if any(fd != ended for fd, _ in poll.poll()):
            return
        os.read(ended, 128)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            if pid == wanted:
                killed = os.WIFSIGNALED(status)
                report(control, step="exit", code=None if killed else os.WEXITSTATUS(status),
                       signal=os.WTERMSIG(status) if killed else None)  # fmt: skip
                return


def serve(control: _socket.socket, go: _socket.socket, uid: int, gid: int) -> None:
    """All of pid 1's life. Any failure is raised."""
    asked, groups = receive(control, GROUPS_MOST)
    if not isinstance(asked, dict):
        return  # the kernel has changed its mind
    join(groups)
    making = Making(asked)
    if not making.host_uid:
        map_ids("user namespace", uid, gid)
    ruleset = landlock.create(LANDLOCK, network=True) if LANDLOCK else -1
    if not build_in_child(making, control, ruleset):
        return
    become_nobody(making, ruleset)
    tenant.prepare(making.limits)
    ended = children_end()
    poll = select.poll()
    poll.register(control.fileno(), 0)  # nothing is ever read: its end alone says something
    poll.register(ended, select.POLLIN)
    report(control, step="ready")
    reap(control, start_tenant(go), ended, poll)


def live(fds: list[int], uid: int, gid: int) -> None:
    """In the clone. Whatever happens, no traceback, no return and no survivor."""
    try:
        telling(fds[0], start, fds, uid, gid)
    finally:
        os._exit(0)


def start(fds: list[int], uid: int, gid: int) -> None:
    control, go = take(fds)
    try:
        serve(control, go, uid, gid)
    finally:
        control.detach()


def telling(control: int, work: Callable[..., None], *args: object) -> None:
    """Do it and end the process; what goes wrong is told the kernel in one message."""
    step, number, detail = "", 0, ""
    try:
        work(*args)
        os._exit(0)
    except Failure as failure:
        step, number, detail = failure.args
    except OSError as error:
        step, number, detail = "setup", error.errno or 0, str(error.filename or "")
    except BaseException as error:
        step, detail = "launcher", repr(error)[:500]
    report(_socket.socket(fileno=control), step="failed", at=step, errno=number, detail=detail)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
