"""Observers of the user's own: told of what happens in a run, and unable to change it.

One may be declared, and the environment may name one for all datasets. Each is called in a thread
of its own. One that raises or hangs is reported once, when the run ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ondine_dagster.assets.shared.declared_code import ObserverClass, observer_class
from ondine_dagster.engine.events import Event, Observer
from ondine_dagster.errors import OndineError
from ondine_dagster.observe.relay import Relay, Undelivered
from ondine_dagster.settings import OBSERVER
from ondine_dagster.spec.providers import is_import_path
from ondine_dagster.wording import plural

if TYPE_CHECKING:
    from ondine_dagster.assets.shared.pipeline import Pipeline

_EXAMPLE = "my_module:MyObserver"


def observers_of(pipeline: Pipeline) -> list[Observer]:
    """Return the observer that is declared, and the one that the environment names.

    One that both name is returned once. Raises OndineError for a variable that names none, and
    where one cannot be made.
    """
    classes: dict[ObserverClass, str] = {}
    if pipeline.observer is not None:
        classes[pipeline.observer] = f"{pipeline.declared_in}: observer"
    path = pipeline.settings().variable(OBSERVER)
    if path is not None:
        if not is_import_path(path):
            raise OndineError(
                f"{OBSERVER} is {path!r}; it must be module and class, as {_EXAMPLE}."
            )
        classes.setdefault(observer_class(OBSERVER, path, pipeline.folders), OBSERVER)
    return [_made(setting, one) for one, setting in classes.items()]


def _made(setting: str, wanted: ObserverClass) -> Observer:
    try:
        return wanted()
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {error}"
        name = getattr(wanted, "__qualname__", wanted)
        raise OndineError(f"{setting}: {name}() cannot be made: {problem}") from error


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
        said = str(lost.error)
        first = f"{type(lost.error).__name__}{': ' * bool(said)}{said}"
        problems.append(f"raised at {plural(lost.errors, 'event')}, first {first}")
    if missing := lost.dropped + lost.left:
        problems.append(f"is too slow: {missing:,} events did not reach it")
    return problems
