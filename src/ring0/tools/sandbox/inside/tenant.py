"""The tenant's process: forked by init, it waits for its program, then is that program.

Until then it holds nobody's data. Python source runs right here, as `__main__`; anything else by
exec. From "going" on, nothing in this process can be trusted.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import builtins
import gc
import marshal
import os
import resource
import sys

from .linux import MESSAGE_SIZE_BYTES, call, libc, long, receive, report

SIGINT, SIGPIPE, SIGCHLD, SIGXFSZ = 2, 13, 17, 25
GOING = b'{"step":"going"}'
SYS_CLOSE_RANGE, CLOSE_RANGE_CLOEXEC, FD_MOST = 436, 4, 0x7FFF_FFFF
GO = 63
"""The descriptor of the socket that the program comes by, so that what closes all others can be
prepared in the zygote."""
CLOSE_BELOW = tuple(map(long, (SYS_CLOSE_RANGE, 3, GO - 1, 0)))
CLOSE_ABOVE = tuple(map(long, (SYS_CLOSE_RANGE, GO + 1, FD_MOST, 0)))
HOME = "/tmp"  # noqa: S108
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": HOME}
"""What every program has, and may be given otherwise."""
DRAWN = ("random", "tempfile", "ssl", "numpy.random", "multiprocessing.process")
"""Modules that have drawn something by chance; see `reseed`."""
drawn: list[str] = []
"""Those of them that this image has."""


def limit(which: int, soft: int, hard: int) -> None:
    """Lower a limit; one that is lower already stays."""
    ceiling = resource.getrlimit(which)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(which, (soft, hard))


def close_range(first: int, last: int, flags: int = 0) -> None:
    call("descriptors", "syscall", long(SYS_CLOSE_RANGE), long(first), long(last), long(flags))


def close_all_but(*kept: int) -> None:
    """Beside the three streams."""
    first = 3
    for fd in sorted(kept):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first, FD_MOST)


def warm() -> None:
    """In the zygote: do once what every tenant does. What is touched here is shared by all, and
    needs no copy of its own in each."""
    one, two = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    for _ in range(3):
        report(one, step="failed", at="", errno=0)
        two.recv(512)
        one.send(marshal.dumps({"code": "pass"}))
        receive(two, 0)
        run("import sys", {"__builtins__": builtins})
    one.close()
    two.close()
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    sys.argv = ["-c"]
    drawn.extend(name for name in DRAWN if name in sys.modules)
    sys.modules["__main__"] = type(sys)("__main__")
    sys.modules["__main__"].__dict__.update(__builtins__=builtins, __annotations__={})


def prepare(limits: list[tuple[int, int, int]]) -> None:
    """In init, before the fork: what both may as well have. Less is then touched after it, when
    each process that touches something gets its own copy."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, [SIGCHLD])  # init hears of it by a descriptor
    _signal.signal(SIGINT, _signal.SIG_DFL)  # Linux keeps from an init what it has no handler for
    for which, soft, hard in limits:
        limit(which, soft, hard)
    os.umask(0o077)


def wait(go: _socket.socket) -> object:
    """Parked here. The usual program is small."""
    data = go.recv(MESSAGE_SIZE_BYTES)
    if data == b"file":
        return receive(go, 0)[0]
    return marshal.loads(data) if data else None  # noqa: S302  # the kernel wrote it


def park() -> None:
    """What needs no program: who asks for one waits for all that comes after it. And no more than
    little: what is touched here is memory of its own for each that is parked."""
    libc.syscall(*CLOSE_BELOW)
    libc.syscall(*CLOSE_ABOVE)
    os.setsid()
    os.chdir(HOME)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
    _signal.signal(SIGINT, _signal.default_int_handler)  # exec takes it back
    gc.enable()


