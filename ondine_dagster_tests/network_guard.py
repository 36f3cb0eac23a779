"""Turns every attempt of this process to leave the machine into an error.

A test that reached a real provider would cost money. The guard listens to Python's own audit
events, so it sees every library and thread that uses Python's sockets (aiohttp, urllib, requests).
It does not see child processes.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Any


class NetworkUseError(Exception):
    """A test tried to reach another machine. No OSError, so that nobody retries it."""


class NetworkGuard:
    """Refuses connections and look-ups that leave the machine while `active`."""

    def __init__(self) -> None:
        # not of the module, which is emptied before the last events of a process
        self._heard = frozenset({"socket.connect", "socket.sendto", "socket.getaddrinfo"})
        self.active = False
        self.refused: list[str] = []

    def install(self) -> None:
        """Start to listen. Python has no way to stop: `active` switches the guard off."""
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        # called for every import, opened file and frame that is looked at: the set goes first
        if event not in self._heard or not self.active:
            return
        if event == "socket.getaddrinfo":
            target = args[0]
            allowed = target is None or is_loopback(target)
        else:
            target = args[1]
            allowed = not isinstance(target, tuple) or is_loopback(target[0])
        if not allowed:
            self._refuse(target)

    def _refuse(self, target: object) -> None:
        message = (
            f"A test tried to reach {target!r}. Tests stay on this machine: use the simulator, "
            "or give the code under test a loopback address."
        )
        self.refused.append(message)
        raise NetworkUseError(message)


def is_loopback(host: str | bytes) -> bool:
    """Return whether `host` (a name or an address) is this machine."""
    name = host.decode() if isinstance(host, bytes) else host
    if name.lower() in ("localhost", ""):
        return True
    try:
        address = ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
