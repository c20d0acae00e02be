"""A sandbox without namespaces: a uid of its own where there is one, Landlock, the filter, limits.

This process stays beside it: it has the program's uid, but is outside of its Landlock domain, whose
scope on signals keeps the program from it. It adopts whatever the program's processes leave (a
subreaper), so that having no child left means that all of them are gone.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import ctypes
import os
import resource
import select

from . import landlock
from .linux import NUMBERS, Failure, call, libc, long, receive, report, write

SIGINT, SIGKILL, SIGPIPE, SIGCHLD, SIGSTOP, SIGXFSZ = 2, 9, 13, 17, 19, 25
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER = 1, 4, 24, 36
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
GROUPS_MOST = 16
ANNOUNCED = b"file"
SYS_CLOSE_RANGE, FD_MOST = 436, 0x7FFF_FFFF
PAUSE_S = 0.002
COUNT_MS = 100
"""SANDBOX_WATCH_MS of limits.py, which can't be imported here."""
PATH = "/usr/local/bin:/usr/bin:/bin"
FIRST = "exec(compile(open(%d).read(), '<string>', 'exec', dont_inherit=True))"
OWN = ("/tmp", "/work")  # noqa: S108
"""Where a program of another tier has its files; here that is one private folder."""


def main(control_fd: int, go_fd: int, leash: int) -> None:
    """All of the process's life. Whatever happens, no traceback and no survivor."""
    control, go = _socket.socket(fileno=control_fd), _socket.socket(fileno=go_fd)
    uid = 0
    try:
        os.set_inheritable(control_fd, False)
        os.set_inheritable(leash, False)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        asked, groups = receive(control, GROUPS_MOST)
        if not isinstance(asked, dict):
            return  # the kernel has changed its mind
        uid = asked["host_uid"]
        serve(asked, groups, control, go, leash)
    except Failure as failure:
        step, number, detail = failure.args
        report(control, step="failed", at=step, errno=number, detail=detail)
    except OSError as error:
        report(control, step="failed", at="setup", errno=error.errno or 0,
               detail=str(error.filename or ""))  # fmt: skip
    except BaseException as error:
        report(control, step="failed", at="launcher", errno=0, detail=repr(error)[:500])
    finally:
        bury(uid)


def serve(
    asked: dict,  # type: ignore[type-arg]
    groups: list[int],
    control: _socket.socket,
    go: _socket.socket,
    leash: int,
) -> None:
    if landlock.abi() < asked["abi_min"]:
        raise Failure("landlock", 38, f"ABI {landlock.abi()}")
    for group in groups:
        os.write(group, b"0")
        os.close(group)
    write("/proc/self/oom_score_adj", "800")  # the machine's memory ends here first
    folder = os.open(asked["folder"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    drop(asked["host_uid"])
    os.umask(0o077)
    os.chdir("/")
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    _signal.signal(SIGCHLD, lambda *_: None)
    _signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    pid = start_tenant(asked, control, go)
    report(control, (folder,) if asked["workspace"] else (), step="built")
    report(control, step="ready")
    os.close(folder)
    wait(control, leash, pid, woken, asked["host_uid"], asked["processes"])


def drop(uid: int) -> None:
    """Every capability, and the kernel's uid where there is another."""
    if uid:
        for fd in (0, 1, 2):
            os.fchown(fd, uid, uid)
        for capability in range(64):
            if prctl(PR_CAPBSET_DROP, capability):
                break  # the first that this Linux does not have
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)  # takes every capability with it
    prctl(PR_SET_DUMPABLE, 0)


def start_tenant(asked: dict, control: _socket.socket, go: _socket.socket) -> int:  # type: ignore[type-arg]
    pid = os.fork()
    if pid == 0:
        try:
            control.detach()
            close_all_but(go.fileno())
            live(asked, go)
        finally:
            os._exit(127)
    go.close()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):  # the program's streams end when its processes do
        os.dup2(null, fd)
    os.close(null)
    return pid


def live(asked: dict, go: _socket.socket) -> None:  # type: ignore[type-arg]
    """All of the tenant's process. Returns only where its program could not be started."""
    step = "restrictions"
    try:
        os.setsid()
        _signal.set_wakeup_fd(-1)
        _signal.signal(SIGCHLD, _signal.SIG_DFL)
        _signal.signal(SIGINT, _signal.default_int_handler)
        restrict(asked)
        step = "program"
        program = hear_program(go)
        if program is None:
            return
        folder = asked["folder"]
        step = "cwd"
        os.chdir(folder if program["cwd"] in OWN else program["cwd"])
        step = "exec"
        own = {"HOME": folder, "TMPDIR": folder}
        execute(asked["python"], program, {"PATH": PATH, **program["env"], **own}, folder, go)
    except OSError as error:
        report(go, step="refused", at=step, errno=error.errno or 0)
    except BaseException as error:
        report(go, step="refused", at=step, errno=0, detail=repr(error)[:200])


