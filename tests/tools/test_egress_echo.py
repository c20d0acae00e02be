"""Echoes: a server that sends back what it is sent does not give a credential away."""

from __future__ import annotations

import base64
import binascii
import contextlib
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from egress_world import CANARY, World, answer, get, shop, status, went_out
from hypothesis import given
from hypothesis import strategies as st

from ring0.errors import CallDenied
from ring0.tools.egress import EgressAnswer, canonical, parse_rule
from ring0.tools.egress.echo import Echoes


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.close()


_RAW = CANARY.encode()
ECHOES = {
    "plain": _RAW,
    "the_header": b"Bearer " + _RAW,
    "quoted": quote(CANARY, safe="").encode(),
    "quoted_with_slashes": quote(CANARY).encode(),
    "quoted_plus": quote_plus(CANARY).encode(),
    "quoted_in_lower_case": quote(CANARY, safe="").lower().encode(),
    "quoted_whole": "".join(f"%{b:02X}" for b in _RAW).encode(),
    "quoted_by_half": CANARY.replace("a", "%61").encode(),
    "quoted_twice": quote(quote(CANARY, safe=""), safe="").encode(),
    "hex": _RAW.hex().encode(),
    "hex_in_upper_case": _RAW.hex().upper().encode(),
    "hex_with_colons": _RAW.hex(":").encode(),
    "hex_with_spaces": _RAW.hex(" ").encode(),
    "upper_case": _RAW.upper(),
    "reversed": _RAW[::-1],
    "base64": base64.b64encode(_RAW),
    "base64_shifted_by_1": base64.b64encode(b"x" + _RAW + b"yz"),
    "base64_shifted_by_2": base64.b64encode(b"xy" + _RAW + b"z"),
    "base64_of_the_header": base64.b64encode(b"Authorization: Bearer " + _RAW + b"\r\n"),
    "base64_for_urls": base64.urlsafe_b64encode(b"\xff\xfe" + _RAW + b"\xff"),
    "base64_in_lines": base64.encodebytes(_RAW * 4),
    "base32": base64.b32encode(_RAW),
    "json": json.dumps({"authorization": f"Bearer {CANARY}"}).encode(),
    "json_with_escaped_slashes": json.dumps(CANARY).replace("/", "\\/").encode(),
    "json_in_escapes": "".join(f"\\u{b:04x}" for b in _RAW).encode(),
    "json_in_upper_case_escapes": "".join(f"\\u{b:04X}" for b in _RAW).encode(),
    "json_by_half_twice": json.dumps(json.dumps(CANARY).replace("a", "\\u0061")).encode(),
    "octal": CANARY.replace("a", "\\141").encode(),
    "quoted_within_json": json.dumps(CANARY.replace("/", "%2F").replace("a", "\x61")).encode(),
    "json_by_half": json.dumps(CANARY).replace("a", "\\u0061").encode(),
    "json_in_json": json.dumps(json.dumps({"a": CANARY})).encode(),
    "html": html.escape(CANARY).encode(),
    "html_in_numbers": "".join(f"&#{b};" for b in _RAW).encode(),
    "html_in_hex": "".join(f"&#x{b:X};" for b in _RAW).encode(),
    "html_by_half": CANARY.replace("a", "&#97;").encode(),
    "utf16": CANARY.encode("utf-16"),
    "utf32": CANARY.encode("utf-32-be"),
    "broken_over_lines": b"\n".join(_RAW[i : i + 5] for i in range(0, len(_RAW), 5)),
    "in_javascript": ("'" + "'+'".join(CANARY) + "'").encode(),
}


