"""`ondine-dagster` that dies at a chosen instant. The hook is here; the product knows nothing.

Not imported by tests: a process of its own runs it. KILL_WHERE says between which two steps,
KILL_CALL at which request:

- `before send`: the reservation is durable, no byte has left;
- `before settle`: the answer is there, nobody has written it down;
- `after commit`: a group is written down, nobody has heard of it yet.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from ondine_dagster.cli.main import main
from ondine_dagster.engine.ledger_client import LedgerClient
from ondine_dagster.engine.transport import Transport
from ondine_dagster.ledger.writer import Writer

_calls = itertools.count(1)
_fatal = int(os.environ["KILL_CALL"])


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def _dying_before(owner: type, name: str) -> None:
    inner: Callable[..., Any] = getattr(owner, name)

    async def outer(self: Any, *arguments: Any) -> Any:
        if next(_calls) == _fatal:
            _die()
        return await inner(self, *arguments)

    setattr(owner, name, outer)


def _dying_after(owner: type, name: str) -> None:
    inner: Callable[..., Any] = getattr(owner, name)

    def outer(self: Any, *arguments: Any) -> Any:
        result = inner(self, *arguments)
        if next(_calls) == _fatal:
            _die()
        return result

    setattr(owner, name, outer)


if __name__ == "__main__":
    where = os.environ["KILL_WHERE"]
    if where == "before send":
        _dying_before(Transport, "post")
    elif where == "before settle":
        _dying_before(LedgerClient, "settle")
    elif where == "after commit":
        _dying_after(Writer, "_commit")
    else:
        raise ValueError(where)
    main()
