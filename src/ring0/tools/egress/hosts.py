"""Names of hosts in one canonical form, and those that are never let out to whatever a rule says.

Not for addresses: what a name resolves to is judged in address.py.
"""

from __future__ import annotations

import re
from typing import Final

from ring0.tools.egress.refusals import malformed

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LAST_IS_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_OCTET: Final = r"(?:0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
_IPV4: Final = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_AUTHORITY: Final = re.compile(r"([^:]+)(?::([0-9]{1,5}))?")

DEFAULT_PORTS: Final = {"https": 443, "http": 80}

MODEL_HOSTS: Final = (
    "api.openai.com",
    "chatgpt.com",
    "openai.azure.com",
    "services.ai.azure.com",
    "cognitiveservices.azure.com",
    "inference.ai.azure.com",
    "api.anthropic.com",
    "claude.ai",
    "generativelanguage.googleapis.com",
    "aiplatform.googleapis.com",
    "gemini.google.com",
    "api.mistral.ai",
    "api.cohere.ai",
    "api.cohere.com",
    "api.groq.com",
    "api.together.xyz",
    "api.together.ai",
    "openrouter.ai",
    "api.deepseek.com",
    "api.x.ai",
    "api.perplexity.ai",
    "api.fireworks.ai",
    "api-inference.huggingface.co",
    "router.huggingface.co",
    "endpoints.huggingface.cloud",
    "api.replicate.com",
    "models.github.ai",
    "api.githubcopilot.com",
    "api.cerebras.ai",
    "api.sambanova.ai",
    "integrate.api.nvidia.com",
    "api.moonshot.ai",
    "api.moonshot.cn",
    "dashscope.aliyuncs.com",
    "dashscope-intl.aliyuncs.com",
    "open.bigmodel.cn",
    "api.minimax.io",
    "api.ai21.com",
    "api.voyageai.com",
    "api.jina.ai",
    "ollama.com",
)
"""Each with all that is beneath it: a model is asked at the model door, or not at all."""

_MODEL_PATTERNS: Final = (
    re.compile(r"[a-z0-9-]+-aiplatform\.googleapis\.com"),
    re.compile(r"bedrock[a-z0-9-]*(\.[a-z0-9-]+)+\.amazonaws\.com(\.cn)?"),
    re.compile(r"runtime\.sagemaker(\.[a-z0-9-]+)+\.amazonaws\.com(\.cn)?"),
)


def canonical_host(text: str) -> str:
    """A name in lower-case A-labels, or a plain IPv4 address. Raises CallInvalid for all else.

    Odd ways to write an address (octal, hex, one number, two or three parts, brackets, zones) are
    refused and not interpreted: two readers could differ.
    """
    name = text.lower() if text.isascii() else _a_labels(text)
    if _IPV4.fullmatch(name):
        return name
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise malformed(f"{text[:80]!r} is not the name of a host.")
    if _LAST_IS_NUMBER.fullmatch(labels[-1]):
        raise malformed(f"{text[:80]!r} is an odd way to write an address.")
    for label in labels:
        if label.startswith("xn--"):
            _check_a_label(label, text)
    return name


def canonical_port(text: str) -> int:
    """1 to 65535, without leading zeros. Raises CallInvalid."""
    if not text.isascii() or not text.isdigit() or text[0] == "0" or int(text) > 65_535:
        raise malformed(f"{text[:20]!r} is not a port.")
    return int(text)


def split_authority(text: str, scheme: str) -> tuple[str, int]:
    """`host[:port]` of a URL or a Host header, canonical. Raises CallInvalid."""
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        raise malformed(f"{text[:80]!r} is not a host, or a host and a port.")
    host, port = found.groups()
    return canonical_host(host), canonical_port(port) if port else DEFAULT_PORTS[scheme]


def is_address(host: str) -> bool:
    """A canonical host that is an IPv4 address."""
    return _IPV4.fullmatch(host) is not None


def is_loopback(host: str) -> bool:
    """A canonical host that is this machine, by its name or an IPv4 address."""
    return host == "localhost" or (is_address(host) and host.startswith("127."))


def is_beneath(host: str, domain: str) -> bool:
    """`host` is `domain`, or has it as its last whole labels."""
    return host == domain or host.endswith("." + domain)


def is_model_host(host: str) -> bool:
    """Where somebody sells a model."""
    return any(is_beneath(host, domain) for domain in MODEL_HOSTS) or any(
        pattern.fullmatch(host) for pattern in _MODEL_PATTERNS
    )


def _a_labels(text: str) -> str:
    import idna  # Its tables are slow to load, and few names need them.

    try:
        return idna.encode(text, uts46=True, std3_rules=True).decode()
    except idna.IDNAError:
        raise malformed(f"{text[:80]!r} is not the name of a host.") from None


def _check_a_label(label: str, text: str) -> None:
    import idna

    try:
        idna.ulabel(label)
    except idna.IDNAError:
        raise malformed(f"{text[:80]!r} holds an encoded label that means nothing.") from None
