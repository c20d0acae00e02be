"""A sandbox in the words of the OCI runtime specification: what runc and runsc are told.

The same plan of mounts, limits and system calls as the `ns` tier. Who runs it is inside/contain.py,
which fills in the program and mounts all but /proc itself.
"""

from __future__ import annotations

import resource
import sys
from typing import Any, Final

from ring0.tools.sandbox.seccomp import CLONE_NEW_ANY
from ring0.tools.sandbox.spec import SandboxSpec, making_fields
from ring0.tools.sandbox.syscalls import ALLOWED, EXAMINED

INSIDE_ID: Final = 1000
TOP_ID_BIT: Final = 0x8000_0000
"""Between a sandbox's uid on the host and that of its container's root, who owns nothing but the
tree: runtimes want one."""

_ROOT: Final = "/dev/shm/root"  # noqa: S108  # ROOT of inside/contain.py
_MASKED: Final = ("acpi", "asound", "bus", "driver", "fs", "interrupts", "irq", "kallsyms", "kcore",
                  "keys", "kmsg", "latency_stats", "modules", "mtrr", "sched_debug", "scsi", "sys",
                  "sysrq-trigger", "sysvipc", "timer_list", "timer_stats", "version")  # fmt: skip
_IOCTLS: Final = (0x5401, 0x540F, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451, 0x5452)
"""TCGETS, TIOCGPGRP, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, FIOASYNC: an allow-list,
because libseccomp can't refuse a value while it ignores its upper half (the trap of TIOCSTI)."""
_LOW: Final = 0xFFFF_FFFF
_RLIMITS: Final = {getattr(resource, name): name for name in dir(resource)
                   if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"}  # fmt: skip
SET_LATER: Final = (resource.RLIMIT_DATA, resource.RLIMIT_AS)
"""Limits that runc itself could not live with: inside/contain.py sets them when it is done."""
_RLIMIT_CORE: Final = resource.RLIMIT_CORE
_RLIMIT_COUNT: Final = 16


def container_fields(
    spec: SandboxSpec, runtime: tuple[str, ...], *, shares_linux: bool
) -> dict[str, Any]:
    """What inside/contain.py reads. `shares_linux`: the container's processes are this Linux's, in
    a user namespace, with a /dev from the tree; else the runtime is a Linux of its own. Raises as
    `making_fields` does."""
    fields: dict[str, Any] = making_fields(spec)
    uid = fields["host_uid"]
    top = uid ^ TOP_ID_BIT if uid and shares_linux else 0
    assert not (uid and shares_linux) or top, "2**31 is no uid of a sandbox"
    inside = INSIDE_ID if uid and shares_linux else uid
    del fields["filter"]
    return {
        **fields,
        "runtime": list(runtime),
        "environment": {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        "python": sys.executable,
        "owner": uid,
        "top": top,
        "set_later": [limit for limit in fields["limits"] if limit[0] in SET_LATER]
        if shares_linux
        else [],
        "config": _config(fields, uid, top, inside, shares_linux=shares_linux),
    }


def _config(
    fields: dict[str, Any], uid: int, top: int, inside: int, *, shares_linux: bool
) -> dict[str, Any]:
    ids = [(0, top), (inside, uid)] if uid else [(0, 0)]
    mapped = [{"containerID": i, "hostID": host, "size": 1} for i, host in ids]
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc",
         "options": ["nosuid", "noexec", "nodev", "subset=pid"]},
    ]  # fmt: skip
    if shares_linux:
        mounts.append({"destination": "/dev", "type": "bind", "source": f"{_ROOT}/dev",
                       "options": ["rbind", "ro", "nosuid", "nodev", "noexec"]})  # fmt: skip
    else:  # a runtime with a Linux of its own would put its own, unbounded, over an empty /tmp
        for name in ("tmp", "work") if fields["workspace"] else ("tmp",):
            mounts.append({"destination": f"/{name}", "type": "bind", "source": f"{_ROOT}/{name}",
                           "options": ["rbind", "rw", "nosuid", "nodev"]})  # fmt: skip
    kinds = ["pid", "mount", "ipc", "uts"] + (["user", "cgroup"] if shares_linux else [])
    return {
        "ociVersion": "1.0.2",
        "hostname": "agent",
        "root": {"path": _ROOT, "readonly": shares_linux},
        "process": {
            "terminal": False,
            "user": {"uid": inside, "gid": inside, "umask": 0o077},
            "args": [],
            "cwd": "/tmp",  # noqa: S108
            "noNewPrivileges": True,
            "oomScoreAdj": 800,
            "capabilities": {
                kind: []
                for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
            },
            "rlimits": [
                {"type": _RLIMITS[which], "soft": soft, "hard": hard}
                for which, soft, hard in [*fields["limits"], (_RLIMIT_CORE, 1, 1)]
                if not (shares_linux and which in SET_LATER)
            ],
        },
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            **({"uidMappings": mapped, "gidMappings": mapped} if shares_linux else {}),
            "maskedPaths": [f"/proc/{name}" for name in _MASKED],
            "readonlyPaths": ["/proc/self/sys"],
            "seccomp": seccomp(),
        },
    }


def seccomp() -> dict[str, Any]:
    """The allow-list of syscalls.py, for libseccomp. What is not listed gets EPERM, what is newer
    than the list ENOSYS (runc adds that), the x32 table kills."""
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [
            {"names": sorted(ALLOWED), "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            *_examined(),
        ],
    }


def _examined() -> list[dict[str, Any]]:
    """Each entry is one way to be allowed."""
    families = [_equal(0, 1)]
    internet = [
        [_equal(0, family), _equal(1, kind, 0xF), _equal(2, protocol)]
        for family in (2, 10)
        for kind in (1, 2)
        for protocol in (0, 6, 17)
    ]
    others = [which for which in range(_RLIMIT_COUNT) if which != _RLIMIT_CORE]
    ways = {
        "clone": [[_equal(0, 0, CLONE_NEW_ANY)]],
        "ioctl": [[_equal(1, number)] for number in _IOCTLS],
        "personality": [[_equal(0, 0)], [_equal(0, _LOW)]],
        "prlimit64": [
            *([_equal(0, 0), _equal(1, which)] for which in others),
            [_equal(0, 0), {"index": 2, "value": 0, "op": "SCMP_CMP_EQ"}],
        ],
        "setrlimit": [[_equal(0, which)] for which in others],
        "socketpair": [families],
        "socket": [families, *internet],
    }
    assert {*ways, "clone3"} == set(EXAMINED), "what is examined there is examined here"
    return [
        {"names": [name], "action": "SCMP_ACT_ALLOW", "args": args}
        for name, each in ways.items()
        for args in each
    ]


def _equal(index: int, value: int, mask: int = _LOW) -> dict[str, Any]:
    """Of the low 32 bits, as Linux reads them."""
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
