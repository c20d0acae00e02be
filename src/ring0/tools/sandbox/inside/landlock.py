"""Landlock: what files a process and all its children can open at all, whatever their uid allows.

Bare, so that a launcher can import it. What should be allowed is decided elsewhere; every right
that this Linux knows (ABI 1 to 7) and that is not granted here is refused, for good.
"""

import ctypes
import os

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR = 16, 32, 64, 128
MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK = 256, 512, 1024, 2048
MAKE_SYM, REFER, TRUNCATE, IOCTL_DEV = 4096, 8192, 16384, 32768
FS_BY_ABI = ((1, 0x1FFF), (2, REFER), (3, TRUNCATE), (5, IOCTL_DEV))
"""The rights on files, and the ABI that brought them."""

TCP_BIND, TCP_CONNECT = 1, 2  # ABI 4
SCOPE_ABSTRACT_UNIX, SCOPE_SIGNAL = 1, 2  # ABI 6

ABI_NETWORK, ABI_SCOPES = 4, 6

READ = EXECUTE | READ_FILE | READ_DIR
CHANGE = (WRITE_FILE | TRUNCATE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK
          | MAKE_FIFO | MAKE_SYM | REFER)  # fmt: skip
"""Everything but devices: those can't be made, and not be spoken to by ioctl."""
ON_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """What this Linux offers; 0 where Landlock is not built in or not switched on."""
    return max(0, _system_call(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION))


def restrict(reading: list[str], changing: list[str], using: list[str], *, network: bool) -> int:
    """Holds this process and all that it will start to: read and execute beneath `reading`, read,
    change and execute beneath `changing`, read and write the devices `using`. Signals and abstract
    sockets reach nobody outside; TCP only where `network`. A path that isn't there, or can't be
    reached, is left out.

    Returns the ABI that was used: 0 means that nothing was done. Raises OSError."""
    version = abi()
    if version == 0:
        return 0
    ruleset = create(version, network=network)
    try:
        allow(version, ruleset, reading, changing, using)
        if _libc.prctl(PR_SET_NO_NEW_PRIVS, *(ctypes.c_ulong(n) for n in (1, 0, 0, 0))):
            raise OSError(ctypes.get_errno(), "prctl")
        enforce(ruleset)
    finally:
        os.close(ruleset)
    return version


def create(version: int, *, network: bool) -> int:
    """An open ruleset that allows nothing yet. Who inherits it may add to it."""
    sockets = 0 if network or version < ABI_NETWORK else TCP_BIND | TCP_CONNECT
    scopes = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL if version >= ABI_SCOPES else 0
    attributes = (ctypes.c_uint64 * 3)(_known(version), sockets, scopes)
    size = 24 if version >= ABI_SCOPES else 16 if version >= ABI_NETWORK else 8
    return _checked(CREATE_RULESET, ctypes.byref(attributes), size, 0)


def allow(
    version: int, ruleset: int, reading: list[str], changing: list[str], using: list[str]
) -> None:
    for paths, rights in (
        (reading, READ),
        (changing, READ | CHANGE),
        (using, READ_FILE | WRITE_FILE),
    ):
        for path in paths:
            _allow(ruleset, path, rights & _known(version))


def enforce(ruleset: int) -> None:
    """On this process, which has no new privileges any more."""
    _checked(RESTRICT_SELF, ruleset, 0)


def _known(version: int) -> int:
    known = 0
    for since, rights in FS_BY_ABI:
        known |= rights if version >= since else 0
    return known


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return  # what its uid can't reach needs no rule
    try:
        if os.fstat(fd).st_mode & 0o170000 != 0o040000:  # not a folder
            rights &= ON_A_FILE
        # struct landlock_path_beneath_attr is packed: 64 bits, then 32.
        rule = rights.to_bytes(8, "little") + fd.to_bytes(4, "little")
        _checked(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.c_char_p(rule), 0)
    finally:
        os.close(fd)


def _checked(number: int, *arguments: object) -> int:
    result = _system_call(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: system call {number}")
    return result


def _system_call(number: int, *arguments: object) -> int:
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *longs)
    return result
