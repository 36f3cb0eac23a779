"""What the transport makes of everything that a socket can do to a request."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Callable
from contextlib import suppress

import pytest

from ondine_dagster.engine import transport as module
from ondine_dagster.engine.engine import _new_loop
from ondine_dagster.engine.transport import Reply, Transport
from ondine_dagster.llm.errors import ErrorCode, Evidence, Failure
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.engine.conftest import LoopFactory
from ondine_dagster_tests.engine.raw_server import Peer, RawServer, reply

GOOD = b'{"model":"m","messages":[{"role":"user","content":"[[token=T]]"}]}'


def post(
    url: str, new_loop: LoopFactory = _new_loop, body: bytes = GOOD, seconds: float = 10
) -> Reply | Failure:
    async def main() -> Reply | Failure:
        headers = [{"authorization": "Bearer k"}]
        transport = Transport(url, headers, connections=2, seconds=seconds)
        try:
            return await transport.post(body)
        finally:
            await transport.aclose()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main())


def post_once_more(
    behave: Callable[[Peer], None], new_loop: LoopFactory = _new_loop, body: bytes = GOOD
) -> Reply | Failure:
    """Post within 0.3 s on a connection that is open: how long that took does not count."""

    def answer_first(peer: Peer) -> None:
        peer.request()
        peer.send(reply(b"{}"))
        behave(peer)

    async def main(url: str) -> Reply | Failure:
        transport = Transport(url, [{}], connections=1, seconds=0.3)
        try:
            while not isinstance(await transport.post(GOOD), Reply):
                pass
            return await transport.post(body)
        finally:
            await transport.aclose()

    with RawServer(answer_first) as server, asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main(server.url))


def failure(result: Reply | Failure) -> tuple[ErrorCode, Evidence]:
    assert isinstance(result, Failure), result
    assert result.retryable
    return result.code, result.evidence


def chat_url(simulator: Simulator) -> str:
    return f"{simulator.base_url}/chat/completions"


def marked(fault: str) -> bytes:
    return GOOD.replace(b"[[token=T]]", f"[[fault={fault}]]".encode())


# nothing left


def test_a_refused_connection_is_free(new_loop: LoopFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = post(f"http://127.0.0.1:{port}/v1", new_loop)
    assert failure(result) == (ErrorCode.CONNECT_FAILED, Evidence.NOT_SENT)
    assert f"127.0.0.1:{port}" in result.message  # type: ignore[union-attr]


def test_a_connection_that_nobody_accepts_is_free(new_loop: LoopFactory) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        waiting = []
        for _ in range(8):  # fill the backlog: further SYNs are dropped
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(address)
            waiting.append(client)
        result = post(f"http://127.0.0.1:{address[1]}/v1", new_loop, seconds=0.3)
        for client in waiting:
            client.close()
    assert failure(result) == (ErrorCode.CONNECT_FAILED, Evidence.NOT_SENT)


def test_a_failed_tls_handshake_is_free(new_loop: LoopFactory) -> None:
    def behave(peer: Peer) -> None:
        peer.connection.recv(65536)
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with RawServer(behave) as server:
        result = post(f"https://{server.address}/v1", new_loop)
    assert failure(result) == (ErrorCode.CONNECT_FAILED, Evidence.NOT_SENT)


# something may have left


def test_a_reset_on_accept_is_unknown_or_free(new_loop: LoopFactory) -> None:
    with RawServer(Peer.reset) as server:
        result = post(server.url, new_loop)
    assert failure(result) in (  # by whether the reset is noticed before anything was written
        (ErrorCode.CONNECTION_LOST, Evidence.UNKNOWN),
        (ErrorCode.CONNECT_FAILED, Evidence.NOT_SENT),
    )


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "half_close"])
def test_a_lost_connection_is_unknown(
    simulator: Simulator, new_loop: LoopFactory, fault: str
) -> None:
    result = post(chat_url(simulator), new_loop, marked(fault))
    assert failure(result) == (ErrorCode.CONNECTION_LOST, Evidence.UNKNOWN)
    assert simulator.bill.totals.requests == 1  # nothing repeats by itself


def test_a_cut_off_body_is_unknown(simulator: Simulator, new_loop: LoopFactory) -> None:
    result = post(chat_url(simulator), new_loop, marked("truncated"))
    assert failure(result) == (ErrorCode.BODY_CUT_OFF, Evidence.UNKNOWN)


def test_a_chunked_body_without_its_end_is_unknown(new_loop: LoopFactory) -> None:
    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n')

    with RawServer(behave) as server:
        result = post(server.url, new_loop)
    assert failure(result) == (ErrorCode.BODY_CUT_OFF, Evidence.UNKNOWN)


@pytest.mark.behaviour("P-12", "A-16")
@pytest.mark.parametrize("fault", ["stall", "stall_in_body"])
def test_silence_ends_as_a_timeout_that_names_the_seconds(
    simulator: Simulator, new_loop: LoopFactory, fault: str
) -> None:
    result = post(chat_url(simulator), new_loop, marked(fault), seconds=1)
    assert failure(result) == (ErrorCode.TIMEOUT, Evidence.UNKNOWN)
    assert "within 1 s" in result.message  # type: ignore[union-attr]


@pytest.mark.behaviour("A-16")
@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-", b""),
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"y"),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
    ],
    ids=["silence-in-head", "one-header", "many-headers", "not-yet", "body"],
)
def test_a_reply_that_takes_too_long_is_a_timeout(
    head: bytes, drop: bytes, new_loop: LoopFactory
) -> None:
    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(head)
        for _ in range(200):
            if peer.leaving.wait(0.05):
                return
            peer.send(drop)

    result = post_once_more(behave, new_loop)
    assert failure(result) == (ErrorCode.TIMEOUT, Evidence.UNKNOWN)


@pytest.mark.behaviour("A-16")
@pytest.mark.filterwarnings("ignore:Sending a large body")
def test_a_server_that_reads_no_request_is_a_timeout(new_loop: LoopFactory) -> None:
    result = post_once_more(Peer.wait_for_the_end, new_loop, b"x" * 20_000_000)
    assert failure(result) == (ErrorCode.TIMEOUT, Evidence.UNKNOWN)


def test_a_whole_reply_is_kept_though_it_ends_late() -> None:
    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        for byte in (b"{", b"}"):  # each in time for the read timeout, together past the deadline
            peer.leaving.wait(0.6)
            peer.send(byte)
        peer.wait_for_the_end()

    with RawServer(behave) as server:
        result = post(server.url, seconds=1)
    assert isinstance(result, Reply)
    assert result.body == b"{}"


@pytest.mark.parametrize(
    "junk",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000 + b"\r\n",
    ],
    ids=["no-http", "status", "length", "long-header", "many-headers"],
)
def test_a_reply_that_is_no_http_is_unknown(junk: bytes, new_loop: LoopFactory) -> None:
    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(junk)

    with RawServer(behave) as server:
        result = post(server.url, new_loop)
    assert failure(result) == (ErrorCode.CONNECTION_LOST, Evidence.UNKNOWN)


def test_a_body_larger_than_any_answer_is_not_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 100_000)

    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        with suppress(OSError):  # for ever, unless the client leaves
            while not peer.leaving.is_set():
                peer.send(b" " * 65536)

    with RawServer(behave) as server:
        result = post(server.url)
    assert failure(result) == (ErrorCode.BODY_CUT_OFF, Evidence.UNKNOWN)


# replies


def test_a_reply_comes_whole_with_lower_case_headers(new_loop: LoopFactory) -> None:
    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(reply(b"{}", "Retry-AFTER: 7", "X-Strange: \xe4", status="429 Slow"))

    with RawServer(behave) as server:
        result = post(server.url, new_loop)
    assert isinstance(result, Reply)
    assert (result.status, result.body, result.headers["retry-after"]) == (429, b"{}", "7")


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_a_reply_and_is_not_followed(status: str) -> None:
    asked: list[bytes] = []

    def behave(peer: Peer) -> None:
        asked.append(peer.request())
        peer.send(reply(b"", f"Location: {server.url}/elsewhere", status=status))

    with RawServer(behave) as server:
        result = post(server.url)
    assert isinstance(result, Reply)
    assert result.status == int(status[:3])
    assert len(asked) == 1


def test_a_compressed_reply_is_unpacked_though_none_was_asked_for() -> None:
    asked: list[bytes] = []

    def behave(peer: Peer) -> None:
        asked.append(peer.request())
        peer.send(reply(gzip.compress(b'{"a":1}'), "Content-Encoding: gzip"))

    with RawServer(behave) as server:
        result = post(server.url)
    assert isinstance(result, Reply)
    assert result.body == b'{"a":1}'
    assert b"accept-encoding: identity\r\n" in asked[0].lower()


def test_a_broken_compressed_reply_is_unknown() -> None:
    def behave(peer: Peer) -> None:
        peer.request()
        peer.send(reply(b"no gzip at all", "Content-Encoding: gzip"))

    with RawServer(behave) as server:
        result = post(server.url)
    assert failure(result) == (ErrorCode.BODY_CUT_OFF, Evidence.UNKNOWN)


def test_the_request_is_the_body_with_our_headers_and_no_cookie() -> None:
    asked: list[bytes] = []

    def behave(peer: Peer) -> None:
        for _ in range(2):
            asked.append(peer.request())
            peer.send(reply(b"{}", "Set-Cookie: session=1"))

    async def main(url: str) -> None:
        transport = Transport(url, [{"authorization": "Bearer k"}], connections=1, seconds=10)
        await transport.post(GOOD)
        await transport.post(b"[]")
        await transport.aclose()

    with RawServer(behave) as server:
        asyncio.run(main(server.url))
        assert server.connections == 1
    heads, bodies = zip(*(request.split(b"\r\n\r\n") for request in asked), strict=True)
    assert bodies == (GOOD, b"[]")
    for head, body in zip(heads, bodies, strict=True):
        lines = head.lower().split(b"\r\n")
        assert lines[0] == b"post /v1/chat/completions http/1.1"
        assert b"content-length: %d" % len(body) in lines
        assert b"authorization: bearer k" in lines
        names = {line.split(b":")[0] for line in lines[1:]}
        assert names.isdisjoint({b"cookie", b"transfer-encoding", b"expect"})


def test_a_reply_before_the_body_was_read_is_kept() -> None:
    """As proxies do that refuse a large request."""

    def behave(peer: Peer) -> None:
        peer.connection.recv(1000)
        peer.send(reply(b'{"error":"large"}', "Connection: close", status="413 Too Large"))
        peer.wait_for_the_end()

    with RawServer(behave) as server:
        result = post(server.url, body=b"x" * 1_000_000)
    assert isinstance(result, Reply)
    assert (result.status, result.body) == (413, b'{"error":"large"}')
