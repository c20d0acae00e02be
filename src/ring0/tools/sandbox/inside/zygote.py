"""The process that sandboxes are made from: imports an image once, clones itself for each.

It belongs to the kernel and runs as it does, so it holds nothing: no environment, no secret, no
descriptor but the socket on which the kernel asks. What a sandbox is to be is read by its own init,
so that nothing of it stays here for the next one to find. It never runs a line of a tenant's, and
serves one request at a time. It ends when that socket does.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import gc
import importlib
import os
import sys

from . import init, tenant
from .linux import NUMBERS, Failure, call, long, receive, report, write

SIGCHLD, SIGKILL = 17, 9
CLONE_PARENT, CLONE_NEWUSER = 0x8000, 0x1000_0000
# Mount, cgroup, uts, ipc, pid, network.
CLONE_NEW = 0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x2000_0000 | 0x4000_0000

FDS_MOST = 5
"""With one request: control, go, three streams."""
SINGLE_THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(asking: int) -> None:
    """Serve until the kernel closes its end. Every failure goes there as a message."""
    kernel = _socket.socket(fileno=asking)
    os.set_inheritable(asking, False)
    try:
        serve_all(kernel)
    except BaseException as error:
        report(kernel, step="failed", at="zygote", errno=0, detail=repr(error)[:500])


def serve_all(kernel: _socket.socket) -> None:
    image, _ = receive(kernel, 0)
    if not isinstance(image, list):
        return
    write("/proc/self/oom_score_adj", "800")  # here, and in all clones, the memory ends first
    failure = load(image)
    if failure:
        report(kernel, step="failed", at="image", errno=0, detail=failure[:500])
        return
    tenant.warm()
    for name in [name for name in sys.modules if name.partition(".")[0] == __package__]:
        del sys.modules[name]  # no module of a tenant's
    gc.collect()
    gc.freeze()
    gc.disable()
    report(kernel, step="ready")
    while True:
        with_user_namespace, fds = receive(kernel, FDS_MOST)
        if not isinstance(with_user_namespace, bool):
            return
        serve(kernel, with_user_namespace, fds)
        for fd in fds:
            os.close(fd)


def load(image: list[str]) -> str:
    """Import an image's modules. What is wrong, or nothing."""
    if not image:
        return ""
    for name in SINGLE_THREADED:
        os.environ[name] = "1"  # numpy's libraries start threads as they are imported
    for module in image:
        try:
            importlib.import_module(module)
        except BaseException as error:
            return f"{module}: {error!r}"
    for name in SINGLE_THREADED:
        os.environ.pop(name, None)
    if len(os.listdir("/proc/self/task")) > 1:
        # Threads are not cloned, and what they held would stay locked for ever.
        return f"{', '.join(image)}: importing this starts threads"
    return ""


def serve(kernel: _socket.socket, with_user_namespace: bool, fds: list[int]) -> None:
    """One sandbox. Returns in the zygote; its clone never does."""
    uid, gid = os.getuid(), os.getgid()
    clone = NUMBERS[os.uname().machine][0]
    # CLONE_PARENT: init is the kernel's own child, which can wait for it and leaves no zombie.
    flags = CLONE_NEW | CLONE_PARENT | SIGCHLD | (CLONE_NEWUSER if with_user_namespace else 0)
    pidfd = pid = -1
    try:
        pid = call("namespaces", "syscall", long(clone), long(flags), long(0), long(0), long(0),
                   long(0))  # fmt: skip
        if pid == 0:
            kernel.detach()  # init.live closes it with all else that is not its own
            init.live(fds, uid, gid)
        pidfd = os.pidfd_open(pid)
        report(kernel, (pidfd,), step="born", pid=pid)
    except Failure as failure:
        step, number, detail = failure.args
        report(kernel, step="failed", at=step, errno=number, detail=detail)
    except OSError as error:  # nobody holds it: it must not live
        if pidfd >= 0:
            _signal.pidfd_send_signal(pidfd, SIGKILL)
        report(kernel, step="failed", at="zygote", errno=error.errno or 0, detail="")
    finally:
        if pidfd >= 0:
            os.close(pidfd)
