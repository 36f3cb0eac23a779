"""HTTP: one factory, and the evidence of what happened to a request.

httpx types sent straight through the aiohttp transport (a third of the CPU of `httpx.AsyncClient`).
Redirects are never followed, cookies never kept. No cancellation and no `wait_for` round a request:
the timeouts are the transport's own, and the body is read against a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence, Failure

CONNECT_SECONDS = 10.0
# shorter than the keep-alive of common servers (5 s): a connection that the server is just
# closing takes the request with it, and nobody knows whether it was billed
KEEP_ALIVE_SECONDS = 4.0
MAX_BODY_BYTES = 32 * 2**20


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
        self._url = httpx.URL(url)
        self._headers = httpx.Headers(dict(headers))
        self._seconds = seconds
        timeouts = {"connect": min(CONNECT_SECONDS, seconds), "read": seconds, "pool": seconds}
        self._extensions = {"timeout": timeouts}
        self._transport = AiohttpTransport(client=lambda: _session(connections))

    async def post(self, body: bytes) -> Reply | Failure:
        """Send `body` and return the complete reply, or a failure with its evidence."""
        deadline = asyncio.get_running_loop().time() + self._seconds
        request = httpx.Request(
            "POST", self._url, headers=self._headers, content=body, extensions=self._extensions
        )
        try:
            response = await self._transport.handle_async_request(request)
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
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_bytes():
            chunks.append(chunk)
            size += len(chunk)
            if clock() > deadline:
                return self._timeout()
            if size > MAX_BODY_BYTES:
                return _unknown(ErrorCode.BODY_CUT_OFF, f"the reply passed {MAX_BODY_BYTES} bytes")
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status_code, headers, b"".join(chunks))

    def _failure(self, error: Exception) -> Failure:
        # the transport maps every lost connection to ConnectTimeout: only the cause tells whether
        # bytes may have left
        cause = error.__cause__ or error
        shown = f"{type(cause).__name__}: {cause}"
        if isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            message = f"no connection to {self._url.netloc.decode()}: {shown}"
            return Failure(
                ErrorClass.TRANSIENT, ErrorCode.CONNECT_FAILED, message, Evidence.NOT_SENT
            )
        if isinstance(cause, aiohttp.ServerTimeoutError):
            return self._timeout()
        if isinstance(cause, aiohttp.ClientPayloadError | httpx.DecodingError):
            return _unknown(ErrorCode.BODY_CUT_OFF, f"the reply was cut off: {shown}")
        return _unknown(ErrorCode.CONNECTION_LOST, f"the connection was lost: {shown}")

    def _timeout(self) -> Failure:
        return _unknown(ErrorCode.TIMEOUT, f"no complete reply within {self._seconds:g} s")


def _unknown(code: ErrorCode, message: str) -> Failure:
    return Failure(ErrorClass.TRANSIENT, code, message, Evidence.UNKNOWN)


def _session(connections: int) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=KEEP_ALIVE_SECONDS)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
