"""Keeps Python's cyclic garbage collector from searching what a run does not make.

Dagster and the libraries round it are a million objects that live as long as the process. To search
them again and again took a quarter of the CPU of a row. While engines run, what was there before
is left out of the search, and young objects are searched less often; memory is freed by reference
counts as ever.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNG_OBJECTS = 10_000
_lock = threading.Lock()
_running = 0
_before = gc.get_threshold()


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Search little for garbage within the block; as before when the last such block has ended."""
    global _running, _before
    with _lock:
        _running += 1
        if _running == 1:
            _before = gc.get_threshold()
            gc.freeze()
            gc.set_threshold(max(_before[0], _YOUNG_OBJECTS) if _before[0] else 0, *_before[1:])
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if _running == 0:
                gc.set_threshold(*_before)
                gc.unfreeze()
