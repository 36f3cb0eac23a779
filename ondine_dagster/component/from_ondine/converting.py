"""An Ondine configuration as declarations of ours, with a remark on each key that was left out.

Owns what comes last: what our declaration refuses is taken out again, with the reason it gives, so
that what is written is always accepted.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ondine_dagster.component.from_ondine.model import llm_section
from ondine_dagster.component.from_ondine.original import Original, Remark
from ondine_dagster.component.from_ondine.sections import (
    about,
    batching_section,
    condition,
    export_section,
    limits_section,
    output_section,
    prompt_section,
    source_section,
)
from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Dataset, format_errors
from ondine_dagster.spec.problems import Location, dotted

_VARIABLE = re.compile(r"\{\{ env\('\w+'\) \}\}")
_ROUNDS = 100
# our settings whose origin in Ondine has another name, for remarks
_ORIGINS = {
    "when": "dataset.filters",
    "source.csv": "dataset",
    "source.sheet": "dataset.sheet_name",
    "source.path": "dataset.source_path",
    "prompt.template": "prompt.template",
    "prompt.system": "prompt.system_message",
    "prompt.examples": "prompt.few_shot_examples",
    "prompt.clean": "processing.enable_preprocessing",
    "output.pattern": "prompt.regex_patterns",
    "output": "dataset.output_columns",
    "batching": "prompt.batch_size",
    "export": "output.destination_path",
    "limits.requests_per_minute": "processing.rate_limit_rpm",
    "limits.max_attempts": "processing.max_retries",
    "limits.budgets": "processing.max_budget",
    "limits": "processing",
    "llm.name": "llm.model",
    "llm.prices": "llm.input_cost_per_1k_tokens",
    "llm.structured": "llm.instructor_mode",
    "llm.seed": "llm.extra_params.seed",
}


@dataclass(frozen=True, slots=True)
class Converted:
    """One dataset: its attributes, and what is to be said of the configuration it came from."""

    attributes: Mapping[str, Any]
    remarks: tuple[Remark, ...]


def convert_one(
    original: Original, name: str, source: Mapping[str, Any] | None = None
) -> Converted:
    """Return one configuration as a dataset; `source` goes before the one that it names."""
    _current_names(original)
    own_source = source_section(original, name)
    if source is not None:
        original.left_out("dataset.source_path", "the composition says where the rows come from")
    output = output_section(original)
    built: dict[str, Any] = {
        "name": name,
        **about(original),
        "source": dict(source or own_source),
        "when": condition(original),
        "prompt": prompt_section(original),
        "llm": llm_section(original, with_fields="fields" in output),
        "output": output,
        "batching": batching_section(original),
        "limits": limits_section(original),
        "export": export_section(original),
    }
    attributes = {key: value for key, value in built.items() if value not in ({}, None)}
    _take_out_what_is_refused(attributes, original)
    attributes = {key: value for key, value in attributes.items() if value != {}}
    return Converted(attributes, original.all_remarks())


def _current_names(original: Original) -> None:
    """Rename what Ondine's loader renames: `data` with a section `source`."""
    values = original.values
    data = values.get("data")
    if not isinstance(data, Mapping) or not isinstance(values, dict):
        return
    dataset = dict(data)
    declared = dataset.pop("source", None)
    if isinstance(declared, Mapping):
        dataset |= {f"source_{key}": declared[key] for key in ("type", "path") if key in declared}
    original.values = {**{k: v for k, v in values.items() if k != "data"}, "dataset": dataset}


def _take_out_what_is_refused(attributes: dict[str, Any], original: Original) -> None:
    reasons: dict[str | int, str] = {}  # by section, the first
    for _ in range(_ROUNDS):
        try:
            Dataset.model_validate(_stand_ins(attributes))
            return
        except ValidationError as error:
            problem = format_errors(error)[0]  # the others may be gone with it
        location, origin = problem.location, _origin(original, problem.location)
        line = original.line(origin)
        place = f"{original.path}:{line}" if line else str(original.path)
        # what cannot be left out is missing in the end: the reason is why it was taken out
        reason = reasons.setdefault(location[0], f"{place}: {origin}: {problem.message}")
        if not _remove(attributes, location):
            raise OndineError(reason)
        original.refused(origin, problem.message)
    raise OndineError(f"{original.path} could not be turned into a declaration.")


def _remove(attributes: dict[str, Any], location: Location) -> bool:
    """Take the setting out of its section; return whether that could help."""
    held: Any = attributes
    innermost: tuple[dict[str, Any], str] | None = None
    for step in location:
        if isinstance(held, dict) and isinstance(step, str) and step in held:
            innermost, held = (held, step), held[step]
        elif isinstance(held, list) and isinstance(step, int) and step < len(held):
            held = held[step]
        elif step != 0:  # which is also what stands there alone, in the place of a list
            break
    if innermost is None:
        return False
    section, name = innermost
    del section[name]
    return True


def _origin(original: Original, location: Location) -> str:
    """Return the key of Ondine that a setting of ours came from."""
    ours = [dotted(location[:end]) for end in range(len(location), 0, -1)]
    for name in ours:
        if name in _ORIGINS:
            return _ORIGINS[name]
        for section in ("llm", "processing", "dataset"):
            key = f"{section}.{name.rpartition('.')[2]}"
            if original.has(key):
                return key
    return ours[0]


def _stand_ins(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes with values in the place of environment variables."""
    found = copy.deepcopy(dict(attributes))
    for section, key, whole in (
        ("source", "path", "example.csv"),
        ("llm", "base_url", "https://llm.example.com"),
        ("llm", "name", "example"),
    ):
        text = found.get(section, {}).get(key)
        if isinstance(text, str) and _VARIABLE.search(text):
            alone = _VARIABLE.fullmatch(text) or (key == "base_url" and text.startswith("{"))
            found[section][key] = whole if alone else _VARIABLE.sub("example", text)
    return found
