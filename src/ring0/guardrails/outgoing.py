"""What leaves with a call: URLs that are not the user's, and private data for a place.

A place is what anybody may read: a site, a host, a channel. That a user names one does not say that
what was read in private may go there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ring0 import limits
from ring0.guardrails import roles, tokens
from ring0.guardrails.naming import WHOLLY
from ring0.guardrails.origins import Seen, named
from ring0.guardrails.records import Records, urls_in
from ring0.guardrails.vocabulary import ADDRESSES, COMMON, GENERIC, LINKS
from ring0.guardrails.words import one, parts
from ring0.types import Integrity, Origin, ToolManifest

_DISTINCT_CHARS_MIN: Final = 4
_WORDS_MIN: Final = 6
"""So many words that stand only in private data are no chance."""


def untrusted_urls(
    seen: Seen,
    manifest: ToolManifest,
    args: Mapping[str, Any],
    found: Sequence[Origin],
    *,
    mutates: bool,
) -> tuple[str, ...]:
    """Arguments with a URL, in what goes out, that is neither the user's nor vouched for."""
    bad: list[str] = []
    if mutates:
        for path, text in _content(manifest, args):
            if len(text) > limits.FLOW_CONTENT_CHARS_MAX or _has_bad_url(seen, text):
                bad.append(path)
    elif not manifest.egress:
        # Whoever is there is told that it is read, and with what in the address.
        for origin in found:
            text = tokens.folded(origin.value)
            of_host = ADDRESSES & set(roles.last_words(origin.argument)) and roles.is_host(text)
            if (of_host or next(urls_in(text), "")) and _is_bad_address(seen, origin, text):
                bad.append(origin.argument)
    return tuple(dict.fromkeys(bad))


def private(
    seen: Seen, manifest: ToolManifest, args: Mapping[str, Any], host: str
) -> tuple[str, ...]:
    """Arguments that hold private data which the user did not name, where the call goes to a place
    rather than to people. `host`: where the driver says that it goes."""
    if not seen.holds_private:
        return ()
    goes_to = [str(value) for value in roles.values(args, manifest.recipients)]
    if not host and not any(map(roles.is_place, goes_to)):
        return ()
    bad = []
    for path, text in _content(manifest, args):
        if len(text) > limits.FLOW_CONTENT_CHARS_MAX or _holds_private(seen, text):
            bad.append(path)
    return tuple(dict.fromkeys(bad))


def _content(manifest: ToolManifest, args: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The text that goes out: `content`, or all else of a tool that sends to recipients."""
    names = manifest.content
    if not names and manifest.recipients:
        chooses = {*manifest.critical, *manifest.recipients}
        names = tuple(name for name in args if name not in chooses)
    for name in names:
        for path, leaf in named(args, name):
            if isinstance(leaf, str):
                yield path, leaf


def _has_bad_url(seen: Seen, text: str) -> bool:
    if "://" not in text and "www." not in text.casefold():
        return False
    urls = list(dict.fromkeys(urls_in(tokens.folded(text))))
    if len(urls) > limits.FLOW_URLS_MAX:
        return True
    return not all(_is_users(seen, url) for url in urls)


def _is_users(seen: Seen, url: str) -> bool:
    found = seen.origins({"": url}, ("",))
    if found and all(origin.integrity is not Integrity.UNTRUSTED for origin in found):
        return True
    host = (url.partition("://")[2] or url).rstrip("/")
    if roles.is_host(host) and "/" not in host and seen.is_typed(host):
        return True  # The user typed the host, and nothing is added to it.
    return bool(where_named(seen.records, url))


def where_named(records: Records, url: str) -> str:
    """What the user's words call the thing in which this URL stands, where they speak of a link at
    all; empty: nothing."""
    if not records.words.stems & LINKS:
        return ""
    for record in records.holding_url(url):
        if records.level(record, several=True) >= WHOLLY:
            return records.name_of(record)
    return ""


def _is_bad_address(seen: Seen, origin: Origin, url: str) -> bool:
    if origin.integrity is not Integrity.UNTRUSTED or origin.chosen:
        return False
    if not origin.sources or origin.value.endswith("…"):
        return True  # Made up: what is in it may be what was read.
    return not where_named(seen.records, url)


def _holds_private(seen: Seen, text: str) -> bool:
    """Whether it says what was seen only in private data that the user did not name: one number or
    address of it, or several of its words."""
    words = 0
    stems = seen.records.words.stems
    named_sources: dict[str, bool] = {}
    for key in tokens.keys(tokens.folded(tokens.visible(text))):
        if len(key) < _DISTINCT_CHARS_MIN or key in COMMON or one(key) in stems:
            continue
        sources = seen.only_private(key)
        for source in sources:
            if source not in named_sources:
                named_sources[source] = _is_named(source, seen.records)
        if not sources or any(named_sources[source] for source in sources):
            continue
        if "@" in key or any(map(str.isdigit, key)):
            return True
        words += 1
        if words >= _WORDS_MIN:
            return True
    return False


def _is_named(source: str, records: Records) -> bool:
    """The user's words name what was read: a record of it, or what kind of thing it is."""
    tool = source.partition("@")[0]
    kinds = {word for word in parts(tool) if word in GENERIC}
    return bool(kinds & records.words.stems) or records.names_any_of(tool)
