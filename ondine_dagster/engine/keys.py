"""The API keys of a run: they take turns, and one that the provider turns away sits out.

Owns the choice of the key. A key is known to people by its place in the variable and by its
fingerprint; its bytes leave an `ApiKey` only into a request's header.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from ondine_dagster.llm.errors import ErrorCode, Failure

_OWN = frozenset({ErrorCode.UNAUTHORIZED, ErrorCode.KEY_BUDGET, ErrorCode.QUOTA_EXHAUSTED})


def benches(failure: Failure) -> bool:
    """Return whether `failure` is the key's own, so that another key may still be served.

    A rate limit never is: providers limit organisations, and more keys get no more of it.
    """
    if failure.code is ErrorCode.PAYMENT_REQUIRED:
        return not failure.retryable  # else the money is only held by requests in flight
    return failure.code in _OWN


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, or the absence of one where none is set; `index` is its place, from 0."""

    secret: SecretStr | None
    fingerprint: bytes | None
    index: int


class KeyRing:
    """Gives out keys in turn. Any thread may take and bench."""

    def __init__(
        self, keys: Sequence[SecretStr], fingerprint: Callable[[SecretStr], bytes]
    ) -> None:
        """`keys` may be empty, for a server that needs none: then one ApiKey without a secret."""
        self.keys: tuple[ApiKey, ...] = tuple(
            ApiKey(key, fingerprint(key), index) for index, key in enumerate(keys)
        ) or (ApiKey(None, None, 0),)
        self._usable = self.keys
        self._turn = 0
        self._benched: dict[int, Failure] = {}
        self._lock = threading.Lock()

    def take(self) -> ApiKey | None:
        """Return the key whose turn it is; None when all are benched (`reasons` says why)."""
        with self._lock:
            if not self._usable:
                return None
            key = self._usable[self._turn % len(self._usable)]
            self._turn += 1
            return key

    def bench(self, key: ApiKey, failure: Failure) -> str | None:
        """Give `key` out no more; return what to say of it, the first time.

        The first reason stands: other requests with the same key were in flight.
        """
        with self._lock:
            if key.index in self._benched:
                return None
            self._benched[key.index] = failure
            self._usable = tuple(one for one in self.keys if one.index not in self._benched)
            return f"{self._name(key)} is set aside: {failure.message}"

    @property
    def left(self) -> int:
        """Return how many keys are given out."""
        return len(self._usable)

    def reasons(self) -> str:
        """Return which keys are benched and why, in their order, without a byte of any key."""
        with self._lock:
            return "; ".join(
                f"{self._name(self.keys[index])}: {failure.message}"
                for index, failure in sorted(self._benched.items())
            )

    def _name(self, key: ApiKey) -> str:
        if key.fingerprint is None:
            return "no key"
        return f"key {key.index + 1} of {len(self.keys)} (fingerprint {key.fingerprint.hex()})"
