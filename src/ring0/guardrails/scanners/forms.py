"""How secrets look that have a form of their own: data, as detect-secrets has it and the providers'
own documentation.

None of them has a space in it, or a sign that is not in RUN, or more than SECRET_RUN_CHARS_MAX.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from ring0.guardrails.scanners.disorder import is_mixed, is_placeholder
from ring0.guardrails.scanners.findings import Confidence, Severity

RUN: Final = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.+/=:~%@!$&*?#"
)
"""All that a form below is made of: whatever else follows, it ends there."""


class Form(msgspec.Struct, frozen=True):
    """How one kind of secret looks."""

    name: str
    anchors: tuple[str, ...]
    """One of them stands in every such secret."""
    pattern: re.Pattern[str]
    severity: Severity = Severity.CRITICAL
    confidence: Confidence = Confidence.HIGH
    holds: Callable[[str], bool] | None = None
    """Asked of what fits the pattern: is it one?"""


def _is_jwt(text: str) -> bool:
    head = text.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and "alg" in header


def _has_password(text: str) -> bool:
    password = text[:-1].rpartition(":")[2]
    return len(password) >= 3 and not is_placeholder(password)


def _form(
    name: str,
    anchors: str,
    pattern: str,
    severity: Severity = Severity.CRITICAL,
    confidence: Confidence = Confidence.HIGH,
    holds: Callable[[str], bool] | None = None,
) -> Form:
    return Form(name, tuple(anchors.split()), re.compile(pattern), severity, confidence, holds)


FORMS: Final = (
    _form(
        "aws-access-key",
        "AKIA ASIA ABIA ACCA",
        r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}(?![0-9A-Za-z])",
        holds=is_mixed,
    ),
    _form("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{36,255}"),
    _form("github-token", "github_pat_", r"github_pat_[A-Za-z0-9_]{22,255}"),
    _form(
        "gitlab-token", "glpat- gldt- glrt- glptt-", r"gl(?:pat|dt|rt|ptt)-[A-Za-z0-9_\-]{20,128}"
    ),
    _form(
        "slack-token",
        "xoxb- xoxp- xoxa- xoxo- xoxr- xoxs- xoxe xapp-",
        r"xox(?:[abposr]|e(?:\.xox[bp])?)-[A-Za-z0-9\-]{10,250}"
        r"|xapp-[0-9]-[A-Za-z0-9\-]{10,250}",
    ),
    _form(
        "slack-webhook",
        "hooks.slack.com/",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/_\-]{20,128}",
    ),
    _form(
        "discord-webhook",
        "/api/webhooks/",
        r"discord(?:app)?\.com/api/webhooks/[0-9]{17,20}/[A-Za-z0-9_\-]{60,80}",
    ),
    _form(
        "stripe-key",
        "k_live_ k_test_ whsec_",
        r"(?:[srp]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,247}",
    ),
    _form("anthropic-key", "sk-ant-", r"sk-ant-[A-Za-z0-9]{3,16}-[A-Za-z0-9_\-]{20,200}"),
    _form(
        "openai-key",
        "sk-",
        r"(?<![A-Za-z0-9])sk-(?!ant-)(?:proj-|svcacct-|admin-|or-v1-|None-)?"
        r"[A-Za-z0-9_\-]{20,240}",
        holds=is_mixed,
    ),
    _form("google-key", "AIza", r"AIza[A-Za-z0-9_\-]{35}(?![A-Za-z0-9_\-])"),
    _form(
        "google-oauth", "GOCSPX- ya29.", r"GOCSPX-[A-Za-z0-9_\-]{28}|ya29\.[A-Za-z0-9_\-]{20,1024}"
    ),
    _form("huggingface-token", "hf_", r"(?<![A-Za-z0-9])hf_[A-Za-z]{34}(?![A-Za-z0-9])"),
    _form("groq-xai-key", "gsk_ xai-", r"(?<![A-Za-z0-9])(?:gsk_|xai-)[A-Za-z0-9]{48,96}"),
    _form(
        "replicate-perplexity-key", "r8_ pplx-", r"(?<![A-Za-z0-9])(?:r8_|pplx-)[A-Za-z0-9]{37,64}"
    ),
    _form("npm-token", "npm_", r"npm_[A-Za-z0-9]{36}(?![A-Za-z0-9])"),
    _form("pypi-token", "pypi-AgE", r"pypi-AgE[A-Za-z0-9_\-]{50,1000}"),
    _form("sendgrid-key", "SG.", r"SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}"),
    _form(
        "twilio-key",
        "AC SK",
        r"(?<![A-Za-z0-9])(?:AC|SK)[0-9a-f]{32}(?![A-Za-z0-9])",
        Severity.HIGH,
    ),
    _form("digitalocean-token", "do_v1_ dop_v1_ doo_v1_ dor_v1_", r"do[opr]_v1_[0-9a-f]{64}"),
    _form("databricks-token", "dapi", r"(?<![A-Za-z0-9])dapi[0-9a-f]{32}(?:-[0-9])?"),
    _form("shopify-token", "shpat_ shpca_ shppa_ shpss_", r"shp(?:at|ca|pa|ss)_[0-9A-Fa-f]{32}"),
    _form("vault-token", "hvs. hvb. hvr.", r"hv[sbr]\.[A-Za-z0-9_\-]{24,300}"),
    _form("age-key", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    _form(
        "telegram-token",
        ":AA",
        r"(?<![0-9A-Za-z])[0-9]{8,10}:AA[A-Za-z0-9_\-]{33}(?![A-Za-z0-9_\-])",
    ),
    _form(
        "discord-token",
        ".",
        r"(?<![A-Za-z0-9_\-.])[MNO][A-Za-z0-9_\-]{23,27}\.[A-Za-z0-9_\-]{6}"
        r"\.[A-Za-z0-9_\-]{27,40}(?![A-Za-z0-9_\-.])",
        holds=is_mixed,
    ),
    _form("mailchimp-key", "-us", r"(?<![0-9a-f])[0-9a-f]{32}-us[0-9]{1,2}(?![0-9A-Za-z])"),
    _form(
        "square-key",
        "sq0csp- sq0atp- EAAA",
        r"sq0(?:csp|atp)-[A-Za-z0-9_\-]{22,43}"
        r"|(?<![A-Za-z0-9])EAAA[A-Za-z0-9_\-]{60}(?![A-Za-z0-9_\-])",
    ),
    _form("linear-key", "lin_api_", r"lin_api_[A-Za-z0-9]{40}"),
    _form("azure-storage-key", "AccountKey=", r"AccountKey=[A-Za-z0-9+/]{86}=="),
    _form(
        "jwt",
        "eyJ",
        r"(?<![A-Za-z0-9_\-])eyJ[A-Za-z0-9_\-]{10,1024}+\.[A-Za-z0-9_\-]{4,2048}+"
        r"\.[A-Za-z0-9_\-]{8,1000}+",
        Severity.HIGH,
        holds=_is_jwt,
    ),
    _form(
        "password-in-url",
        "://",
        r"(?<![A-Za-z0-9+.\-])[A-Za-z][A-Za-z0-9+.\-]{1,20}://"
        r"[A-Za-z0-9_\-.+%~!$&*]{0,64}:[A-Za-z0-9_\-.+%~!$&*=#?]{3,128}+@(?=[A-Za-z0-9])",
        Severity.HIGH,
        Confidence.MEDIUM,
        _has_password,
    ),
)


def matches(form: Form, text: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Those that begin in text[first:last], none within another."""
    found = form.pattern.search(text, first)
    while found is not None and found.start() < last:
        start, end = found.span()
        if form.holds is None or form.holds(found.group()):
            yield start, end
        else:
            end = start + 1
        found = form.pattern.search(text, end)
