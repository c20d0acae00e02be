"""The tier `microvm`: whether this machine really boots one. ring0 runs nothing in it yet.

That /dev/kvm can be opened proves nothing: it can be there and hang. So a guest is booted, with a
first program of ours that says one line, and only that line within the time limit counts. Emulation
(QEMU's TCG) would boot too, but its makers call it no security boundary: it is not tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import platform
import shutil
import signal
import struct
import tempfile
from typing import Final

import msgspec

from ring0 import limits
from ring0.runtime import Runtime

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_QEMU: Final = "qemu-system-x86_64"
_GUESTS: Final = ("/boot/vmlinuz-*cloud*", "/boot/vmlinuz-*")
MARK: Final = b"ring0-was-booted\n"
_REBOOT: Final = (0xFEE1DEAD, 0x28121969, 0x0123_4567)  # magic, magic, RB_AUTOBOOT


class Boot(msgspec.Struct, frozen=True):
    """What came of trying."""

    booted: bool
    why: str
    """What was missing, or what did not happen; where it booted, with what."""
    todo: str = ""
    took_ms: int = 0


async def boot(runtime: Runtime, guest: str = "", vmm: str = "") -> Boot:
    """Boot one, see it speak, end it. `guest`: a Linux image (bzImage); else one under /boot.
    Never raises for what the machine lacks."""
    vmm = vmm or shutil.which(_QEMU, path=_PATH) or ""
    guest = guest or next((p for pattern in _GUESTS for p in sorted(glob.glob(pattern))[::-1]), "")
    if platform.machine() != "x86_64":
        return Boot(False, f"There is no first program for {platform.machine()} yet.")
    if not vmm:
        return Boot(False, f"There is no {_QEMU} in {_PATH}.", "Install qemu-system-x86.")
    if not guest:
        return Boot(False, "There is no guest's Linux under /boot.", "Install a cloud kernel.")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Boot(False, "/dev/kvm is not there, or not for this user.", "Allow virtualisation.")
    began_us = runtime.monotonic_us()
    with tempfile.NamedTemporaryFile(prefix="ring0-initramfs-") as file:
        file.write(initramfs())
        file.flush()
        said = await _run(runtime, vmm, guest, file.name)
    took_ms = (runtime.monotonic_us() - began_us) // 1_000
    if MARK.strip() in said:
        return Boot(True, f"{vmm} with {guest}", took_ms=took_ms)
    last = ascii(said[-200:].decode("utf-8", "replace")) if said else "It said nothing."
    return Boot(
        False,
        f"A guest did not come up within {limits.MICROVM_BOOT_S_MAX} s. {last}",
        "Look whether /dev/kvm works here: a virtual machine often may not have its own.",
        took_ms,
    )


async def _run(runtime: Runtime, vmm: str, guest: str, initramfs_path: str) -> bytes:
    """What the guest's console said, up to its end or the time limit."""
    process = await asyncio.create_subprocess_exec(
        vmm, "-M", "microvm,accel=kvm", "-cpu", "host", "-m", "128",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-kernel", guest, "-initrd", initramfs_path,
        "-append", "console=ttyS0 quiet panic=-1 reboot=t", "-serial", "stdio",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, env={}, cwd="/", start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = bytearray()

    async def listen(console: asyncio.StreamReader) -> None:
        while piece := await console.read(limits.KIB):
            said.extend(piece[: limits.MICROVM_CONSOLE_SIZE_BYTES - len(said)])
            if MARK.strip() in said:
                return

    try:
        await runtime.wait_for(listen(process.stdout), limits.MICROVM_BOOT_S_MAX)
    except TimeoutError:
        pass  # It is said by what it did not say.
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whoever it started holds the console too
        await process.wait()
    return bytes(said)


def initramfs() -> bytes:
    """A cpio archive (newc) of /dev/console and /init."""
    entries = (
        (b"dev", 0o040755, b"", (0, 0)),
        (b"dev/console", 0o020600, b"", (5, 1)),
        (b"init", 0o100755, first_program(), (0, 0)),
        (b"TRAILER!!!", 0, b"", (0, 0)),
    )
    archive = b""
    for number, (name, mode, data, device) in enumerate(entries, 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % value for value in fields) + name + b"\0"
        archive += head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
    return archive


def first_program() -> bytes:
    """An ELF file for x86_64 that writes MARK to its output and restarts the machine."""
    base, head_size = 0x40_0000, 64 + 56
    code = b"\xb8\x01\x00\x00\x00"  # mov eax, 1: write
    code += b"\xbf\x01\x00\x00\x00"  # mov edi, 1
    code += b"\xbe%s"  # mov esi, the mark
    code += b"\xba" + struct.pack("<I", len(MARK))  # mov edx, its length
    code += b"\x0f\x05"  # syscall
    code += b"\xb8\xa9\x00\x00\x00"  # mov eax, 169: reboot
    code += b"".join(
        opcode + struct.pack("<I", value)
        for opcode, value in zip((b"\xbf", b"\xbe", b"\xba"), _REBOOT, strict=True)
    )  # mov edi, esi, edx
    code += b"\x0f\x05\xeb\xfe"  # syscall; jump to itself
    size = len(code) - 2 + 4
    code = code.replace(b"%s", struct.pack("<I", base + head_size + size))
    total = head_size + len(code) + len(MARK)
    elf = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    elf += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + head_size, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    elf += struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, total, total, 0x1000)
    return elf + code + MARK
