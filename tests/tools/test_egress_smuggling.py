"""Requests that can be read in two ways: the proxy reads them in none."""

from __future__ import annotations

import pytest
from egress_world import World, ask, plain, status


@pytest.fixture
async def world():
    world = World()
    yield world
    await world.close()


SMUGGLED = {
    "cl_te": "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "te_cl": "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGPOST\r\n0\r\n\r\n",
    "te_te": "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "te_twice": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "te_list": "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "te_other": "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "te_cow": "Transfer-Encoding: cow\r\n\r\n0\r\n\r\n",
    "te_vertical_tab": "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "te_space_before_colon": "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "te_underscore": "Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
    "cl_underscore": "Content_Length: 5\r\n\r\n",
    "cl_twice": "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "cl_twice_alike": "Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "cl_list": "Content-Length: 4, 4\r\n\r\nabcd",
    "cl_sign": "Content-Length: +4\r\n\r\nabcd",
    "cl_negative": "Content-Length: -4\r\n\r\nabcd",
    "cl_hex": "Content-Length: 0x4\r\n\r\nabcd",
    "cl_zero": "Content-Length: 04\r\n\r\nabcd",
    "cl_empty": "Content-Length:\r\n\r\n",
    "cl_inner_space": "Content-Length: 1 0\r\n\r\n0123456789",
    "obs_fold": "X-One: a\r\n b\r\n\r\n",
    "obs_fold_te": "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare_lf": "X-One: a\nX-Two: b\r\n\r\n",
    "bare_lf_end": "X-One: a\n\n",
    "bare_cr": "X-One: a\rX-Two: b\r\n\r\n",
    "nul_in_value": "X-One: a\x00b\r\n\r\n",
    "control_in_value": "X-One: a\x1bb\r\n\r\n",
    "delete_in_value": "X-One: a\x7fb\r\n\r\n",
    "beyond_ascii": "X-One: a\xe9b\r\n\r\n",
    "no_colon": "X-One\r\n\r\n",
    "empty_name": ": a\r\n\r\n",
    "space_in_name": "X One: a\r\n\r\n",
    "tab_before_colon": "X-One\t: a\r\n\r\n",
    "name_beyond_ascii": "X-\xe9: a\r\n\r\n",
    "chunk_extension": "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
    "chunk_size_sign": "Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
    "chunk_size_prefix": "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "chunk_size_space": "Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
    "chunk_size_empty": "Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n",
    "chunk_size_huge": "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nabc\r\n",
    "chunk_size_underscore": "Transfer-Encoding: chunked\r\n\r\n1_0\r\nabc\r\n",
    "chunk_bare_lf": "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "chunk_bare_lf_longer": "Transfer-Encoding: chunked\r\n\r\n33\nabc\r\n0\r\n\r\n",
    "type_twice": "Content-Type: a/b\r\nContent-Type: application/graphql\r\n\r\n",
    "chunk_longer": "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "chunk_end": "Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n",
    "chunk_trailer": "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-One: a\r\n\r\n",
    "host_twice": "Host: shop.test\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_a_smuggled_request_is_refused_and_its_connection_ended(world, name):
    server, served, place = await plain(world)
    host = place.removeprefix("http://")
    head = f"POST {place}/ HTTP/1.1\r\nHost: {host}\r\n"
    heard = await served.say((head + SMUGGLED[name]).encode("latin-1") + ask(place, "/behind"))
    assert status(heard) == 400, heard
    assert heard.count(b"HTTP/1.1 ") == 1 and b"connection: close" in heard
    assert world.asked == [] and server.heard == []


FIRST_LINES = {
    "leading_line": "\r\nGET {place}/ HTTP/1.1",
    "two_spaces": "GET  {place}/ HTTP/1.1",
    "tab": "GET\t{place}/ HTTP/1.1",
    "trailing_space": "GET {place}/ HTTP/1.1 ",
    "http_1_0": "GET {place}/ HTTP/1.0",
    "http_2": "GET {place}/ HTTP/2.0",
    "http_0_9": "GET {place}/",
    "lower_case": "get {place}/ HTTP/1.1",
    "unknown_method": "TRACE {place}/ HTTP/1.1",
    "h2_preface": "PRI * HTTP/2.0",
    "star": "OPTIONS * HTTP/1.1",
    "origin_form": "GET / HTTP/1.1",
    "authority_form": "GET {host} HTTP/1.1",
    "https_without_connect": "GET https://{host}/ HTTP/1.1",
    "other_scheme": "GET ftp://{host}/ HTTP/1.1",
    "no_scheme": "GET //{host}/ HTTP/1.1",
    "user": "GET http://a@{host}/ HTTP/1.1",
    "password": "GET http://a:b@{host}/ HTTP/1.1",
    "fragment": "GET {place}/#a HTTP/1.1",
    "backslash": "GET {place}\\a HTTP/1.1",
    "backslash_in_host": "GET http://evil.test\\@{host}/ HTTP/1.1",
    "nul_in_host": "GET http://shop.test\x00.evil.test/ HTTP/1.1",
    "encoded_nul_in_host": "GET http://shop.test%00.evil.test/ HTTP/1.1",
    "encoded_host": "GET http://shop%2etest/ HTTP/1.1",
    "nul_in_path": "GET {place}/a\x00b HTTP/1.1",
    "encoded_nul_in_path": "GET {place}/a%00b HTTP/1.1",
    "encoded_line_end": "GET {place}/a%0d%0aX:%20b HTTP/1.1",
    "encoded_slash": "GET {place}/a%2fb HTTP/1.1",
    "encoded_slash_twice": "GET {place}/a%252fb HTTP/1.1",
    "encoded_backslash": "GET {place}/a%5cb HTTP/1.1",
    "dots": "GET {place}/a/../b HTTP/1.1",
    "encoded_dots": "GET {place}/a/%2e%2e/b HTTP/1.1",
    "encoded_dots_twice": "GET {place}/a/%252e%252e/b HTTP/1.1",
    "dots_and_parameter": "GET {place}/a/..;x/b HTTP/1.1",
    "overlong_slash": "GET {place}/a%c0%afb HTTP/1.1",
    "full_width_dots": "GET {place}/a/%EF%BC%8E%EF%BC%8E/b HTTP/1.1",
    "full_width_slash": "GET {place}/a%EF%BC%8Fb HTTP/1.1",
    "bad_escape": "GET {place}/%zz HTTP/1.1",
    "port_zero": "GET http://shop.test:0/ HTTP/1.1",
    "port_too_high": "GET http://shop.test:65536/ HTTP/1.1",
    "port_octal": "GET http://shop.test:0080/ HTTP/1.1",
    "port_empty": "GET http://shop.test:/ HTTP/1.1",
    "trailing_dot": "GET http://shop.test./ HTTP/1.1",
    "no_host": "GET http:/// HTTP/1.1",
    "zone": "GET http://[fe80::1%25eth0]/ HTTP/1.1",
    "brackets": "GET http://[::1]/ HTTP/1.1",
    "number": "GET http://2130706433/ HTTP/1.1",
    "hex_number": "GET http://0x7f000001/ HTTP/1.1",
    "octal_parts": "GET http://0177.0.0.1/ HTTP/1.1",
    "short_address": "GET http://127.1/ HTTP/1.1",
}


@pytest.mark.parametrize("name", FIRST_LINES)
async def test_a_first_line_with_two_readings_is_refused(world, name):
    server, served, place = await plain(world)
    host = place.removeprefix("http://")
    line = FIRST_LINES[name].format(place=place, host=host)
    heard = await served.say(f"{line}\r\nHost: {host}\r\n\r\n".encode("latin-1"))
    assert status(heard) == 400, heard
    assert world.asked == [] and world.looked_up == [] and server.heard == []


@pytest.mark.parametrize(
    "named",
    ["evil.test", "shop.test", "{host}.evil.test", "evil.test:{port}", "{host} ", "", "a b"],
)
async def test_a_host_header_that_is_not_the_urls_host_is_refused(world, named):
    server, served, place = await plain(world)
    host = named.format(host=f"shop.test:{server.port}", port=server.port)
    if host.strip() == f"shop.test:{server.port}":
        host = "shop.test:1"
    heard = await served.say(f"GET {place}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert status(heard) == 400 and world.asked == []


async def test_a_request_without_host_is_refused(world):
    _, served, place = await plain(world)
    assert status(await served.say(f"GET {place}/ HTTP/1.1\r\n\r\n".encode())) == 400


async def test_a_get_with_a_body_is_refused(world):
    _, served, place = await plain(world)
    heard = await served.say(ask(place, "/", "Content-Length: 3", body=b"abc"))
    assert status(heard) == 400 and world.asked == []