def readings(heard: bytes) -> list[bytes]:
    """What somebody who looks for the canary would try."""
    import re
    from urllib.parse import unquote_to_bytes

    tight = re.sub(rb"[^A-Za-z0-9/+=~-]", b"", heard)
    found = [heard, unquote_to_bytes(heard), unquote_to_bytes(unquote_to_bytes(heard)), tight]
    found += [heard[::-1], heard.replace(b"\0", b"")]
    found.append(html.unescape(heard.decode("latin-1")).encode("latin-1", "replace"))
    found.append(re.sub(rb"\\u00(..)", lambda m: bytes([int(m[1], 16)]), heard))
    for piece in re.findall(rb"[A-Z2-7]{16,}", heard):
        with contextlib.suppress(binascii.Error):
            found.append(base64.b32decode(piece + b"=" * (-len(piece) % 8)))
    for piece in re.findall(rb"[0-9a-fA-F]{16,}", re.sub(rb"[ :]", b"", heard)):
        found.append(bytes.fromhex(piece[: len(piece) // 2 * 2].decode()))
    for piece in re.findall(rb"[A-Za-z0-9+/_-]{12,}", heard.replace(b"\n", b"")):
        plain = piece.replace(b"-", b"+").replace(b"_", b"/")
        for start in range(4):
            cut = plain[start:]
            found.append(base64.b64decode(cut[: len(cut) // 4 * 4]))
    return found


@pytest.mark.parametrize("name", ECHOES)
@pytest.mark.parametrize("where_to", ["body", "header"])
async def test_an_echo_endpoint_does_not_give_the_canary_away(world, name, where_to):
    echo = ECHOES[name]
    if where_to == "header":
        says = answer(b"ok", b"X-Echo: " + echo.replace(b"\n", b" ").replace(b"\0", b" "))
    else:
        says = answer(b"<" + echo + b">")
    server, served, where = await shop(world, says)
    heard = await served.secure(where, get(where))
    assert went_out(server) and status(heard) in (200, 403, 502), heard
    for reading in readings(heard):
        assert _RAW.lower() not in reading.lower(), (heard, reading)
    assert _RAW[:12] not in heard


async def test_an_echo_of_the_whole_request_comes_back_without_the_canary(world):
    """As httpbin does it: the request's head in a JSON body, the key in a header of its own."""

    def echo(request: bytes) -> bytes:
        told = json.dumps({"headers": request.decode("latin-1")}).encode()
        return answer(told, b"X-You-Sent: " + request.split(b"\r\n")[2])

    server, served, where = await shop(world, echo, header="X-Api-Key", form="{value}")
    heard = await served.secure(where, get(where))
    assert went_out(server) and _RAW not in heard and heard.count(b"[redacted]") == 2


async def test_an_echo_of_basic_auth_comes_back_without_it(world):
    def echo(request: bytes) -> bytes:
        return answer(request)

    _, served, where = await shop(world, echo, form="Basic {base64}")
    heard = await served.secure(where, get(where))
    assert base64.b64encode(_RAW) not in heard and b"authorization: [redacted]" in heard


async def test_a_canary_as_the_name_of_a_header_does_not_come_back(world):
    token = "canarytoken12345"
    server = await world.server(answer(b"ok", f"X-{token}: a".encode()), "shop.test")
    where = f"shop.test:{server.port}"
    credential = world.credential(f"https://{where}", token)
    served = await world.proxy(f"https://{where}", credentials=[credential])
    heard = await served.secure(where, get(where))
    assert status(heard) == 200 and token.encode() not in heard.lower()


async def test_a_range_does_not_bring_the_canary_in_pieces(world):
    server, served, where = await shop(world)
    await served.secure(where, get(where, "/", "Range: bytes=22-27", 'If-Range: "a"'))
    assert went_out(server) and b"range" not in server.heard[0].lower()


@pytest.mark.parametrize(
    "says",
    ["HTTP/1.1 200 OK\r\nX-{0}: \x01\r\n\r\n", "HTTP/1.1 200 OK\r\n{0} : a\r\n\r\n",
     "HTTP/1.1 200 OK\r\n{0}\r\n\r\n", "{0}\r\n\r\n", "HTTP/1.1 {0}\r\n\r\n",
     "HTTP/1.1 200 OK\r\nContent-Length: {0}\r\n\r\n",
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{0}\r\n"],
)  # fmt: skip
async def test_the_error_for_a_bad_answer_does_not_echo_the_canary(world, says):
    token = "canarytoken12345"
    server = await world.server(says.format(token).encode(), "shop.test")
    where = f"shop.test:{server.port}"
    credential = world.credential(f"https://{where}", token)
    served = await world.proxy(f"https://{where}", credentials=[credential])
    heard = await served.secure(where, get(where))
    assert status(heard) == 502 and token.encode() not in heard.lower()


async def test_a_cookie_that_was_put_back_is_not_echoed(world):
    def echo(request: bytes) -> bytes:
        return answer(request, b"Set-Cookie: sid=session-value-123456")

    server = await world.server(echo, "shop.test")
    rule = parse_rule(f"https://shop.test:{server.port}", "x")
    first = canonical("GET", "https", "shop.test", server.port, "/")
    egress = world.egress()
    found = await egress.send(first, rule, keeper=world.kept)
    cookie = dict(found.headers)["set-cookie"]
    again = canonical("GET", "https", "shop.test", server.port, "/", [("Cookie", cookie)])
    found = await egress.send(again, rule, keeper=world.kept)
    assert b"session-value-123456" in server.heard[1]
    assert "session-value" not in repr(found)


@given(
    st.text(alphabet=[chr(c) for c in range(33, 127)], min_size=8, max_size=40),
    st.binary(max_size=20),
    st.binary(max_size=20),
)
def test_no_secret_comes_back_in_any_plain_encoding(secret, before, after):
    encodings = [
        secret.encode(),
        quote(secret, safe="").encode(),
        secret.encode().hex().encode(),
        json.dumps(secret).encode(),
    ]
    for encoded in encodings:
        given_ = EgressAnswer(status=200, body=before + encoded + after)
        try:
            left = Echoes([secret]).take_out(given_).body
        except CallDenied:
            continue
        assert encoded.lower() not in left.lower()
    shifted = base64.b64encode(before + secret.encode() + after)
    try:
        left = Echoes([secret]).take_out(EgressAnswer(status=200, body=shifted)).body
    except CallDenied:
        return
    for start in range(4):
        for end in range(4):
            piece = left[start : len(left) - end]
            with contextlib.suppress(binascii.Error):
                assert secret.encode() not in base64.b64decode(piece)


@pytest.mark.parametrize(
    ("secret", "body"),
    [
        (
            CANARY,
            "\n".join("%61" if c == "a" else c for c in CANARY),
        ),  # In lines.
        ("abc%41defghij", "abc%41d\nefghij"),  # Not to be decoded: it is the value itself.
        ("<secret>'value", html.escape("<secret>'value", quote=False)),
        ("<secret>'value", "&LT;secret>'value"),
    ],
)
def test_what_is_hidden_in_two_ways_at_once_is_refused(secret, body):
    try:
        left = Echoes([secret]).take_out(EgressAnswer(status=200, body=body.encode()))
    except CallDenied:
        return
    assert left.body == b"[redacted]"


def test_what_holds_no_secret_is_left_as_it_is():
    body = bytes(range(256)) * 20
    given_ = EgressAnswer(status=200, headers=(("x-a", "b"),), body=body)
    assert Echoes([CANARY]).take_out(given_) == given_
    assert Echoes([]).take_out(given_) is given_
