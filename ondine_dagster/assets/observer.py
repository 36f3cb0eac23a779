"""An observer of the user's own: told of what happens in a run, and unable to change it.

It is called in a thread of its own. One that raises or hangs is reported once, when the run ends.
"""

from __future__ import annotations

from collections.abc import Callable

from ondine_dagster.assets.pipeline import Pipeline
from ondine_dagster.engine.events import Event, Observer
from ondine_dagster.errors import OndineError
from ondine_dagster.llm.own_code import load
from ondine_dagster.observe.relay import Relay, Undelivered
from ondine_dagster.settings import OBSERVER

_EXAMPLE = "my_module:MyObserver"


def observer_of(pipeline: Pipeline) -> Observer | None:
    """Return the observer that the environment names, None where it names none.

    Raises OndineError where there is none of that name, or it cannot be made or told anything.
    """
    path = pipeline.settings().variable(OBSERVER)
    if path is None:
        return None
    if not all(path.partition(":")):
        raise OndineError(f"{OBSERVER} is {path!r}; it must be module and class, as {_EXAMPLE}.")
    folders = (pipeline.declared_in.parent, pipeline.project_root)
    made = load(OBSERVER, path, folders, "class")
    try:
        found = made()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        raise OndineError(f"{OBSERVER}: {path}() cannot be made: {problem}") from error
    if not callable(getattr(found, "on_event", None)):
        raise OndineError(f"{OBSERVER}: {path} has no method on_event(self, event).")
    assert isinstance(found, Observer)
    return found


class Observing:
    """Tells one observer of one run."""

    def __init__(self, observer: Observer) -> None:
        self._name = type(observer).__qualname__
        self._relay = Relay[Event](observer.on_event, "observer")
        self.tell: Callable[[Event], None] = self._relay.put

    def close(self, seconds: float) -> str | None:
        """Wait up to so many seconds for it; return what a person should know, None if nothing."""
        lost = self._relay.close(seconds)
        problems = list(_problems(lost))
        return f"the observer {self._name} {' and '.join(problems)}" if problems else None


def _problems(lost: Undelivered) -> list[str]:
    problems = []
    if lost.error is not None:
        first = f"{type(lost.error).__name__}: {lost.error}"
        problems.append(f"raised {lost.errors:,} times, first {first}")
    if missing := lost.dropped + lost.left:
        problems.append(f"is too slow: {missing:,} events did not reach it")
    return problems