def hear_program(go: _socket.socket) -> dict | None:  # type: ignore[type-arg]
    """None at the end. A large one is announced in a packet before it (control.py)."""
    try:
        if go.recv(len(ANNOUNCED) + 1, _socket.MSG_PEEK) == ANNOUNCED:
            go.recv(len(ANNOUNCED))
    except ConnectionError:
        return None
    program, _ = receive(go, 0)
    return program if isinstance(program, dict) else None


def execute(python: str, program: dict, env: dict, folder: str, go: _socket.socket) -> None:  # type: ignore[type-arg]
    """Become the program. Raises OSError."""
    for number in (SIGPIPE, SIGXFSZ):  # Python ignores them, and exec would keep that
        _signal.signal(number, _signal.SIG_DFL)
    argv = program["argv"]
    code = -1
    if program["code"]:  # may be longer than an argument: in a file without a name
        path = f"{folder}/.program"
        code = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)
        with os.fdopen(os.dup(code), "w") as file:
            file.write(program["code"])
        os.lseek(code, 0, os.SEEK_SET)
        os.set_inheritable(code, True)
        argv = [python, "-I", "-c", FIRST % code, *argv]
    report(go, step="going")  # believed when the socket ends after it
    os.set_inheritable(go.fileno(), False)
    folders = [""] if "/" in argv[0] else env["PATH"].split(":")
    error = OSError(2, "")
    for place in folders:
        try:
            os.execve(os.path.join(place, argv[0]), argv, env)  # noqa: S606
        except OSError as failure:
            error = failure if failure.errno != 2 else error
    raise error


def restrict(asked: dict) -> None:  # type: ignore[type-arg]
    """All that can't be undone, before the process hears its program."""
    prctl(PR_SET_PDEATHSIG, SIGKILL)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    for which, soft, hard in asked["limits"]:
        limit(which, soft, hard)
    if asked["processes"]:
        most = tasks_of(os.getuid()) + asked["processes"]
        limit(resource.RLIMIT_NPROC, most, most)
    limit(resource.RLIMIT_CORE, 1, 1)  # 0 would run the machine's core dump program
    used = landlock.restrict(asked["reading"], [asked["folder"]], asked["using"], network=False)
    if used < asked["abi_min"]:
        raise Failure("landlock", 38, f"ABI {used}")
    program = ctypes.create_string_buffer(asked["filter"], len(asked["filter"]))
    head = (ctypes.c_uint64 * 2)(len(asked["filter"]) // 8, ctypes.addressof(program))
    seccomp = NUMBERS[os.uname().machine][3]
    call("seccomp", "syscall", long(seccomp), long(SECCOMP_SET_MODE_FILTER), long(0), head)


def close_all_but(kept: int) -> None:
    """Beside the three streams."""
    for first, last in ((3, kept - 1), (kept + 1, FD_MOST)):
        if first <= last:
            libc.syscall(long(SYS_CLOSE_RANGE), long(first), long(last), long(0))


def limit(which: int, soft: int, hard: int) -> None:
    """Lower a limit; one that is lower already stays."""
    ceiling = resource.getrlimit(which)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(which, (soft, hard))


def tasks_of(uid: int) -> int:
    """Processes and threads that this user has already: Linux counts them with the sandbox's."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                pass
    return count


def wait(control: _socket.socket, leash: int, wanted: int, woken: int, uid: int, most: int) -> None:
    """Tell how the program ended, when nobody is left of it; or see the kernel's end. `most`:
    processes, counted here where Linux would count all of this user's; 0 where it needs not."""
    poll = select.poll()
    poll.register(control.fileno(), 0)  # nothing is ever read: its end alone says something
    poll.register(leash, 0)
    poll.register(woken, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll(COUNT_MS if most else None)}
        if {control.fileno(), leash} & ready:
            return
        if most and len(descendants(os.getpid())) > most:
            kill_all(uid)
        if woken in ready:
            os.read(woken, 512)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                break
            if pid == wanted:
                bury(uid)
                killed = os.WIFSIGNALED(status)
                report(control, step="exit", code=None if killed else os.WEXITSTATUS(status),
                       signal=os.WTERMSIG(status) if killed else None)  # fmt: skip
                return


def bury(uid: int) -> None:
    """Until no process of the sandbox is left: a subreaper without a child has no descendant."""
    while True:
        kill_all(uid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        select.select([], [], [], PAUSE_S)


def kill_all(uid: int) -> None:
    if uid and set(os.getresuid()) == {uid}:  # never as root: that would be everybody
        try:
            os.kill(-1, SIGKILL)  # whoever has this uid, but this process itself
        except ProcessLookupError:
            pass
        return
    for number in (SIGSTOP, SIGKILL):  # who can't run can't fork while the others are looked for
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


def descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:  # it grows
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{thread}/children") as file:
                    found += map(int, file.read().split())
        except OSError:
            pass
    return found[1:]


def prctl(option: int, value: int) -> int:
    result: int = libc.prctl(ctypes.c_int(option), long(value), long(0), long(0), long(0))
    return result
