"""Which system calls a sandboxed program may make, with their numbers. Data only.

Numbers are those of Linux's own headers (`asm/unistd_64.h`, `asm-generic/unistd.h`); `None` where
an architecture does not have the call. How they become a filter is `seccomp.py`.
"""

from __future__ import annotations

from typing import Final

KNOWN_MAX: Final = 469
"""The highest number known when the table was made (Linux 6.17, `file_setattr`). What is newer
gets ENOSYS, so that a C library falls back to what it used before."""

# fmt: off
ALLOWED: Final[dict[str, tuple[int | None, int | None]]] = {  # name: (x86_64, aarch64)
    # Files and folders.
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66),
    "pread64": (17, 67), "pwrite64": (18, 68), "preadv": (295, 69), "pwritev": (296, 70),
    "preadv2": (327, 286), "pwritev2": (328, 287), "open": (2, None), "openat": (257, 56),
    "openat2": (437, 437), "creat": (85, None), "close": (3, 57), "close_range": (436, 436),
    "stat": (4, None), "fstat": (5, 80), "lstat": (6, None), "newfstatat": (262, 79),
    "statx": (332, 291), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "lseek": (8, 62), "readlink": (89, None), "readlinkat": (267, 78), "getdents": (78, None),
    "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, None),
    "mkdirat": (258, 34), "rmdir": (84, None), "link": (86, None), "linkat": (265, 37),
    "unlink": (87, None), "unlinkat": (263, 35), "symlink": (88, None), "symlinkat": (266, 36),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "umask": (95, 166), "truncate": (76, 45), "ftruncate": (77, 46), "fallocate": (285, 47),
    "mknod": (133, None), "mknodat": (259, 33), "utime": (132, None), "utimes": (235, None),
    "utimensat": (280, 88), "futimesat": (261, None), "statfs": (137, 43), "fstatfs": (138, 44),
    "getxattr": (191, 8), "lgetxattr": (192, 9), "fgetxattr": (193, 10), "listxattr": (194, 11),
    "llistxattr": (195, 12), "flistxattr": (196, 13), "flock": (73, 32), "fsync": (74, 82),
    "fdatasync": (75, 83), "sync_file_range": (277, 84), "fadvise64": (221, 223),
    "readahead": (187, 213), "cachestat": (451, 451), "copy_file_range": (326, 285),
    "sendfile": (40, 71), "splice": (275, 76), "inotify_init": (253, None),
    "inotify_init1": (294, 26), "inotify_add_watch": (254, 27), "inotify_rm_watch": (255, 28),
    # Descriptors, pipes, polling.
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None),
    "pipe2": (293, 59), "fcntl": (72, 25), "select": (23, None), "pselect6": (270, 72),
    "poll": (7, None), "ppoll": (271, 73), "epoll_create": (213, None),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None),
    "epoll_pwait": (281, 22), "epoll_pwait2": (441, 441), "eventfd": (284, None),
    "eventfd2": (290, 19), "signalfd": (282, None), "signalfd4": (289, 74),
    "timerfd_create": (283, 85), "timerfd_settime": (286, 86), "timerfd_gettime": (287, 87),
    # Sockets (families are checked by `socket` and `socketpair` themselves).
    "bind": (49, 200), "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
    "connect": (42, 203), "getsockname": (51, 204), "getpeername": (52, 205),
    "sendto": (44, 206), "recvfrom": (45, 207), "sendmsg": (46, 211), "recvmsg": (47, 212),
    "sendmmsg": (307, 269), "recvmmsg": (299, 243), "shutdown": (48, 210),
    "setsockopt": (54, 208), "getsockopt": (55, 209),
    # Memory.
    "brk": (12, 214), "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216),
    "mprotect": (10, 226), "madvise": (28, 233), "msync": (26, 227), "mincore": (27, 232),
    "mlock": (149, 228), "mlock2": (325, 284), "munlock": (150, 229), "mlockall": (151, 230),
    "munlockall": (152, 231), "membarrier": (324, 283), "pkey_alloc": (330, 289),
    "pkey_free": (331, 290), "pkey_mprotect": (329, 288), "mseal": (462, 462),
    "map_shadow_stack": (453, 453),
    # Processes and threads.
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "exit": (60, 93), "exit_group": (231, 94), "wait4": (61, 260), "waitid": (247, 95),
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getpgid": (121, 155),
    "getpgrp": (111, None), "setpgid": (109, 154), "getsid": (124, 156), "setsid": (112, 157),
    "set_tid_address": (218, 96), "set_robust_list": (273, 99), "get_robust_list": (274, 100),
    "futex": (202, 98), "futex_waitv": (449, 449), "futex_wake": (454, 454),
    "futex_wait": (455, 455), "futex_requeue": (456, 456), "rseq": (334, 293),
    "arch_prctl": (158, None), "prctl": (157, 167), "capget": (125, 90), "seccomp": (317, 277),
    "landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "kill": (62, 129), "tkill": (200, 130),
    "tgkill": (234, 131), "pause": (34, None), "restart_syscall": (219, 128),
    # Who am I (with one mapped id and no capability, setting can only keep what is).
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158),
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setresuid": (117, 147), "setresgid": (119, 149), "setfsuid": (122, 151),
    "setfsgid": (123, 152), "capset": (126, 91),
    # Signals.
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136), "rt_sigsuspend": (130, 133), "rt_sigtimedwait": (128, 137),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "sigaltstack": (131, 132),
    # Time.
    "time": (201, None), "gettimeofday": (96, 169), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "alarm": (37, None), "getitimer": (36, 102), "setitimer": (38, 103),
    "timer_create": (222, 107), "timer_settime": (223, 110), "timer_gettime": (224, 108),
    "timer_getoverrun": (225, 109), "timer_delete": (226, 111), "times": (100, 153),
    # Scheduling, limits, information.
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "sched_setaffinity": (203, 122),
    "sched_getparam": (143, 121), "sched_setparam": (142, 118), "sched_getscheduler": (145, 120),
    "sched_setscheduler": (144, 119), "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126), "sched_rr_get_interval": (148, 127),
    "sched_getattr": (315, 275), "sched_setattr": (314, 274), "getpriority": (140, 141),
    "setpriority": (141, 140), "ioprio_get": (252, 31), "ioprio_set": (251, 30),
    "getrlimit": (97, 163), "getrusage": (98, 165),
    "getcpu": (309, 168), "sysinfo": (99, 179), "uname": (63, 160), "getrandom": (318, 278),
}

