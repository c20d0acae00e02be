"""The attacks on Linux itself, by its system calls, and on the network."""

from __future__ import annotations

import socket
from typing import Any

from ring0.tools.sandbox.selftest.attack import Attack, Proof

_ROOT = "only root can do that outside"
_SWITCHED_OFF = "this machine has it switched off for its users"
_NOT_BUILT = "this kernel was built without it"


def _calls(name: str, tries: str, needs: str = "") -> Attack:
    return Attack(
        name=name.replace("_", "-"), family="syscalls", tries=tries, program="call", given=name,
        needs=needs, on_linux=True,
    )  # fmt: skip


SYSCALLS = (
    _calls("io_uring_setup", "a ring of calls that no filter sees", _SWITCHED_OFF),
    _calls("io_uring_register", "io_uring by another of its calls", _SWITCHED_OFF),
    _calls("bpf", "a program in the machine's kernel", _SWITCHED_OFF),
    _calls("userfaultfd", "stop the kernel in the middle of a copy", _SWITCHED_OFF),
    _calls("perf_event_open", "counters: a long history of bugs", _SWITCHED_OFF),
    _calls("ptrace_seize", "change a child's calls after the filter saw them", _SWITCHED_OFF),
    _calls("ptrace_traceme", "be held by its parent"),
    _calls("process_vm_readv", "read another process's memory", _SWITCHED_OFF),
    _calls("process_vm_writev", "write another process's memory"),
    _calls("pidfd_getfd", "take another process's open file", _SWITCHED_OFF),
    _calls("kcmp", "compare kernel objects of processes", _NOT_BUILT),
    _calls("kexec_load", "load another kernel", _ROOT),
    _calls("init_module", "load a module from memory", _ROOT),
    _calls("finit_module", "load a module from a file", _ROOT),
    _calls("delete_module", "unload a module", _ROOT),
    _calls("reboot", "restart the machine (with wrong magic numbers)", _ROOT),
    _calls("swapon", "swap to a file of its choice", _ROOT),
    _calls("settimeofday", "set the machine's clock (to nothing)", _ROOT),
    _calls("syslog", "read the kernel's log", _SWITCHED_OFF),
    _calls("ioperm", "input and output ports", _ROOT),
    _calls("iopl", "all ports", _ROOT),
    _calls("quotactl", "disk quotas", _NOT_BUILT),
    _calls("name_to_handle_at", "a file's number on its disk"),
    _calls("open_by_handle_at", "any file of the disk, by its number", _ROOT),
    _calls("fanotify_init", "watch all files", _SWITCHED_OFF),
    _calls("modify_ldt", "segments: old code, many bugs", _NOT_BUILT),
    _calls("personality", "switch randomised addresses off"),
    _calls("vmsplice", "its own pages into a pipe"),
    _calls("move_pages", "move memory between nodes", _NOT_BUILT),
    _calls("mbind", "memory policy", _NOT_BUILT),
    _calls("add_key", "a key in the machine's kernel", _NOT_BUILT),
    _calls("request_key", "a helper program of the machine's, by a missing key", _NOT_BUILT),
    _calls("keyctl", "the kernel's keyrings", _NOT_BUILT),
    _calls("shmget", "System V shared memory"),
    _calls("msgget", "System V messages"),
    _calls("semget", "System V semaphores"),
    _calls("mq_open", "POSIX messages", _NOT_BUILT),
    _calls("x32", "the second table of calls of x86_64", _NOT_BUILT),
    _calls("seccomp_allow", "a filter of its own that allows what ours refuses", _SWITCHED_OFF),
    _calls("seccomp_notify", "one that asks a listener of its own instead", _SWITCHED_OFF),
    _calls("tiocsti", "type on the kernel's terminal"),
    _calls("tiocsti_high_bits", "the same, with bits that a filter may compare and Linux drops"),
    _calls("tioclinux_high_bits", "paste on a console, with such bits"),
    _calls("line_discipline", "load a line discipline"),
    _calls("prlimit_of_parent", "its parent's limits"),
    _calls("sched_fifo", "run before everybody else", _ROOT),
)


def _network(name: str, tries: str, program: str, given: Any = None, **more: Any) -> Attack:
    return Attack(name=name, family="network", tries=tries, program=program, given=given, **more)


def _socket(name: str, tries: str, *kind: int, needs: str = "") -> Attack:
    return _network(name, tries, "family", kind, needs=needs, on_linux=True)


_STREAM, _DGRAM, _RAW, _PACKETS = (
    socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET,
)  # fmt: skip

NETWORK = (
    _network("loopback", "a service on the host's 127.0.0.1", "tcp", "tcp", proof=Proof.CANARY),
    _network("loopback-0", "the same by 0.0.0.0", "tcp", "tcp_zero", proof=Proof.CANARY),
    _network("loopback-ipv6", "the same by ::1", "tcp", "tcp6", proof=Proof.CANARY,
             needs="no IPv6 here"),
    _network("lan", "the host by its address in its network", "tcp", "tcp_lan",
             proof=Proof.CANARY, needs="no network here"),
    _network("dns", "a name server, by a datagram", "udp", "udp", proof=Proof.CANARY),
    _network("dns-lan", "a name server in the host's network", "udp", "udp_lan",
             proof=Proof.CANARY, needs="no network here"),
    _network("abstract-socket", "a Unix socket without a file", "abstract", proof=Proof.CANARY),
    _network("door-of-another", "the door of another run, by its port", "tcp", "door",
             proof=Proof.CANARY),
    _network("proxy-of-another", "the proxy of another sandbox, by its port", "tcp", "proxy",
             proof=Proof.CANARY),
    _network("interfaces", "a network card, a tunnel, a bridge", "interfaces",
             needs="no network here"),
    _network("inbound", "be reached from outside", "inbound"),
    _socket("vsock", "the hypervisor, past every namespace", 40, _STREAM, 0, needs=_NOT_BUILT),
    _socket("netlink", "the machine's routes and audit", 16, _RAW, 0),
    _socket("packet", "raw frames", 17, _DGRAM, 0, needs=_ROOT),
    _socket("alg", "the kernel's own cryptography", 38, _PACKETS, 0, needs=_NOT_BUILT),
    _socket("raw", "packets of its own making", 2, _RAW, 1, needs=_ROOT),
    _socket("raw-ipv6", "the same by IPv6", 10, _RAW, 58, needs=_ROOT),
    _socket("mptcp", "a protocol that loads a module", 2, _STREAM, 262, needs=_NOT_BUILT),
    _socket("sctp", "another one", 2, _STREAM, 132, needs=_NOT_BUILT),
    _socket("xdp", "frames past the kernel's network", 44, _RAW, 0, needs=_ROOT),
    _socket("ping", "echo requests without being root", 2, _DGRAM, 1, needs=_SWITCHED_OFF),
)  # fmt: skip

KERNEL = (*SYSCALLS, *NETWORK)
