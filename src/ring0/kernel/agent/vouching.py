"""Whether what manifests say of fields can be applied at all, told before anything starts.

Not here: how the words are read (tools/labelling.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from ring0.errors import ManifestInvalid
from ring0.guardrails.fields import Rules
from ring0.types import ToolManifest


def check(manifests: Iterable[ToolManifest]) -> None:
    """Raises ManifestInvalid for a path or a sanitiser that is none."""
    for manifest in manifests:
        for rule in manifest.fields:
            try:
                Rules((rule,))
            except ValueError as error:
                raise ManifestInvalid(
                    f"The rule of {manifest.name} about the field {rule.path[:80]!r} can't be"
                    " applied.",
                    why=str(error),
                    todo="Correct it: docs/guardrails.md lists how fields and sanitisers are"
                    " written.",
                ) from None
