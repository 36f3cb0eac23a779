"""A server that costs next to nothing: every request gets the same good completion.

For measurements of the client alone, where the simulator (which reads, prices and bills each
request) would take the CPU that is to be measured.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import cast

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "demo-model",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": '{"sentiment":"positive","score":7}'},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 60, "completion_tokens": 10, "total_tokens": 70},
}
_BODY = json.dumps(_COMPLETION).encode()
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_REPLY = _HEAD % len(_BODY) + _BODY


@dataclass
class Quick:
    """A running server; `cpu` are the seconds of CPU that it used, known when it has ended."""

    base_url: str
    cpu: float = 0.0


@contextmanager
def quick_server(latency_ms: float = 0) -> Iterator[Quick]:
    """Serve from a process of its own, each request after `latency_ms`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, latency_ms), daemon=True)
    process.start()
    server = Quick(f"http://127.0.0.1:{ours.recv()}/v1")
    try:
        yield server
    finally:
        ours.send(None)
        server.cpu = ours.recv()
        process.join()


class _Protocol(asyncio.Protocol):
    """One connection; its requests come one after the other."""

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # of uvloop: no subclass

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        length = _LENGTH.search(self._received) if head >= 0 else None
        if length is None or len(self._received) < head + 4 + int(length[1]):
            return
        self._received = b""
        if self._latency:
            asyncio.get_running_loop().call_later(self._latency, self._transport.write, _REPLY)
        else:
            self._transport.write(_REPLY)


def _serve(pipe: Connection, latency_ms: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: whoever started it ends it
    try:
        import uvloop

        uvloop.run(_main(pipe, latency_ms))
    except ImportError:
        asyncio.run(_main(pipe, latency_ms))


async def _main(pipe: Connection, latency_ms: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Protocol(latency_ms / 1000), "127.0.0.1", 0, backlog=4096
    )
    pipe.send(server.sockets[0].getsockname()[1])
    cpu = time.process_time()
    await asyncio.to_thread(pipe.recv)
    pipe.send(time.process_time() - cpu)
