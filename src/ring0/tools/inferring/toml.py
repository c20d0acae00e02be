"""A proposed manifest as text for agent.toml: a line a word, and beside each the reason for it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ring0.tools.inferring.manifests import Inferred
from ring0.types import Confidentiality, Integrity


def proposed(table: str, found: Inferred, *, server: bool) -> str:
    """`table`: as `tools.crm.operations.send_mail`. `server`: of an MCP server, of which a tool
    that only reads is called `reads`; else of a tool in the agent's own process."""
    lines = [f"[{table}]", *(() if server else ('use = "agent"',))]
    if server and found.reads:
        lines.append(_line("reads", "true", found.why["effect"]))
    elif server:
        lines.append(_line("effect", _text("once"), found.why["effect"]))
    else:
        lines.append(_line("effect", _text(found.effect.value), found.why["effect"]))
    if not found.reads:
        why = "where the user's own words choose all that it does, nobody is asked"
        lines.append(_line("unattended", "true", why))
    if found.removes:
        lines.append(_line("removes", "true", found.why["effect"]))
    statements = ("statements",) if server else ()
    settings = () if found.reads else ("settings",)
    for word in ("critical", "recipients", "content", *statements, *settings):
        names: tuple[str, ...] = getattr(found, word)
        if names:
            lines.append(_line(word, _texts(names), _whys(names, found.why)))
    if server and found.output is not Integrity.UNTRUSTED:
        lines.append(_line("output", _text(found.output.value), found.why["output"]))
    if found.confidentiality is not Confidentiality.PUBLIC:
        hidden = _text(found.confidentiality.value)
        lines.append(_line("confidentiality", hidden, found.why["confidentiality"]))
    if server and found.fields:
        few = ", ".join(f'{_text(rule.path)} = "trusted-field"' for rule in found.fields[:2])
        lines.append("# Of its results, those fields may be named that the system behind it gives,")
        lines.append(f"# and nobody else can choose: fields = {{ {few} }}")
    return "\n".join(lines)


def _line(word: str, value: str, why: str) -> str:
    return f"{word} = {value}  # {_plain(why)}"


def _whys(names: Sequence[str], why: dict[str, str]) -> str:
    reasons = dict.fromkeys(why.get(name, "") for name in names)
    return "; ".join(reason for reason in reasons if reason)


def _texts(names: Sequence[str]) -> str:
    return "[" + ", ".join(map(_text, names)) + "]"


def _text(value: str) -> str:
    """A string of TOML: JSON's form is one, but for DEL, which TOML wants escaped."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def _plain(text: str) -> str:
    """A server's words in a comment: on one line, and nothing that moves a cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
