"""The `ns` tier: one program in namespaces of its own, with nothing of the host but what is named.

What others may use is here. How one is made: host.py here, inside/ there; ahead: pool.py.
"""

from ring0.tools.sandbox.host import launch
from ring0.tools.sandbox.mounts import Mount, runtime_mounts
from ring0.tools.sandbox.probe import Probe, probe
from ring0.tools.sandbox.process import Exit, Identity, confirm_dead
from ring0.tools.sandbox.sandbox import Sandbox
from ring0.tools.sandbox.spec import SandboxLimits, SandboxSpec

__all__ = [
    "Exit",
    "Identity",
    "Mount",
    "Probe",
    "Sandbox",
    "SandboxLimits",
    "SandboxSpec",
    "confirm_dead",
    "launch",
    "probe",
    "runtime_mounts",
]