def live(go: _socket.socket) -> None:
    """All of the process's life. Returns only where the program could not be started."""
    step = "program"
    try:
        park()
        program = wait(go)
        if not isinstance(program, dict):
            return
        if program["cwd"] != HOME:
            step = "cwd"
            os.chdir(program["cwd"])
        if program["code"]:
            step = "environment"
            interpret(program, go)
        else:
            step = "exec"
            execute(program, go)
    except OSError as error:
        report(go, step="refused", at=step, errno=error.errno or 0)
    except BaseException as error:
        report(go, step="refused", at=step, errno=0, detail=repr(error)[:200])


def reseed() -> None:
    """What the zygote drew by chance must not be the same in all of its sandboxes. (Hash seeds and
    where things lie in memory stay those of the zygote: nothing can change them.)"""
    modules: dict[str, Any] = sys.modules
    if "random" in modules:
        modules["random"].seed()
    if "tempfile" in modules:
        modules["tempfile"]._name_sequence = None
    if "ssl" in modules:
        modules["ssl"].RAND_add(by_chance(), 32.0)
    if "numpy.random" in modules:
        modules["numpy.random"].seed()
    if "multiprocessing.process" in modules:
        process = modules["multiprocessing.process"]
        process.current_process()._config["authkey"] = process.AuthenticationString(by_chance())


def by_chance() -> bytes:
    with open("/dev/urandom", "rb", 0) as file:
        return file.read(32)


def execute(program: dict[str, Any], go: _socket.socket) -> None:
    """Become another program. Raises OSError."""
    for number in (SIGPIPE, SIGXFSZ):  # Python ignores them, and exec would keep that
        _signal.signal(number, _signal.SIG_DFL)
    argv: list[str] = program["argv"]
    env: dict[str, str] = {**ENVIRONMENT, **program["env"]}
    close_range(3, FD_MOST, CLOSE_RANGE_CLOEXEC)
    go.send(GOING)  # believed when the socket ends after it
    folders = [""] if "/" in argv[0] else env.get("PATH", "").split(":")
    error = OSError(2, "")
    for folder in folders:
        try:
            os.execve(os.path.join(folder, argv[0]), argv, env)  # noqa: S606
        except OSError as failure:
            error = failure if failure.errno != 2 else error
    raise error


def interpret(program: dict[str, Any], go: _socket.socket) -> None:
    """Run Python source as `python -I -c` would, and end the process. Each line here is paid for
    by every sandbox, most of all in memory that is touched for the first time."""
    if drawn:
        reseed()
    if program["env"]:
        os.environ.update(program["env"])
        if "TZ" in os.environ:
            sys.modules["time"].tzset()
    if program["argv"]:
        sys.argv += program["argv"]
    source = program.pop("code")
    go.close()  # its end says that it runs
    status = 120
    try:
        names = sys.modules["__main__"].__dict__
        status = finish(run(source, names), names)
        os.closerange(0, 3)  # who reads what it printed need not wait until its memory is freed
    finally:
        os._exit(status)


def run(source: str, names: dict[str, object]) -> int:
    """The program itself; its exit code."""
    try:
        exec(compile(source, "<string>", "exec", dont_inherit=True), names)  # noqa: S102
    except SystemExit as leaving:
        if leaving.code is None:
            return 0
        if isinstance(leaving.code, int):
            return leaving.code & 0xFF
        print(leaving.code, file=sys.stderr)
        return 1
    except BaseException as error:
        error.__traceback__ = (
            error.__traceback__ and error.__traceback__.tb_next
        )  # without this frame
        sys.excepthook(type(error), error, error.__traceback__)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def finish(status: int, names: dict[str, object]) -> int:
    """What Python does at its end, but for taking itself apart: that would cost milliseconds. The
    program's own names go, so that a file that it left open is written to its end."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    if "atexit" in sys.modules:
        sys.modules["atexit"]._run_exitfuncs()
    names.clear()
    try:
        sys.stdout.flush()
    except OSError:
        status = status or 120
    try:
        sys.stderr.flush()
    except OSError:
        pass
    return status


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
