"""Ctrl-C and SIGTERM: the first lets what is in flight end, the second ends at once.

Dagster replaces the handlers of both signals while it executes, and raises an exception of its own
in the main thread that does not say which signal it was. The wake-up descriptor hears every signal
whoever handles it, so that the exit code is right and a second signal is never swallowed.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The person, or the machine, wants this process to end. Not an error, so no Exception."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Interrupts:
    """What was heard so far."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._heard = threading.Event()

    def hear(self, signum: int) -> bool:
        """Note a signal; return whether it is the first."""
        if self.signum is not None:
            return False
        self.signum = signum
        self._heard.set()
        return True

    def raise_if_heard(self, wait_seconds: float = 0) -> None:
        """Raise Interrupted where a signal was heard that Dagster turned into something else.

        The main thread can be faster than the one that listens: `wait_seconds` gives it time.
        """
        if self._heard.wait(wait_seconds) and self.signum is not None:
            raise Interrupted(self.signum)


@contextmanager
def listening(on_first: Callable[[], None], on_second: Callable[[], None]) -> Iterator[Interrupts]:
    """Listen for both signals within the block; only the main thread can.

    The first signal raises Interrupted in the main thread (inside of a Dagster step: Dagster's own
    exception) after which `on_first` may say what happens now. The second one calls `on_second`
    and ends the process.
    """
    # it passes an interrupt on that meets the closing of a connection, but prints it first
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    interrupts = Interrupts()
    hear, tell = socket.socketpair()
    tell.setblocking(False)
    arguments = (hear, interrupts, on_first, on_second)
    listener = threading.Thread(target=_listen, args=arguments, name="interrupts", daemon=True)
    listener.start()
    previous = {one: signal.signal(one, _interrupt) for one in SIGNALS}
    descriptor = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    try:
        yield interrupts
    finally:
        signal.set_wakeup_fd(descriptor)
        for one, handler in previous.items():
            signal.signal(one, handler)
        tell.close()
        listener.join()
        hear.close()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise Interrupted(signum)


def _listen(
    hear: socket.socket,
    interrupts: Interrupts,
    on_first: Callable[[], None],
    on_second: Callable[[], None],
) -> None:
    while heard := hear.recv(1):
        signum = heard[0]
        if signum not in SIGNALS:
            continue
        if interrupts.hear(signum):
            on_first()
        else:
            on_second()
            os._exit(128 + signum)
