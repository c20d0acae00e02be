"""The attacks on files, mounts and namespaces; and all tables put together."""

from __future__ import annotations

from typing import Any

from ring0.tools.sandbox.selftest.attack import Attack, Proof
from ring0.tools.sandbox.selftest.table_kernel import KERNEL
from ring0.tools.sandbox.selftest.table_life import LIFE
from ring0.tools.sandbox.selftest.table_proxy import PROXY

ROOT_ONLY = "only root can do that outside"
NO_NAMESPACES = "this machine gives its users no namespaces"
_IN_ROOT = ["boot", "mnt", "media", "srv", "lost+found"]
"""Of the host's; others may be above what is mounted, as /home is above a Python in a home."""


def _environment(name: str, tries: str, program: str, given: Any = None, **more: Any) -> Attack:
    fields = {"proof": Proof.CANARY, "both": True, **more}
    return Attack(
        name=name, family="environment", tries=tries, program=program, given=given, **fields
    )


ENVIRONMENT = (
    _environment("environment", "read a secret of the kernel's environment", "inherited"),
    _environment(
        "proc-environ", "read other processes' environments in /proc", "of_processes", "environ"
    ),
    _environment(
        "proc-cmdline", "read other processes' arguments in /proc", "of_processes", "cmdline"
    ),
    _environment(
        "init-environ", "read /proc/1/environ (bwrap --clearenv leaks it)", "of_init", "environ",
        proof=Proof.SAID,
    ),
    _environment(
        "init-memory", "read how process 1's memory lies (/proc/1/maps)", "of_init", "maps",
        proof=Proof.SAID,
    ),
    _environment("own-memory", "find a secret of the kernel's in its own memory", "in_memory",
                 proof=Proof.SAID),
)  # fmt: skip


def _files(name: str, tries: str, program: str, given: Any = None, **more: Any) -> Attack:
    return Attack(name=name, family="files", tries=tries, program=program, given=given, **more)


def _reads(name: str, tries: str, key: str) -> Attack:
    return _files(name, tries, "read", key, proof=Proof.CANARY)


FILES = (
    _reads("home-key", "read a private key in a home folder", "home_key"),
    _reads("project-dotenv", "read the project's .env", "dotenv"),
    _reads("project-git", "read the project's .git/config", "git_config"),
    _reads("data-folder", "read the kernel's own journal", "journal"),
    _reads("host-tmp", "read a file in the host's temporary folder", "secret"),
    _files("host-root", "see the host's root folder", "names",
           {"folder": "/", "names": _IN_ROOT},
           needs="an unusual host"),
    _files("host-etc", "see how the host is set up and who has accounts", "names",
           {"folder": "/etc", "names": ["shadow", "sudoers", "fstab", "ssh", "cron.d"]}),
    _files("docker-sock", "ask a container daemon for root, by its socket", "connect",
           "docker_sock", proof=Proof.CANARY),
    _files("gate-socket", "speak through another run's door socket", "connect", "door_sock",
           proof=Proof.CANARY),
    _files("proc-root", "reach files through /proc/<pid>/root and cwd", "through_proc",
           proof=Proof.CANARY),
    _files("proc-fd", "reach files that others have open, by /proc/<pid>/fd", "open_files",
           proof=Proof.CANARY),
    _files("descriptors", "find a descriptor that was left open for it", "descriptors",
           both=True),
    _files("write-host", "write to a host file that everybody may write to", "write",
           proof=Proof.CHANGED),
    _files("write-system", "make a file anywhere but in /tmp", "create"),
    _files("devices", "open a device (mem, kmsg, disks, tun, fuse, kvm, terminals)", "devices",
           on_linux=True),
    _files("mknod-mem", "make /dev/mem by its number", "make_device", needs=ROOT_ONLY,
           on_linux=True),
    _files("mknod-disk", "make the machine's disk by its number", "disk", needs=ROOT_ONLY,
           on_linux=True),
    _files("kallsyms", "learn the addresses of the machine's kernel", "addresses",
           needs="hidden from this user", on_linux=True),
    _files("boot-line", "read how the machine was started (/proc/cmdline)", "content",
           ["/proc/cmdline"], on_linux=True),
    _files("proc-sys", "any switch of the machine's (/proc/sys)", "switches", needs=ROOT_ONLY,
           on_linux=True),
    _files("sysfs", "see the machine's devices", "names",
           {"folder": "/sys", "names": ["kernel", "devices", "fs", "module"]},
           on_linux=True),
    _files("core-pattern", "name a program that the machine runs as root", "open_for_writing",
           ["/proc/sys/kernel/core_pattern"], needs=ROOT_ONLY, on_linux=True),
    _files("sysrq", "restart the machine (/proc/sysrq-trigger)", "open_for_writing",
           ["/proc/sysrq-trigger"], needs=ROOT_ONLY, on_linux=True),
    _files("modprobe-path", "name a program that loads modules, as root", "open_for_writing",
           ["/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug"], needs=ROOT_ONLY,
           on_linux=True),
    _files("release-agent", "name a program that runs as root when a cgroup empties",
           "release_agent", needs="no cgroup v1 that this user may write to"),
)  # fmt: skip


