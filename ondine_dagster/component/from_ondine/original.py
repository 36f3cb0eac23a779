"""An Ondine configuration as it is read: which keys were understood, and what is said of others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondine_dagster.component.documents import Document, read_documents
from ondine_dagster.errors import OndineError

_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")

_SECTIONS = {"dataset", "data", "prompt", "llm", "processing", "output", "composition"}


@dataclass(frozen=True, slots=True)
class Remark:
    """What a person should know of one key: why it was left out, or what it means here.

    `line` is the key's in Ondine's file, None for one that is not there.
    """

    path: Path
    line: int | None
    key: str
    text: str
    carried: bool


class Original:
    """One configuration. What is taken is understood."""

    def __init__(self, path: Path, values: Mapping[str, Any], document: Document) -> None:
        self.path = path
        self.values = values
        self.remarks: list[Remark] = []
        self._document = document
        self._taken: set[str] = set()

    def has(self, key: str) -> bool:
        """Return whether the dotted key is there and is not empty."""
        return self._found(key) is not None

    def take(self, key: str, default: Any = None) -> Any:
        """Return the value of a dotted key, `default` where it is not there or null."""
        self._taken.add(key)
        found = self._found(key)
        return default if found is None else found

    def names(self, key: str) -> list[str]:
        """Return the names that a dotted key lists, or the only one."""
        found = self.take(key, [])
        return [str(one) for one in found] if isinstance(found, list) else [str(found)]

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Return the mapping under a dotted key; another thing is told and left out."""
        found = self.take(key, {})
        if isinstance(found, Mapping):
            return found
        self.left_out(key, "must be a mapping, as Ondine wants it too")
        return {}

    def left_out(self, key: str, why: str) -> None:
        """Say that this key is not carried over, where it is declared."""
        self._remark(key, why, carried=False)

    def refused(self, key: str, why: str) -> None:
        """Say that our declaration refuses what this key became; the first reason stands."""
        before = [one for one in self.remarks if one.key == key]
        if not any(not one.carried for one in before):
            self.remarks = [one for one in self.remarks if one.key != key]
            self.left_out(key, why)

    def means(self, key: str, what: str) -> None:
        """Say what a key that is carried over means here."""
        self._remark(key, what, carried=True)

    def all_remarks(self) -> tuple[Remark, ...]:
        """Return the remarks by line, on keys that nobody asked for too."""
        for key in list(_leaves(self.values, "", self._taken)):
            self.left_out(key, "Ondine does not know this key either, and ignores it")
        return tuple(sorted(self.remarks, key=lambda one: (one.line or 0, one.key)))

    def _remark(self, key: str, text: str, *, carried: bool) -> None:
        self._taken.add(key)
        self.remarks.append(Remark(self.path, self.line(key), key, text, carried))

    def line(self, key: str) -> int | None:
        """Return the line of a dotted key; None where it is not there."""
        if self._found(key) is None:
            return None
        steps = key.split(".")
        if steps[0] == "dataset" and "data" in self._document.value:  # Ondine's older spelling
            steps[0] = "data"
            if steps[-1].startswith("source_"):
                steps[1:] = ["source", steps[-1].removeprefix("source_")]
        position, _ = self._document.source_position_tree.lookup_closest_and_path(steps, None)
        return position.start.line

    def _found(self, key: str) -> Any:
        value: Any = self.values
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return value


def read_original(path: Path) -> Original:
    """Return the configuration in a YAML or JSON file.

    Raises:
        OndineError: the file is missing, no YAML, or no configuration of Ondine.
    """
    documents = read_documents(path)
    if len(documents) != 1 or not isinstance(documents[0].value, dict):
        raise OndineError(f"{path} is no configuration of Ondine: it must be one YAML mapping.")
    values = documents[0].value
    if "composition" not in values and not {"dataset", "data"} & values.keys():
        raise OndineError(
            f"{path} is no configuration of Ondine: it has neither `dataset` nor `composition`."
        )
    original = Original(path, values, documents[0])
    for name, section in values.items():
        if name in _SECTIONS and not isinstance(section, Mapping | None):
            place = f"{path}:{original.line(name)}"
            raise OndineError(f"{place}: `{name}` must be a mapping with keys of its own.")
    return original


def variables(text: Any) -> list[str]:
    """Return the environment variables that Ondine would put into a text, as in ${NAME}."""
    return _VARIABLE.findall(text) if isinstance(text, str) else []


def with_variables(value: Any) -> Any:
    """Return the text with ${NAME} as our declarations write it."""
    if not isinstance(value, str):
        return value
    return _VARIABLE.sub(lambda match: f"{{{{ env('{match[1]}') }}}}", value)


def _leaves(value: Mapping[str, Any], place: str, taken: set[str]) -> Iterator[str]:
    for name, own in value.items():
        key = f"{place}{name}"
        if key in taken:
            continue
        if isinstance(own, Mapping) and any(one.startswith(f"{key}.") for one in taken):
            yield from _leaves(own, f"{key}.", taken)
        else:
            yield key
