"""A file of Ondine's as datasets: one, or one for each column of a composition."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ondine_dagster.component.from_ondine.converting import Converted, convert_one
from ondine_dagster.component.from_ondine.original import Original, read_original, with_variables
from ondine_dagster.errors import OndineError


def convert(path: Path, name: str) -> list[Converted]:
    """Return the datasets that an Ondine file describes: one, or one per step of a composition.

    Raises:
        OndineError: the file cannot be read, or lacks what no dataset can be without.
    """
    original = read_original(path)
    if original.has("composition"):
        return _composition(original, name)
    return [convert_one(original, name)]


def _composition(original: Original, name: str) -> list[Converted]:
    """Return one dataset per column, each of which reads the results of the one before.

    So the last one has all columns, as Ondine's table has in the end.

    Raises:
        OndineError: a file is missing, or steps need one another.
    """
    path = original.path
    table = with_variables(original.take("composition.input"))
    steps = original.take("composition.pipelines", [])
    if not table or not steps or not isinstance(steps, list):
        raise OndineError(f"{path}: a composition needs `input` and `pipelines`.")
    converted: list[Converted] = []
    for step in _in_order(steps, path):
        converted.append(_step(step, path, name, table, converted[-1] if converted else None))
    if len(converted) > 1:
        original.means(
            "composition.pipelines",
            "each dataset reads the results of the one before: a row that one rejects is not asked "
            "by those after it",
        )
    first, *others = converted
    remarks = (*original.all_remarks(), *first.remarks)
    return [Converted(first.attributes, remarks), *others]


def _step(
    step: Mapping[str, Any], path: Path, name: str, table: str, before: Converted | None
) -> Converted:
    config = Path(str(step["config"]))
    file = next((one for one in (path.parent / config, config) if one.exists()), config)
    original = read_original(file)
    called = re.sub("[^a-z0-9]+", "_", str(step["column"]).lower()).strip("_")
    if before is not None:
        source: dict[str, Any] = {"dataset": before.attributes["name"]}
    else:
        source = {"path": table}
    return convert_one(original, f"{name}_{called}", source)


def _in_order(steps: Sequence[Any], path: Path) -> list[Mapping[str, Any]]:
    """Return the steps so that each comes after those that it depends on."""
    for number, step in enumerate(steps):
        if not isinstance(step, Mapping) or not {"column", "config"} <= step.keys():
            text = f"composition.pipelines[{number}] needs `column` and `config`"
            raise OndineError(f"{path}: {text}.")
    waiting = list(steps)
    ordered: list[Mapping[str, Any]] = []
    there: set[str] = set()
    while waiting:
        ready = [step for step in waiting if set(step.get("depends_on") or ()) <= there]
        if not ready:
            names = ", ".join(str(step["column"]) for step in waiting)
            raise OndineError(
                f"{path}: in composition.pipelines these depend on one another, or on columns that "
                f"no step makes: {names}."
            )
        ordered.append(ready[0])
        there.add(ready[0]["column"])
        waiting.remove(ready[0])
    return ordered
