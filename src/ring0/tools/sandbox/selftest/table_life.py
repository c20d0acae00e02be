"""The attacks on other processes and sandboxes, for more power, and on the limits."""

from __future__ import annotations

from typing import Any

from ring0.tools.sandbox.selftest.attack import Attack, Gap, Proof, Way

_ROOT = "only root can do that outside"
_NO_NAMESPACES = "this machine gives its users no namespaces"


def _processes(name: str, tries: str, program: str, **more: Any) -> Attack:
    return Attack(name=name, family="processes", tries=tries, program=program, **more)


def _prey(name: str, tries: str, program: str, **more: Any) -> Attack:
    return _processes(name, tries, program, prey=True, **more)


PROCESSES = (
    _processes("see-processes", "see the host's processes", "visible"),
    _prey("kill", "kill a process of the host's by its number", "signals", proof=Proof.PREY),
    _prey("killpg", "kill its group", "group_signal", proof=Proof.PREY),
    _prey("pidfd", "kill it by a pidfd", "by_pidfd", proof=Proof.PREY),
    _prey("kill-init", "kill process 1, which watches over it", "init"),
    _prey("starve", "lower another process's limits", "limits_of"),
    _prey("affinity", "move a process of the host's to another core", "priority_of"),
    _prey("ptrace", "hold a process that is not its child", "seize"),
    _prey("oom-score", "let another process die first", "oom_score"),
    _processes("double-fork", "leave a daemon behind when it ends", "survivor",
               proof=Proof.SURVIVOR),
    _processes("survive-kill", "leave a daemon behind when it is killed", "survivor_of_kill",
               proof=Proof.SURVIVOR, wall_s=1.5),
)  # fmt: skip


def _privileges(name: str, tries: str, program: str, given: Any = None, **more: Any) -> Attack:
    return Attack(name=name, family="privileges", tries=tries, program=program, given=given, **more)


PRIVILEGES = (
    _privileges("setuid", "start a program that is set uid root", "program", "setuid",
                needs="no such program, or none that starts"),
    _privileges("file-capabilities", "start a program with file capabilities", "program",
                "capabilities", needs="no such program, or none that starts"),
    _privileges("become-root", "take uid 0 and its powers", "become_root", namespaced=True,
                needs=_NO_NAMESPACES),
    _privileges("capabilities", "have, inherit or hand on any capability", "capabilities",
                namespaced=True, needs=_NO_NAMESPACES),
    _privileges("new-privileges", "get more by starting a program (no_new_privs)",
                "new_privileges", needs="the kernel runs with no_new_privs itself"),
    _privileges("suid-mounts", "find a mount where set-uid bits count", "mounts_with_powers",
                needs="all mounts of this machine are nosuid", on_linux=True),
    _privileges("keep-capabilities", "keep capabilities through a change of uid",
                "keep_capabilities", namespaced=True, needs=_NO_NAMESPACES),
)  # fmt: skip


def _passing(name: str, tries: str, program: str, way: Way, **more: Any) -> Attack:
    return Attack(name=name, family="passing", tries=tries, program=program, way=way, **more)


PASSING = (
    _passing("scm-rights", "hand an open file to another live sandbox", "descriptor",
             Way.TOGETHER, workspace=True),
    _passing("shared-file", "leave a file where another live sandbox looks", "file",
             Way.TOGETHER, workspace=True),
    _passing("shared-segment", "share System V memory with another live sandbox", "segment",
             Way.TOGETHER),
    _passing("leftover-file", "find a file of the sandbox before it", "file", Way.AFTER,
             workspace=True),
    _passing("leftover-segment", "find memory of the sandbox before it", "segment", Way.AFTER),
    _passing("same-uid", "have the uid of the sandbox before it", "nothing", Way.AFTER,
             proof=Proof.UID, gap=Gap.UID),
    _passing("planted-link", "let the kernel read a host file, by a link in its folder",
             "plant_link", Way.ONCE, proof=Proof.TAKEN, workspace=True),
    _passing("planted-folder", "the same by a link in the place of a folder", "plant_folder",
             Way.ONCE, proof=Proof.TAKEN, workspace=True),
    _passing("planted-swap", "the same by a link that comes and goes while the kernel reads",
             "plant_swap", Way.ONCE, proof=Proof.TAKEN, workspace=True),
    _passing("leftover-key", "find a key of the sandbox before it", "key", Way.AFTER,
             needs="this user has no keyring here"),
)  # fmt: skip


def _resources(name: str, tries: str, program: str, given: Any = None, **more: Any) -> Attack:
    return Attack(
        name=name, family="resources", tries=tries, program=program, given=given, small=True,
        **more,
    )  # fmt: skip


# The limits are attack.SMALL; each takes three to four times as much.
RESOURCES = (
    _resources("fork-bomb", "48 processes, where 16 are allowed", "processes", 48),
    _resources("heap", "256 MiB of memory, where 64 are allowed", "heap", 256,
               proof=Proof.MEMORY),
    _resources("shared-memory", "256 MiB shared, where 64 are allowed", "shared", 256,
               proof=Proof.MEMORY, gap=Gap.CGROUP),
    _resources("many-heaps", "256 MiB at once in 8 processes, where 64 are allowed", "many", 256,
               proof=Proof.MEMORY, gap=Gap.CGROUP),
    _resources("memfd", "256 MiB in a file of no file system", "memfd", 256,
               proof=Proof.MEMORY),
    _resources("tmp", "24 MiB of files, where 8 are allowed", "files", 24),
    _resources("shm", "the same in /dev/shm", "files", 24),
    _resources("work", "the same in /work", "files", 24, workspace=True),
    _resources("inodes", "10,000 empty files", "inodes", 10_000),
    _resources("open-files", "192 descriptors, where 64 are allowed", "descriptors", 192),
    _resources("cpu", "2.5 s of CPU time, deaf to signals, where 1 is allowed", "cpu", 2.5),
    _resources("cpu-of-many", "2.5 s in five processes, where 1 is allowed", "cpu_of_many", 2.5,
               gap=Gap.CGROUP),
    _resources("output", "8 MiB of output, where 1 is allowed", "flood", 8, proof=Proof.OUTPUT),
    _resources("wall", "stay for 2.5 s, where 1 is allowed", "stay", 2.5, wall_s=1.0),
    _resources("core-dump", "a core dump, or the program that takes them", "core", on_linux=True),
    _resources("locked-memory", "memory that the machine can't take back", "locked",
               needs="this user may not lock 1 MiB"),
    _resources("raise-limits", "raise its own limits", "raise_limit"),
)  # fmt: skip

LIFE = (*PROCESSES, *PRIVILEGES, *PASSING, *RESOURCES)
