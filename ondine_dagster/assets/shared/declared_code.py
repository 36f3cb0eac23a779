"""Code of the user's own that a declaration names: what reads answers, and an observer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ondine_dagster.engine.events import Observer
from ondine_dagster.errors import OndineError
from ondine_dagster.llm.own_code import load
from ondine_dagster.spec import Dataset, Output, format_errors
from ondine_dagster.spec.checks import refuse_strange_checks

ObserverClass = Callable[[], Observer]


def answer_code(output: Output, folders: Iterable[Path]) -> Any:
    """Return the model or the function that `output` names, None where it names none.

    Raises OndineError where it is not there, or cannot be called.
    """
    if output.model is not None:
        setting, path, what = "output.model", output.model, "class"
    elif output.function is not None:
        setting, path, what = "output.function", output.function, "function"
    else:
        return None
    found = load(setting, path, folders, what)
    if not callable(found):
        raise OndineError(f"{setting}: {path} is no {what}, it cannot be called")
    if output.function is not None:
        _refuse_strange_calls(setting, path, found)
    return found


def _refuse_strange_calls(setting: str, path: str, function: Callable[..., Any]) -> None:
    """Refuse a function that would fail for every answer, before one is paid."""
    if inspect.iscoroutinefunction(function):
        raise OndineError(f"{setting}: {path} is async; write it as a plain function (def)")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of a few that are written in C
        return
    try:
        signature.bind("")
    except TypeError as error:
        raise OndineError(
            f"{setting}: {path} is called with the text of an answer and nothing else, and takes "
            f"{signature}: {error}"
        ) from None


def with_fields_of(model: Any, dataset: Dataset) -> Dataset:
    """Return the declaration with the fields of the model that it names, as if it declared them.

    Raises OndineError for what no provider can be asked for, and where the checks do not fit.
    """
    path = dataset.output.model
    if path is None:
        return dataset
    from ondine_dagster.llm.pydantic_model import fields_of

    try:
        output = dataset.output.with_fields(fields_of(model, path))
        refuse_strange_checks(dataset.checks, output)
    except ValidationError as error:
        told = "; ".join(problem.message for problem in format_errors(error))
        raise OndineError(f"output.model {path}: {told}") from None
    return dataset.model_copy(update={"output": output})


def observer_class(setting: str, path: str, folders: Iterable[Path]) -> ObserverClass:
    """Return the class that `setting` names; raises OndineError where there is none of the kind."""
    found = load(setting, path, folders, "class")
    if not isinstance(found, type):
        raise OndineError(f"{setting}: {path} is no class.")
    if not callable(getattr(found, "on_event", None)):
        raise OndineError(f"{setting}: {path} has no method on_event(self, event).")
    return found
