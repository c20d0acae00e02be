"""What scanners found, in words, for the person who is asked. Rules stay beside them, for policies.

Nothing here looks at a text: a finding shows no secret, number or address itself.
"""

from __future__ import annotations

from typing import Final

_NAMED: Final = {
    "personal/email": "an e-mail address",
    "personal/phone": "a phone number",
    "personal/iban": "a bank account's number (IBAN)",
    "personal/card": "a payment card's number",
    "personal/ssn": "a social security number",
    "personal/ip": "an IP address",
    "secret/named": "what is called a secret beside it, and looks like one",
    "not-scanned": "more than is looked through",
}
_KINDS: Final = {
    "personal": "personal data",
    "secret": "what has the form of a secret",
    "link": "a link that carries data with it",
    "hidden": "text that a reader does not see",
    "injection": "what reads like an order to a model",
    "profanity": "profanity",
    "classifier": "what your classifier objects to",
}


def what(rule: str) -> str:
    """What a rule finds: `a bank account's number (IBAN)`. One that is not known here: its name."""
    return _NAMED.get(rule) or _KINDS.get(rule.partition("/")[0]) or rule


def line(where: str, rule: str, shown: str) -> str:
    """`body holds a bank account's number (IBAN): 26 characters [personal/iban]`."""
    return f"{where or 'it'} holds {what(rule)}: {_bare(shown)} [{rule}]"


def read_line(source: str, rule: str, shown: str) -> str:
    """Likewise, of what a run has read."""
    return f"the run has read, in {source}, {what(rule)}: {_bare(shown)} [{rule}]"


def _bare(shown: str) -> str:
    """What is nothing but a remark needs no brackets."""
    whole = shown.startswith("(") and shown.endswith(")") and shown.count("(") == 1
    return shown[1:-1] if whole else shown
