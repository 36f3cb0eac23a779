"""Who is who: digests of what decides an answer, the answer key, and ids.

Frozen: a change here would pay every answer again. The golden vectors in the tests guard it; a new
way of keying has to be made of the old keys, as `keyed` is, so that those can be brought over.
"""

from __future__ import annotations

import hmac
import json
import os
import threading
import time
from datetime import datetime
from hashlib import sha256
from typing import Any

KEY_VERSION = 1  # plain hashes
KEYED_VERSION = 2  # of these, an HMAC under the secret of a ledger


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces; whole floats are written as integers.

    Raises ValueError for NaN and Infinity.
    """
    return json.dumps(
        _whole_floats(value),
        ensure_ascii=False,
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )


def _whole_floats(value: Any) -> Any:
    """Return `value` with 0.0 as 0: the same setting must have the same digest."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole_floats(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole_floats(item) for item in value]
    return value


def digest(value: Any) -> bytes:
    """Return sha256 over the canonical JSON of `value` (32 bytes)."""
    return sha256(canonical_json(value).encode()).digest()


def text_digest(canonical: str) -> bytes:
    """Return the digest of text that is canonical JSON already."""
    return sha256(canonical.encode()).digest()


def answer_key(
    messages: bytes,
    model: bytes,
    sampling: bytes,
    wire_schema: bytes,
    sample: int = 0,
    secret: bytes | None = None,
) -> bytes:
    """Return the identity of a question (32 bytes) from the four digests of what decides it.

    Sha256 over the canonical JSON of the digests in hex, `keyed` where the ledger has a secret. Not
    in it: address, key, partition, position, run, ceilings, timeouts and everything local.
    """
    key = sha256(
        f'{{"key_version":{KEY_VERSION},"messages":"{messages.hex()}","model":"{model.hex()}",'
        f'"sample":{sample},"sampling":"{sampling.hex()}","schema":"{wire_schema.hex()}"}}'.encode()
    ).digest()
    return key if secret is None else keyed(key, secret)


def keyed(hashed: bytes, secret: bytes) -> bytes:
    """Return a key or digest (32 bytes) that says nothing to who does not have the secret.

    HMAC with sha256 (RFC 2104). Made of the plain hash, so that old keys can be brought over.
    """
    return hmac.digest(secret, b'{"key_version":%d}' % KEYED_VERSION + hashed, "sha256")


def id_at(milliseconds: int) -> bytes:
    """Return the id before all that are made from this time on (ms since the epoch)."""
    return (milliseconds << 80).to_bytes(16, "big")


class _Ids:
    """Makes 16-byte ids that sort by time; unique across processes by 80 random bits.

    Within a millisecond, and while the clock is set back, it counts on.
    """

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Forget the last id: a forked child that counted on would make its parent's ids."""
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> bytes:
        with self._lock:
            now = time.time_ns() // 1_000_000
            if now > self._last >> 80:
                self._last = now << 80 | int.from_bytes(os.urandom(10), "big")
            else:
                self._last += 1
            return self._last.to_bytes(16, "big")


_ids = _Ids()
os.register_at_fork(after_in_child=_ids.start_anew)
new_id = _ids.next


def first_id(moment: datetime) -> bytes:
    """Return an id that sorts before all that are made from `moment` on."""
    return (int(moment.timestamp() * 1000) << 80).to_bytes(16, "big")
