"""HTTP: one factory, and the evidence of what happened to a request.

httpx types sent straight through the aiohttp transport (a third of the CPU of `httpx.AsyncClient`).
Redirects are never followed, cookies never kept. No cancellation and no `wait_for` round a request:
the timeouts are the transport's own, and the body is read against a deadline.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import cache

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence, Failure

CONNECT_SECONDS = 10.0
# shorter than the keep-alive of common servers (5 s): a connection that the server is just
# closing takes the request with it, and nobody knows whether it was billed
KEEP_ALIVE_SECONDS = 4.0
MAX_BODY_BYTES = 32 * 2**20
_SHORTEST_KEY = 8  # bytes; a shorter "key" is no secret, and would be found in innocent words


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete reply. `headers` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Posts bodies to one URL. Belongs to one event loop; close it there."""

    def __init__(self, url: str, headers: Mapping[str, str], *, connections: int, seconds: float):
        """`seconds` is the deadline of a whole request; `connections` bounds the pool."""
        self._seconds = seconds
        key = headers.get("authorization", "").removeprefix("Bearer ").encode()
        self._key = key if len(key) >= _SHORTEST_KEY else b""
        timeouts = {"connect": min(CONNECT_SECONDS, seconds), "read": seconds, "pool": seconds}
        # a reply is a kilobyte: to unpack it would cost more than to receive it
        plain = {"accept-encoding": "identity", **headers}
        self._model = httpx.Request("POST", url, headers=plain, extensions={"timeout": timeouts})
        del self._model.headers["content-length"]  # aiohttp knows it
        tls = _tls()
        self._transport = AiohttpTransport(verify=tls, client=lambda: _session(connections, tls))

    async def post(self, body: bytes) -> Reply | Failure:
        """Send `body` and return the complete reply, or a failure with its evidence."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        try:
            response = await self._transport.handle_async_request(_Post(self._model, body))
            try:
                return await self._read(response, deadline)
            finally:
                await response.aclose()
        except (httpx.TransportError, httpx.DecodingError, aiohttp.ClientError) as error:
            return self._failure(error)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _read(self, response: httpx.Response, deadline: float) -> Reply | Failure:
        clock = asyncio.get_running_loop().time
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in response.headers.raw
        }
        chunks: list[bytes] = []
        size = 0
        async for chunk in _chunks(response, headers):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                return _unknown(ErrorCode.BODY_CUT_OFF, f"the reply passed {MAX_BODY_BYTES} bytes")
            # late but whole is paid all the same: keep it
            if clock() > deadline and headers.get("content-length") != str(size):
                return self._timeout()
        return Reply(response.status_code, headers, self._without_key(b"".join(chunks)))

    def _without_key(self, body: bytes) -> bytes:
        """Some servers repeat the key in their complaint; from here on it would be stored."""
        return body.replace(self._key, b"***") if self._key and self._key in body else body

    def _failure(self, error: Exception) -> Failure:
        # the transport maps every lost connection to ConnectTimeout: only the cause tells whether
        # bytes may have left
        cause = error.__cause__ or error
        shown = f"{type(cause).__name__}: {cause}"
        if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            message = (
                f"no connection to {self._model.url.netloc.decode()} ({shown}). Is the server of "
                "llm.base_url running?"
            )
            return Failure(
                ErrorClass.TRANSIENT, ErrorCode.CONNECT_FAILED, message, Evidence.NOT_SENT
            )
        if isinstance(cause, aiohttp.ServerTimeoutError):
            return self._timeout()
        if isinstance(error, httpx.DecodingError) or isinstance(cause, aiohttp.ClientPayloadError):
            return _unknown(ErrorCode.BODY_CUT_OFF, f"the reply was cut off: {shown}")
        return _unknown(ErrorCode.CONNECTION_LOST, f"the connection was lost: {shown}")

    def _timeout(self) -> Failure:
        return _unknown(ErrorCode.TIMEOUT, f"no complete reply within {self._seconds:g} s")


class _Post(httpx.Request):
    """A request that shares address and headers with all others.

    To build them anew for each would take a third of the CPU that a request costs.
    """

    def __init__(self, model: httpx.Request, body: bytes) -> None:
        self.method = model.method
        self.url = model.url
        self.headers = model.headers
        self.extensions = model.extensions
        self._body = body

    @property
    def content(self) -> bytes:
        return self._body


async def _chunks(response: httpx.Response, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    if headers.get("content-encoding", "identity") != "identity":  # though we did not ask for it
        async for chunk in response.aiter_bytes():
            yield chunk
    else:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for chunk in response.stream:
            yield chunk


def _unknown(code: ErrorCode, message: str) -> Failure:
    return Failure(ErrorClass.TRANSIENT, code, message, Evidence.UNKNOWN)


@cache
def _tls() -> ssl.SSLContext:
    """Return httpx's context (certifi, SSL_CERT_FILE), made once: it takes 20 ms."""
    return httpx.create_ssl_context()


def _session(connections: int, tls: ssl.SSLContext) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        limit=connections, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=tls
    )
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