def _mounts(name: str, tries: str, program: str, given: Any = None, **more: Any) -> Attack:
    return Attack(
        name=name, family="mounts", tries=tries, program=program, given=given, namespaced=True,
        needs=more.get("needs", NO_NAMESPACES), on_linux=True,
    )  # fmt: skip


MOUNTS = (
    _mounts("remount", "make a read-only mount writable", "remount"),
    _mounts("mount-tmpfs", "mount a file system of its own", "new", "tmpfs"),
    _mounts("mount-proc", "mount /proc anew, without what hides in it", "new", "proc",
            needs=ROOT_ONLY),
    _mounts("mount-sysfs", "mount /sys", "new", "sysfs", needs=NO_NAMESPACES),
    _mounts("bind", "show a folder elsewhere, with other rights", "bind"),
    _mounts("umount", "take away the mount that hides something", "detach"),
    _mounts("pivot-root", "take another root", "pivot"),
    _mounts("chroot", "leave by a chroot", "chroot"),
    _mounts("fsopen", "mount by the new calls (fsopen, fsconfig, fsmount)",
            "file_system_context"),
    _mounts("open-tree", "copy the tree of mounts (open_tree)", "copy_of_tree"),
    _mounts("move-mount", "move a mount (move_mount)", "move"),
    _mounts("mount-setattr", "take read-only off (mount_setattr)", "attributes"),
)  # fmt: skip


def _namespaces(name: str, tries: str, program: str, given: Any = None, **more: Any) -> Attack:
    fields = {"needs": NO_NAMESPACES, "on_linux": True, **more}
    return Attack(
        name=name, family="namespaces", tries=tries, program=program, given=given, **fields
    )


NAMESPACES = (
    _namespaces("unshare-user", "a new user namespace, with all capabilities", "unshare",
                0x1000_0000),
    _namespaces("unshare-mount", "a new mount namespace", "unshare", 0x2_0000, namespaced=True),
    _namespaces("unshare-net", "a new network namespace", "unshare", 0x4000_0000,
                namespaced=True),
    _namespaces("clone-user", "a child in a new user namespace (clone)", "clone"),
    _namespaces("clone3-user", "the same with flags in memory (clone3)", "clone3"),
    _namespaces("setns", "another process's namespace (setns on /proc)", "join",
                namespaced=True),
    _namespaces("setns-pidfd", "init's namespaces in one call (setns on a pidfd)",
                "join_by_pidfd", namespaced=True),
    _namespaces("sethostname", "rename its namespace's machine", "rename_machine",
                namespaced=True),
    _namespaces("int-0x80", "system calls of i386, by int 0x80", "interrupt_32",
                needs="this kernel runs no i386 programs"),
)  # fmt: skip

ATTACKS: tuple[Attack, ...] = (
    *ENVIRONMENT,
    *FILES,
    *MOUNTS,
    *NAMESPACES,
    *KERNEL,
    *LIFE,
    *PROXY,
)
