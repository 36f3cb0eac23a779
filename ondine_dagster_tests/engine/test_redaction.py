"""The transport sends the key that it is told to, and lets none come back."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence

import pytest

from ondine_dagster.engine.redaction import REDACTED, Redactor
from ondine_dagster.engine.transport import Reply, Transport
from ondine_dagster.llm.errors import Failure
from ondine_dagster_tests.engine.raw_server import Peer, RawServer, reply

KEYS = ("sk-canary-0123456789", "sk-canary/two+three==")


def post_with_keys(url: str, key_index: int, keys: Sequence[str] = KEYS) -> Reply | Failure:
    async def main() -> Reply | Failure:
        headers = [{"authorization": f"Bearer {key}"} for key in keys]
        transport = Transport(url, headers, keys, connections=1, seconds=10)
        try:
            return await transport.post(b"{}", key_index)
        finally:
            await transport.aclose()

    return asyncio.run(main())


@pytest.mark.parametrize("key_index", [0, 1])
def test_each_request_has_the_key_that_it_is_sent_under(key_index: int) -> None:
    asked: list[bytes] = []

    def behave(peer: Peer) -> None:
        asked.append(peer.request())
        peer.send(reply(b"{}"))

    with RawServer(behave) as server:
        post_with_keys(server.url, key_index)
    (head,) = (request.lower().split(b"\r\n") for request in asked)
    authorization = [line for line in head if line.startswith(b"authorization")]
    assert authorization == [f"authorization: bearer {KEYS[key_index]}".encode()]


@pytest.mark.behaviour("A-1")
@pytest.mark.parametrize(
    "shown",
    [
        "sk-canary-0123456789",
        "sk-canary/two+three==",
        r"sk-canary\/two+three==",
        r"sk-canary\\\/two+three==",
        r"sk-canary/two\u002Bthree\u003d\u003d",
        "sk-canary%2ftwo%2Bthree%3D%3D",
    ],
)
def test_a_key_that_the_server_repeats_does_not_come_through(shown: str) -> None:
    """Also another key than the one that was sent, also escaped, also in a header."""

    def behave(peer: Peer) -> None:
        peer.request()
        header = f"WWW-Authenticate: Bearer key={shown} is bad"
        body = b'{"error":{"message":"bad key: %s"}}' % shown.encode()
        peer.send(reply(body, header, status="401 Unauthorized"))

    with RawServer(behave) as server:
        result = post_with_keys(server.url, 0)
    assert isinstance(result, Reply)
    assert result.body == b'{"error":{"message":"bad key: ***"}}'
    assert result.headers["www-authenticate"] == "Bearer key=*** is bad"


@pytest.mark.behaviour("A-1")
@pytest.mark.parametrize("before", ["", "a", "shop", ":", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_nor_does_one_within_base64(before: str, encode: Callable[[bytes], bytes]) -> None:
    """At most the characters that hold what stands beside it too are left."""
    for key in KEYS:
        left = Redactor([key.encode()])(encode(f"{before}{key}!".encode()))
        assert len(left) <= len(before) * 2 + 10, left
        assert REDACTED in left


@pytest.mark.behaviour("A-1")
def test_a_value_with_a_scheme_is_found_without_it() -> None:
    """A gateway's header may be `Bearer ...`, and its errors name what follows."""
    redact = Redactor([b"Bearer gw-canary-0123456789", b"two short"])
    assert redact(b"no token gw-canary-0123456789 here") == b"no token *** here"
    assert redact(b"Bearer gw-canary-0123456789, short") == b"***, short"


@pytest.mark.behaviour("A-1")
@pytest.mark.parametrize(
    "rest",
    [
        b"HTTP/1.1 sk-canary-0123456789\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nsk-canary-0123456789\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"sk-canary-0123456789" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: sk-canary-0123456789",
        b"HTTP/1.1 200 OK\r\nX: sk-canary-012",
        b"HTTP/1.1 200 OK\r\nX: sk-canary-0123456789\r\nContent-Length: 9\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsk-canary-0123456789\r\n",
    ],
)
def test_no_failure_quotes_what_the_server_sent(rest: bytes) -> None:
    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(rest)

    with RawServer(behave) as server:
        result = post_with_keys(server.url, 0)
    assert isinstance(result, Failure)
    assert "canary" not in result.message


def test_what_only_looks_a_little_like_a_key_stays() -> None:
    body = b'{"a":"sk-canary-012345678, sk-canary/two three==, key"}'

    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(reply(body))

    with RawServer(behave) as server:
        result = post_with_keys(server.url, 0, [*KEYS, "key"])
    assert isinstance(result, Reply)
    assert result.body == body
