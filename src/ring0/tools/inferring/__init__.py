"""What a tool does, worked out from its name, its words and its schema, where no manifest says it.

A bound and a proposal, not knowledge: an unknown verb changes things, an unknown argument chooses a
target, what is read is private. Whoever wrote the tool wrote these words, too: a manifest's own
words win over all of it, and hints of a server may only tighten.
"""

from __future__ import annotations

from ring0.tools.inferring.arguments import Arguments, arguments_of
from ring0.tools.inferring.manifests import Inferred, infer, manifest_of, tightened
from ring0.tools.inferring.toml import proposed
from ring0.tools.inferring.verbs import Kind, Verb, verb_of

__all__ = [
    "Arguments",
    "Inferred",
    "Kind",
    "Verb",
    "arguments_of",
    "infer",
    "manifest_of",
    "proposed",
    "tightened",
    "verb_of",
]