EXAMINED: Final[dict[str, tuple[int | None, int | None]]] = {
    # Allowed for some arguments only; seccomp.py says which. (`clone3` for none: a filter cannot
    # read the structure that holds its flags, so it gets ENOSYS and the C library uses `clone`.)
    "clone": (56, 220), "clone3": (435, 435), "socket": (41, 198), "socketpair": (53, 199),
    "ioctl": (16, 29), "personality": (135, 92), "prlimit64": (302, 261),
    "setrlimit": (160, 164),
}
# fmt: on

NOT_WITHOUT_NAMESPACES: Final = frozenset(
    {"socket", "bind", "listen", "accept", "accept4", "connect"}
    | {"inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch"}
)
"""What would reach, or watch, the machine's own sockets and files: Landlock knows nothing of it."""

NOT_BY_PATH: Final = frozenset(
    {"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"}
    | {"utime", "utimes", "utimensat", "futimesat"}
    | {"sched_setaffinity", "sched_setparam", "sched_setscheduler", "sched_setattr"}
    | {"setpriority", "ioprio_set"}
)
"""What changes another's file or process when the uid is the same, and Landlock lets through."""

NO_ATTRIBUTES: Final = frozenset(
    {"getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr"}
)
"""Goes with it, but gets ENOTSUP, as on a file system that has none: `ls` asks."""
