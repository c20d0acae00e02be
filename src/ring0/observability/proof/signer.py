"""The signer: a small process with a key of its own that signs checkpoints, and nothing else.

It keeps the tree that it signed last, takes the leaf hashes that came since, works out the new root
itself, and signs only that: a log that was cut short or rewritten gets no signature. Its folder and
its key are a uid's of its own where this process may change to one (started by root). Its
conversation: one JSON object a line each way, on the socket that it is started with.

    python -P -m ring0.observability.proof.signer FOLDER FD
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ring0 import limits
from ring0.observability.proof.checkpoints import Checkpoint
from ring0.observability.proof.notes import is_name, public_of, sign
from ring0.runtime import Runtime
from ring0.store import merkle
from ring0.types import Frozen

if TYPE_CHECKING:  # Loaded by the process itself, and by nobody who only speaks with it.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

STATE: Final = "state"
UID: Final = 61_733
"""Of a signer that root starts: no account has it, and systemd gives it to nobody for long."""
_NO_DUMP: Final = 4
_NO_NEW_PRIVILEGES: Final = 38


class State(Frozen, frozen=True, kw_only=True):
    """What the signer knows, as it lies in its folder. The keys are in it: one file, one moment."""

    origin: str
    """The name of the log, and of the key."""
    seed: bytes
    size: int = 0
    peaks: tuple[bytes, ...] = ()
    seed_before: bytes = b""
    """The key that was rotated out: it signs too, until the journal says so under both."""

    def tree(self) -> merkle.Tree:
        return merkle.Tree(self.size, self.peaks)


class Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the kernel asks for."""

    say: str
    """`state`, `leaves` (more of them come), `extend`, `rotate`, `settle`."""
    leaves: bytes = b""
    size: int = 0
    root: bytes = b""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What it gets. `refused`: why there is no signature."""

    origin: str = ""
    size: int = 0
    root: bytes = b""
    key: str = ""
    key_before: str = ""
    uid: int = 0
    note: str = ""
    refused: str = ""
    changed: bool = False
    """It refuses because the log does not go on from what it signed, and for nothing else."""


_read_state: Final = msgspec.json.Decoder(State).decode
_read_ask: Final = msgspec.json.Decoder(Ask).decode


class Signer:
    """The signer's mind: no socket, no process."""

    def __init__(self, folder: int) -> None:
        """`folder`: an open directory. Raises OSError, ValueError."""
        self._folder = folder
        self._state = self._load()
        self._growing: merkle.Tree | None = None
        """Where leaves came in and are not signed yet."""

    def answer(self, ask: Ask) -> Answer:
        match ask.say:
            case "state":
                self._growing = None  # Of a question that was given up.
                return self._told()
            case "leaves":
                return self._grow(ask.leaves) or self._told()
            case "extend":
                return self._extend(ask)
            case "rotate":
                return self._rotate()
            case "settle":
                self._keep(msgspec.structs.replace(self._state, seed_before=b""))
                return self._told()
        return Answer(refused="it does not know what that means")

    # --- the log --------------------------------------------------------------------------------

    def _extend(self, ask: Ask) -> Answer:
        """Signs the root that it finds itself, if it is the one that the kernel has."""
        refused = self._grow(ask.leaves)
        grown, self._growing = self._growing, None
        if refused is not None or grown is None:
            return refused or self._told()
        if (grown.size, grown.root()) != (ask.size, ask.root):
            return Answer(
                refused=f"the journal of {ask.size} events does not begin with the"
                f" {self._state.size} that were signed",
                changed=True,
            )
        state = msgspec.structs.replace(self._state, size=grown.size, peaks=tuple(grown.peaks))
        self._keep(state)  # On disk before it is said: two roots of one size are never signed.
        text = Checkpoint(origin=state.origin, size=grown.size, root=grown.root()).text()
        signers = [
            (state.origin, _private(seed)) for seed in (state.seed, state.seed_before) if seed
        ]
        return msgspec.structs.replace(self._told(), note=sign(text, signers))

    def _grow(self, leaves: bytes) -> Answer | None:
        if len(leaves) % 32:
            self._growing = None
            return Answer(refused="a leaf hash has 32 bytes")
        if self._growing is None:
            self._growing = self._state.tree()
        for at in range(0, len(leaves), 32):
            self._growing.append(leaves[at : at + 32])
        return None

    def _rotate(self) -> Answer:
        """A new key. The old one signs beside it until `settle`."""
        if self._state.seed_before:
            return Answer(refused="the last change of keys is not on record yet")
        fresh = fresh_seed()
        self._keep(msgspec.structs.replace(self._state, seed=fresh, seed_before=self._state.seed))
        return self._told()

    def _told(self) -> Answer:
        state, tree = self._state, self._state.tree()
        before = state.seed_before
        return Answer(
            origin=state.origin,
            size=tree.size,
            root=tree.root(),
            key=str(public_of(state.origin, _private(state.seed))),
            key_before=str(public_of(state.origin, _private(before))) if before else "",
            uid=os.geteuid(),
        )

    # --- the disk -------------------------------------------------------------------------------

    def _load(self) -> State:
        try:
            file = os.open(STATE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        except FileNotFoundError:
            origin = f"ring0.local/{Runtime().random_bytes(8).hex()}"
            self._keep(State(origin=origin, seed=fresh_seed()))
            return self._state
        with os.fdopen(file, "rb") as opened:
            state = _read_state(opened.read(limits.SIGNER_STATE_SIZE_BYTES_MAX))
        state.tree()  # Peaks that make no tree are no state.
        if not is_name(state.origin):
            raise ValueError("the log has no name")
        return state

    def _keep(self, state: State) -> None:
        keep(self._folder, state)
        self._state = state


def keep(folder: int, state: State) -> None:
    """The state, in one step: a crash leaves the one before, or this one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(f"{STATE}.new", flags, 0o600, dir_fd=folder)
    with os.fdopen(file, "wb") as opened:
        opened.write(msgspec.json.encode(state))
        opened.flush()
        os.fsync(opened.fileno())
    os.rename(f"{STATE}.new", STATE, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def fresh_seed() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes_raw()


def _private(seed: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed)


# --- the process ----------------------------------------------------------------------------------


def _confine(folder: int) -> None:
    """A uid of its own where it may have one; no dump, no new privileges, few files."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    os.fchmod(folder, 0o700)
    if os.geteuid() == 0:
        try:
            _become(folder)
        except OSError:
            pass  # Root of a namespace that has no other uid: it stays who it is, and says so.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    prctl(_NO_DUMP, 0, 0, 0, 0)
    prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def _become(folder: int) -> None:
    os.fchown(folder, UID, UID)
    for name in os.listdir(folder):
        os.chown(name, UID, UID, dir_fd=folder, follow_symlinks=False)
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)


def serve(signer: Signer, link: socket.socket) -> None:
    """Until the other end has gone."""
    with link.makefile("rb") as asked:
        while line := asked.readline(limits.SIGNER_MESSAGE_SIZE_BYTES_MAX):
            try:
                told = signer.answer(_read_ask(line))
            except (msgspec.MsgspecError, OSError) as error:
                told = Answer(refused=str(error)[:300])
            link.sendall(msgspec.json.encode(told) + b"\n")


def main(arguments: list[str]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # It ends with the kernel, which may sign once more.
    link = socket.socket(fileno=int(arguments[1]))
    try:
        os.makedirs(arguments[0], mode=0o700, exist_ok=True)
        folder = os.open(arguments[0], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(folder, fcntl.LOCK_EX)  # One that was given up may still be at its disk.
        _private(bytes(32))  # What is loaded late can't be found any more after this.
        _confine(folder)
        signer = Signer(folder)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        why: Any = Answer(refused=f"it has no state: {error}"[:300])
        link.recv(1)  # A question is what is answered.
        link.sendall(msgspec.json.encode(why) + b"\n")
        return 1
    serve(signer, link)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
