"""Text in data that speaks like an order to a model: a hint, and never the gate.

An injected goal can read like any request, and then nothing here sees it; and who writes about
prompts writes such text too. A finding may raise a label or a risk, and does nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ring0.guardrails.scanners.findings import Confidence, Hit, Severity, excerpt

_BETWEEN_WORDS: Final = r"[\W_]{0,6}"
"""What a space in a phrase stands for: also nothing, where the spaces were taken out."""
_SOME_WORDS: Final = r"(?:\w{1,14}+[\W_]{1,6}+)"

_WHICH: Final = (
    "(?:(?:all|any|every|each|the|your|my|our|its|these|those|this|that|of|other|both|entire"
    "|previous|prior|preceding|above|earlier|foregoing|former|past|initial|original|existing"
    "|current|system|given|safety|security|developer|hidden|aforementioned|and|or) ){1,7}"
)
_OLD: Final = (
    "(?:all|any|every|previous|prior|preceding|above|earlier|foregoing|your|original|initial"
    "|system|developer|safety|existing)"
)
_ORDERS: Final = (
    "(?:instruction|direction|directive|guideline|prompt|guardrail|programming|safeguard"
    "|restriction|command|constraint|training|rules)"
)
_MODEL: Final = r"(?:ai|llm|artificial intelligence|language model|chatbot|automated agent)"
_READS: Final = "(?:reading|processing|summari[sz]ing|reviewing|evaluating)"
_SECRETS: Final = (
    "(?:passwords?|secrets?|api keys?|credentials?|access tokens?|private keys?|ssh keys?"
    "|environment variables|conversation history|chat history|conversation)"
)
_PROMPT: Final = (
    "(?:system prompt|initial prompt|initial instructions|hidden prompt|hidden instructions"
    "|original prompt|original instructions|system message|system instructions|developer message)"
)


class Pattern(msgspec.Struct, frozen=True):
    """One way to speak to a model."""

    name: str
    pattern: re.Pattern[str]
    anchors: tuple[str, ...]
    """One of them stands in every such text, in small letters."""
    also: tuple[str, ...]
    """And one of these."""
    severity: Severity = Severity.MEDIUM


def _pattern(
    name: str,
    phrases: Sequence[str],
    anchors: Sequence[str],
    also: Sequence[str] = ("",),
    severity: Severity = Severity.MEDIUM,
) -> Pattern:
    """`phrases`: one of which is enough; a space in them stands for whatever parts words."""
    text = "|".join(phrases).replace(" ", _BETWEEN_WORDS)
    return Pattern(name, re.compile(text), tuple(anchors), tuple(also), severity)


PATTERNS: Final = (
    _pattern(
        "ignore-instructions",
        [
            "(?:ignore|disregard|forget|override|overrule|bypass|discard|abandon|drop|cancel"
            "|pay no attention to|do not follow|do not obey|don.?t follow|don.?t obey"
            rf"|stop following|set aside) (?={_SOME_WORDS}{{0,4}}?{_OLD}){_WHICH}"
            rf"(?:\w{{1,16}}+[\W_]{{1,6}}+)??{_ORDERS}"
        ],
        ["instruction", "direct", "guideline", "prompt", "guardrail", "programming", "safeguard",
         "restriction", "command", "constraint", "training", "rules"],
        ["ignor", "disregard", "forget", "overr", "bypass", "discard", "abandon", "drop", "cancel",
         "attention", "not", "follow", "aside", "don"],
    ),
    _pattern(
        "ignore-everything-above",
        [
            "(?:ignore|disregard|forget) (?:all (?:of )?)?"
            "(?:everything|anything|what(?:ever)?|all) (?:that )?"
            "(?:(?:is|was|were|has|have|been|you|told|said|written|you.?ve|we) ){0,5}"
            "(?:above|before|previously|so far|until now|told (?:you|before|earlier))"
        ],
        ["above", "before", "previous", "so far", "sofar", "told", "now"],
        ["ignor", "disregard", "forget"],
    ),
    _pattern(
        "other-languages",
        [
            r"(?:ignorier\w{0,3}|vergiss|missacht\w{0,3}|ignore[zr]?|oublie[zr]?|ignora[rd]?"
            "|olvida[rd]?|dimentica) (?:(?:alle|allen|die|deine|bisherigen|vorherigen|vorigen"
            "|obigen|fruheren|toutes|tout|tous|les|des|tes|vos|precedentes?|todas?|todos?|las|los"
            "|tus|sus|anteriores|previas|tutte|le|precedenti) ){1,5}"
            "(?:anweisung|regeln|instruction|consigne|ordre|instruc|reglas|ordenes|istruzioni)"
        ],
        ["anweisung", "instruc", "consigne", "ordre", "ordenes", "regeln", "reglas", "istruzioni"],
        ["ignor", "vergiss", "missacht", "oubli", "olvid", "dimentic"],
    ),
    _pattern(
        "new-instructions",
        [
            r"(?:here are|these are|follow|your|read) (?:your |the |these )?"
            r"(?:new|updated|real|actual) (?:instructions?|task|goal|orders)\b",
            "(?:new|updated) instructions? (?:from|for) (?:the )?"
            "(?:system|admin|developer|assistant|ai|agent|model|user|owner)",
            r"system override(?=[:\s])",
            "important message from (?:me|the user|your user|the owner|the admin)",
        ],
        ["new", "updated", "real", "actual", "override", "message"],
        ["instruction", "task", "goal", "orders", "system", "important"],
    ),
    _pattern(
        "role-marker",
        [
            r"<\|(?:im_start|im_end|system|user|assistant|start_header_id|end_header_id"
            r"|endoftext|eot_id|end)\|>",
            r"\[/?inst\]",
            "<</?sys>>",
            r"###\x20{0,2}(?:instruction|system)s?:",
            r"\n\n(?:human|assistant):",
            r"</?(?:system|tool_results?|tool_response|function_results?|untrusted)"
            r"(?:[\x20_-]?(?:prompt|message|reminder|data))?>",
            r"\[/?system\](?:\(#|:|\n)",
            "<start_of_turn>",
        ],
        ["<|", "inst]", "sys>>", "###", "\n\nhuman:", "\n\nassistant:", "<tool", "</tool",
         "<function", "</function", "<system", "</system", "<untrusted", "</untrusted", "system]",
         "<start_of"],
    ),
    _pattern(
        "speaks-to-a-model",
        [
            "(?:attention|note to|note for|message to|message for|instructions? to"
            rf"|instructions? for|dear|hey|hello) (?:all |any |the )?{_MODEL}s?\b"
            r"(?: (?:assistant|agent|model|system|reader)s?)?"
            "(?:[:!,]| (?:reading|processing|you|please|must|to))",
            rf"if (?:you are|you.?re) (?:an |a |the )?{_MODEL}\b[^.\n]{{0,60}}{_READS}"
            r"[^.\n]{0,60}(?:must|should|please|then|,)",
            rf"(?:the|any|all|every) {_MODEL}s? (?:assistant|agent|model)?s? {_READS} "
            r"this[^.\n]{0,60}(?:must|should|please|has to)",
        ],
        ["ai", "llm", "language", "chatbot", "automated", "artificial"],
        ["attention", "dear", "hey", "hello", "note", "message", "instruction", "if you", "ifyou",
         "reading", "processing", "summari"],
    ),
    _pattern(
        "changes-the-role",
        [
            rf"you are now (?:in )?(?:a |an |the )?{_SOME_WORDS}{{0,3}}?(?:dan\b|developer mode"
            r"|unrestricted|unfiltered|uncensored|jailbroken|evil|free from|root\b|admin mode"
            "|debug mode)",
            "do anything now",
            "(?:enable|enter|activate) (?:dan|jailbreak|god) mode",
            "from now on you (?:will|must|shall|are going to|have to) "
            rf"{_SOME_WORDS}{{0,2}}?(?:obey|ignore|answer as|act as|pretend|respond as|forget"
            "|only obey|comply)",
            "pretend (?:that )?you (?:have no|are not bound|can do anything)",
        ],
        ["are now", "arenow", "from now", "fromnow", "mode", "anything now", "anythingnow",
         "pretend"],
        ["you", "enable", "enter", "activate", "do"],
    ),
    _pattern(
        "keeps-it-from-the-user",
        [
            "(?:do not|don.?t|never|without|avoid) (?:ever )?(?:tell|telling|mention|mentioning"
            "|inform|informing|notify|notifying|alert|alerting|reveal|revealing|disclose"
            "|disclosing|ask|asking) (?:(?:this|it|that|any of this|anything|these instructions) )?"
            r"(?:to |about (?:this|it) to )?(?:the|your) (?:user|human|owner|operator)\b"
            r"(?! (?:s\b|name|names|password|guide|manual|agent|group|groups|account|id\b|ids\b"
            "|stor|interface|experience|table))"
        ],
        ["user", "human", "owner", "operator"],
        ["tell", "mention", "inform", "notif", "alert", "reveal", "disclos", "ask"],
    ),
    _pattern(
        "asks-for-the-prompt",
        [
            "(?:reveal|print|repeat|output|show|display|leak|recite|disclose|dump|tell me|give me"
            "|send|forward|write out) (?:me |us |back |verbatim |out |exactly ){0,2}"
            "(?:your|the|its|all) (?:of your |entire |full |whole |exact |own |complete ){0,2}"
            f"{_PROMPT}"
        ],
        ["prompt", "instructions", "message"],
        ["system", "initial", "hidden", "original", "developer"],
    ),
    _pattern(
        "asks-to-send-secrets",
        [
            "(?:send|forward|post|upload|exfiltrate|transmit|e-?mail|submit|append|include|encode) "
            "(?:(?:me|us|all|any|the|your|every|of|it|her|his|their|user.?s|current|full|entire"
            rf"|whole) ){{0,4}}{_SECRETS}\b[^.\n]{{0,60}}?"
            r"(?:\bto\b|\bat\b|\bvia\b|\bin the (?:url|query|link))[^.\n]{0,20}?"
            r"(?:https?://|www\.|[\w.+\-]{1,40}@[\w\-]{1,40}\.|\burl\b|\bimage\b|\bwebhook\b"
            r"|\bquery\b)"
        ],
        ["password", "secret", "key", "credential", "token", "environment", "conversation", "chat"],
        ["http", "www", "@", "url", "image", "webhook", "query"],
        Severity.HIGH,
    ),
)  # fmt: skip


def find(text: str, lower: str) -> Iterator[Hit]:
    """`lower`: the text in small letters, place for place."""
    for each in PATTERNS:
        if not _has_one(lower, each.also) or not _has_one(lower, each.anchors):
            continue
        for found in each.pattern.finditer(lower):
            start, end = found.span()
            shown = excerpt(text[start:end])
            yield Hit(f"injection/{each.name}", each.severity, Confidence.LOW, start, end, shown)


def _has_one(text: str, anchors: tuple[str, ...]) -> bool:
    return any(anchor in text for anchor in anchors)
