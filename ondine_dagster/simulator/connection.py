"""One client connection as the operating system sees it.

Owns what ASGI cannot express: a real TCP reset, a half-close, bytes that are no valid HTTP reply,
and the moment when a client is gone. The connection is found in `scope["state"]["connection"]`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from ondine_dagster.simulator.bill import Bill

_LINGER_ZERO = struct.pack("ii", 1, 0)

Receive = Callable[[], Awaitable[Any]]


class Connection:
    """A TCP connection of a client, and whether a chat request is in flight on it."""

    def __init__(self, bill: Bill) -> None:
        self._bill = bill
        self._transport: asyncio.Transport | None = None
        self._used = False
        self._busy = False

    def opened(self, transport: asyncio.Transport) -> None:
        """Remember the transport of the connection."""
        self._transport = transport

    @property
    def transport(self) -> asyncio.Transport:
        """The transport of the opened connection."""
        assert self._transport is not None
        return self._transport

    @property
    def gone(self) -> bool:
        """Whether the connection is closed or closing, so that no reply can arrive any more."""
        return self.transport.is_closing()

    def begin(self, sender: str | None) -> int:
        """A chat request has arrived; return which one of its sender it is, from 1."""
        if not self._used:
            self._used = True
            self._bill.connected()
        self._busy = True
        return self._bill.arrived(sender)

    def finish(self) -> None:
        """The chat request, if there is one, is over. May be called again."""
        if self._busy:
            self._busy = False
            self._bill.left()

    def reset(self) -> None:
        """Drop the connection with a TCP RST: closing with a linger time of zero sends one."""
        handle = self.transport.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(handle)) as same_connection:
            same_connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        self.finish()
        self.transport.abort()

    def half_close(self) -> None:
        """Send FIN and go on reading, as a server does that shuts down its sending side."""
        self.finish()
        self.transport.write_eof()

    def write(self, data: bytes) -> None:
        """Send bytes as they are, past HTTP."""
        self.transport.write(data)

    def close(self) -> None:
        """Close in good order after what was written has been sent."""
        self.finish()
        self.transport.close()


async def until_gone(receive: Receive) -> None:
    """Wait until the client or the server has closed the connection.

    The HTTP protocol must learn of the end before the application returns, or it would answer a
    request that got no reply with a 500 of its own.
    """
    while (await receive())["type"] != "http.disconnect":
        pass


def tracked_protocol(base: type[asyncio.Protocol], bill: Bill) -> type[asyncio.Protocol]:
    """Return `base`, one of uvicorn's HTTP protocols, with a Connection in each request's state."""

    class TrackedProtocol(base):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.tracked = Connection(bill)
            self.app_state: dict[str, Any] = {**self.app_state, "connection": self.tracked}

        def connection_made(self, transport: asyncio.Transport) -> None:
            self.tracked.opened(transport)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            self.tracked.finish()
            super().connection_lost(exc)

    return TrackedProtocol
