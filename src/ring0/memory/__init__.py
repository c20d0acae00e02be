"""What agents remember: recall within a scope, facts, working sets, assembly, forgetting.

Not the gate's side of it (kernel/memory/), nor where it is stored (store/).
"""

from ring0.memory.index import Indexes
from ring0.memory.recall import Found, recall
from ring0.memory.structure import embedded_text

__all__ = ["Found", "Indexes", "embedded_text", "recall"]
