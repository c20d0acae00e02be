"""Asked from inside a sandbox and, as the positive control, from outside: prints one JSON object.

Runs by itself (`python -I -S -c <this file> <json>`); each answer is an errno, 0 for "it worked".
"""

import ctypes
import errno
import json
import os
import signal
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)
ARM = os.uname().machine == "aarch64"
CLONE_NEWUSER = 0x1000_0000


def system_call(number, *args):
    longs = [a if isinstance(a, (bytes, ctypes.Array)) else ctypes.c_long(a) for a in args]
    if libc.syscall(ctypes.c_long(number), *longs) == -1:
        return ctypes.get_errno()
    return 0


def attempt(function, *args):
    try:
        result = function(*args)
    except OSError as error:
        return error.errno
    if hasattr(result, "close"):
        result.close()
    return 0


def in_child(function, *args):
    """What a forked child answers; minus the signal that it died of."""
    pid = os.fork()
    if pid == 0:
        code = 125
        try:
            code = function(*args)
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def numbers(x86_64, aarch64):
    return aarch64 if ARM else x86_64


def calls():
    """The ways into the kernel. With these arguments each does nothing, or fails otherwise than
    by EPERM, where it is let through to root."""
    buffer = ctypes.create_string_buffer(256)
    return {
        "unshare": in_child(system_call, numbers(272, 97), CLONE_NEWUSER),
        "setns": system_call(numbers(308, 268), -1, 0),
        "clone_newuser": in_child(clone_newuser),
        "clone3": system_call(435, 0, 0),
        "mount": system_call(numbers(165, 40), b"x", b"/nowhere", b"tmpfs", 0, 0),
        "umount2": system_call(numbers(166, 39), b"/nowhere", 0),
        "pivot_root": system_call(numbers(155, 41), b"/nowhere", b"/nowhere"),
        "chroot": system_call(numbers(161, 51), b"/nowhere"),
        "fsopen": system_call(430, b"nothing", 0),
        "open_tree": system_call(428, -100, b"/nowhere", 0),
        "move_mount": system_call(429, -100, b"/nowhere", -100, b"/nowhere", 0),
        "mount_setattr": system_call(442, -100, b"/nowhere", 0, buffer, 32),
        "io_uring_setup": system_call(425, 0, 0),
        "bpf": system_call(numbers(321, 280), 9999, 0, 0),
        "keyctl": system_call(numbers(250, 219), 0, -3, 0),
        "add_key": system_call(numbers(248, 217), b"user", b"x", b"y", 1, -2),
        "userfaultfd": in_child(system_call, numbers(323, 282), 1),
        "perf_event_open": system_call(numbers(298, 241), 0, 0, -1, -1, 0),
        "ptrace": in_child(system_call, numbers(101, 117), 0, 0, 0, 0),
        "process_vm_readv": system_call(numbers(310, 270), os.getpid(), 0, 0, 0, 0, 0),
        "kexec_load": system_call(numbers(246, 104), 0, 0, 0, 0xFFFF),
        "finit_module": system_call(numbers(313, 273), -1, b"", 0),
        "name_to_handle_at": system_call(numbers(303, 264), -100, b"/nowhere", buffer, buffer, 0),
        "open_by_handle_at": system_call(numbers(304, 265), -1, buffer, 0),
        "memfd_create": system_call(numbers(319, 279), b"x", 0),
        "pidfd_getfd": system_call(438, -1, 0, 0),
        "shmget": system_call(numbers(29, 194), 1, 0, 0),
        "personality": in_child(system_call, numbers(135, 92), 0x0004_0000),
        "prlimit_of_init": system_call(numbers(302, 261), 1, 7, 0, 0),
        "tiocsti": system_call(numbers(16, 29), 0, 0x5412, buffer),
        "tiocsti_high_bits": system_call(numbers(16, 29), 0, 0x5412 | 1 << 32, buffer),
        "tioclinux_high_bits": system_call(numbers(16, 29), 0, 0x541C | 0xFF << 32, buffer),
        "newer_than_known": system_call(1000),
        "x32": in_child(system_call, 0x4000_0000 | 39),
    }


def clone_newuser():
    """Raw clone, as fork: the child must not go on with the questions."""
    parent = os.getpid()
    error = system_call(numbers(56, 220), CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if os.getpid() != parent:
        os._exit(0)
    return error


def sockets():
    stream, packets = socket.SOCK_STREAM, socket.SOCK_DGRAM
    kinds = {
        "unix": (socket.AF_UNIX, stream, 0),
        "inet": (socket.AF_INET, stream, 0),
        "inet6": (socket.AF_INET6, packets, 0),
        "netlink": (16, socket.SOCK_RAW, 0),
        "packet": (17, packets, 0),
        "vsock": (40, stream, 0),
        "alg": (38, socket.SOCK_SEQPACKET, 0),
        "raw": (socket.AF_INET, socket.SOCK_RAW, 1),
        "mptcp": (socket.AF_INET, stream, 262),
    }
    return {name: attempt(socket.socket, *kind) for name, kind in kinds.items()}


def connect(address):
    probe = socket.socket()
    probe.settimeout(2)
    return probe.connect_ex(tuple(address))


def create(folder):
    path = os.path.join(folder, "ring0-was-here")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        os.unlink(path)
    except OSError as error:
        return error.errno
    return 0


def status():
    with open("/proc/self/status") as file:
        return {line.split(":")[0]: line.split(":", 1)[1].strip() for line in file}


def readable_environments():
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/environ") as file:
                    found[entry] = file.read()
            except OSError as error:
                found[entry] = errno.errorcode[error.errno]
    return found


def answer(asked):
    return {
        "calls": calls(),
        "sockets": sockets(),
        "connect": connect(asked.get("address", ["192.0.2.1", 80])),
        "interfaces": [line.split(":")[0].strip() for line in open("/proc/self/net/dev")][2:],
        "exists": {path: os.path.exists(path) for path in asked.get("paths", [])},
        "create": {folder: create(folder) for folder in asked.get("folders", [])},
        "core_pattern": attempt(open, "/proc/sys/kernel/core_pattern", "r+"),
        "status": status(),
        "uid": os.getuid(),
        "descriptors": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1],
        "processes": sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()),
        "environment": dict(os.environ),
        "environments": readable_environments(),
        "hostname": socket.gethostname(),
        "namespaces": {n: os.readlink("/proc/self/ns/" + n) for n in os.listdir("/proc/self/ns")},
    }


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.argv[1]))), flush=True)
