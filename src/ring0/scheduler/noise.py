"""What changes in an answer without telling anything: times, random ids, how long it took.

Two answers that differ in nothing else are one observation. A hash or a count is no noise: it says
that something changed. Where nothing but noise is left, the noise is what was asked for.
"""

from __future__ import annotations

import functools
import re
from typing import Final

from ring0 import limits

_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
_MOMENT = (
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?: ?Z\b|[+-]\d\d:?\d\d\b)?"
    r"|\d\d:\d\d:\d\d(?:[.,]\d{1,9})?\b"
    r"|\d\d? [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d(?: (?:GMT|UTC|[+-]\d{4}))?"
)
_DAY = (
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?(?:\d\d? [A-Z][a-z]{2} \d{4}|[A-Z][a-z]{2} [ \d]\d)"
    r" \d\d:\d\d:\d\d(?: \d{4})?(?: (?:GMT|UTC|[+-]\d{4}))?"
)
_SINCE_1970 = r"(?<![.-])(?:1[4-9]|20)\d{8}(?:\d{3}|\d{6}|\d{9})?(?:\.\d{1,9})?(?![\w.-])"
_LASTED = r"(?<!\.)\d{1,12}(?:\.\d{1,9})? ?(?:ns|us|µs|ms|sec|secs|seconds|s|m\d{1,2}(?:\.\d+)?s)\b"
_NUMBERED = (
    r"(?i:(?:attempt|try|retry|request|trace|correlation|pid)(?: id| no\.?)?[ :=#]{1,2})"
    r"[\w.-]{1,64}"
)
_KEY = (
    r"(?i:\"(?:[\w-]{0,24}?(?:request|trace|span|correlation)[_-]?(?:id|no)|attempts?|retry|retries"
    r"|tries|hits|counter|seq|tick|nonce|timestamp|ts|time|now|elapsed\w{0,8}"
    r"|duration\w{0,8}|took\w{0,8}|latency\w{0,8}|uptime\w{0,8}|[a-z]\w{0,24}_(?:at|ms|us|ns))"
    r"\\?\": ?)(?:\\?\"[^\"\\]{0,128}\\?\"|-?\d{1,20}(?:\.\d{1,20})?)"
)
_WORDS: Final = (
    ("0-9a-fA-F", _UUID),
    ("0-9", f"{_MOMENT}|{_SINCE_1970}|{_LASTED}"),
    ("MTWFSJADON", _DAY),
    ("aAtTrRcCpP", _NUMBERED),
)
"""Each with what it can begin with: only there is it tried."""
_MAY_CHANGE: Final = re.compile(r"\d|nonce|_id|-id")
_NAMES: Final = re.compile(r"\"[\w .-]{1,64}\":|null")
_TELLS: Final = re.compile(r"\w")
_MARK: Final = ""


@functools.cache
def _noise() -> re.Pattern[str]:
    """Compiled when it is first needed: that takes 17 ms, and most commands never need it."""
    return re.compile(_KEY + "".join(rf"|(?=[{first}])\b(?:{words})" for first, words in _WORDS))


def plain(text: str) -> str:
    """A canonical JSON text without its noise; as it is where it holds none, or nothing else."""
    if len(text) > 2 * limits.LOOP_NOISE_CHARS_MAX:
        most = limits.LOOP_NOISE_CHARS_MAX
        text = f"{text[:most]}\n{text[-most:]}"
    if _MAY_CHANGE.search(text) is None:
        return text
    left = _noise().sub(_MARK, text)
    return left if _TELLS.search(_NAMES.sub("", left)) else text
