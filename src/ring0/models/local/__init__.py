"""The provider `local`: a small real model on this machine, offline, in a process of its own.

`xllamacpp` (llama.cpp) reads the weights; it parses what anybody wrote, so it runs in a sandbox
with no door (server.py). What it is asked in, and how its proposals are forced into the form of a
tool call, is prompt.py. For drafts and tests: a model of this size chooses badly.
"""

from __future__ import annotations

from ring0.models.local.provider import LocalProvider, Process, Start, weights_of

__all__ = ["LocalProvider", "Process", "Start", "weights_of"]
