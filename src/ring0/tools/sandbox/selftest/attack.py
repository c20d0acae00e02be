"""What an attack is, and what can come of it. Data only; trying it is trial.py."""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

from ring0.tools.sandbox.spec import SandboxLimits


class Way(enum.StrEnum):
    """How often its program runs, and when."""

    ONCE = "once"
    TOGETHER = "together"
    """Two at the same time, each in a sandbox of its own; what the second one got counts."""
    AFTER = "after"
    """Two, one after the other."""


class Proof(enum.StrEnum):
    """What shows that it got through."""

    SAID = "said"
    """Its own word: that something which has no harmless trace was possible."""
    CANARY = "canary"
    """It brought back the secret that only the target holds."""
    CHANGED = "changed"
    """The host's file is another one afterwards."""
    PREY = "prey"
    """The process that it went for is dead."""
    SURVIVOR = "survivor"
    """A process of it is alive after its sandbox's end."""
    OUTPUT = "output"
    """More of its output came out than was asked for."""
    MEMORY = "memory"
    """It had as many MiB as `given` at once: it has checked that it holds them, or the host has
    counted them."""
    TAKEN = "taken"
    """The kernel read the canary, as a file out of the sandbox's folder."""
    UID = "uid"
    """Two sandboxes had the same uid on the host."""


class Gap(enum.StrEnum):
    """What holds only where the machine and the kernel's user allow it."""

    CGROUP = "cgroup"
    """Totals of a whole sandbox."""
    UID = "uid"
    """A uid for each sandbox: the kernel must be root."""


class State(enum.StrEnum):
    """What came of one attack."""

    CLOSED = "closed"
    OPEN = "OPEN"
    NOT_HERE = "n/a"
    """This machine gives nobody what the attack needs."""
    GAP = "not kept"
    """It gets through because this machine, or the kernel's user, lacks what would keep it off.
    `doctor` says so as well."""
    BROKEN = "broken"
    """The attack's program did not work, so nothing is known."""
    NO_CONTROL = "control failed"
    """It was held off, and it does not work outside either: so that proves nothing."""


SMALL: Final = SandboxLimits(
    memory_bytes=64 << 20, processes=16, open_files=64, tmp_bytes=8 << 20, cpu_s=1
)
"""For attacks on the limits themselves."""


class Attack(msgspec.Struct, frozen=True, kw_only=True):
    """One way to try to get out, or to use up more than is one's own."""

    name: str
    family: str
    """Also the file in programs/ that holds its program."""
    tries: str
    """One line for people: what it tries."""
    program: str
    """A function of that file."""
    given: Any = None
    """What the program is told beside the common targets."""
    way: Way = Way.ONCE
    proof: Proof = Proof.SAID
    namespaced: bool = False
    """The control runs in throw-away namespaces with every power: it would harm the host."""
    needs: str = ""
    """What a machine, or a kernel's user, may lack; then a control that fails says "n/a"."""
    gap: Gap | None = None
    """What a machine or a kernel may lack so that nothing keeps it off; `doctor` says so, too."""
    on_linux: bool = False
    """It is one on this machine's Linux: harmless where the sandbox has a Linux of its own."""
    workspace: bool = False
    egress: bool = False
    """Its sandbox has a proxy; in the control there is a careless one."""
    small: bool = False
    """With the limits of `SMALL`."""
    wall_s: float = 0
    """0: the selftest's own."""
    both: bool = False
    """It is tried in the forked interpreter, and in a program that was started by exec, too."""
    prey: bool = False
    """It needs a process of the host's that may die."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one attack, inside and outside."""

    name: str
    family: str
    tries: str
    state: State
    inside: str
    """What the program says that it got, or how it was refused."""
    control: str
    """The same of the program outside."""
    held: bool
    """The control got through: so the attack is one."""
    why: str = ""
    """For what is neither closed nor open."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    tier: str
    kernel_uid: int
    findings: tuple[Finding, ...]
    took_ms: int

    def count(self, state: State) -> int:
        return sum(finding.state is state for finding in self.findings)

    @property
    def held(self) -> int:
        """Controls that showed that their attack works where nothing keeps it off."""
        return sum(finding.held for finding in self.findings)

    @property
    def good(self) -> bool:
        """None is open, and nothing is left unknown."""
        return not any(map(self.count, (State.OPEN, State.BROKEN, State.NO_CONTROL)))
