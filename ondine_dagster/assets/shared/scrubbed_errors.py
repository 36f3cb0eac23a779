"""What code of the user's own says when it fails, scrubbed before Dagster records it.

A provider, a function that returns rows, a parser: any of them may quote a row in what it raises,
and Dagster keeps that with the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import dagster as dg

from ondine_dagster.errors import OndineError

_OURS = (OndineError, dg.Failure)  # scrubbed where they are raised: they name partitions as well


class Failed(Exception):
    """Stands for an exception whose text cannot be changed."""


@contextmanager
def scrubbed_errors(scrub: Callable[[str], str]) -> Iterator[None]:
    """Let exceptions leave the block with what they say scrubbed; those before them as well."""
    try:
        yield
    except _OURS:
        raise
    except Exception as error:
        clean = _scrubbed(error, scrub)
        if clean is error:
            raise
        raise clean from clean.__cause__


def _scrubbed(error: BaseException, scrub: Callable[[str], str]) -> BaseException:
    """Return the exception, changed in place, or what stands for it; with all that it came from."""
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in chain:
        chain.append(each)
        each = each.__cause__ or each.__context__
    for one in chain:
        one.args = tuple(scrub(arg) if isinstance(arg, str) else arg for arg in one.args)
        if hasattr(one, "__notes__"):
            one.__notes__ = [scrub(note) for note in one.__notes__]
    for before, one in reversed([*pairwise(chain)]):
        if _says_more(one, scrub):
            before.__cause__ = _stand_in(one, scrub)
    return _stand_in(error, scrub) if _says_more(error, scrub) else error


def _says_more(error: BaseException, scrub: Callable[[str], str]) -> bool:
    return scrub(str(error)) != str(error)


def _stand_in(error: BaseException, scrub: Callable[[str], str]) -> Failed:
    made = Failed(f"{type(error).__name__}: {scrub(str(error))}")
    made.__cause__ = error.__cause__ or error.__context__
    return made.with_traceback(error.__traceback__)
