"""Takes values out of a row before it is asked about, and puts them back into its answer. Pure.

A placeholder is `[EMAIL_1]`: kind, and the number of the value among those of its kind in the row.
Numbers depend on the row's cells and on nothing else, neither on the run nor on other rows, so that
the same row makes the same question, and what stands for what is worked out anew where it is
needed: it is stored nowhere. Two rows that differ only in such values ask the same question, and
each answer gets its own row's values back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ondine_dagster.privacy.detectors import Finder
from ondine_dagster.privacy.scrubbing import mark

Put = Callable[[str, str], str]
_PLACEHOLDER = re.compile(r"\[[A-Za-z][A-Za-z0-9_]*_[0-9]{1,6}\]")
# of the right form for whoever checks an answer without its row: reserved names and test numbers
_STAND_INS = {
    "EMAIL": "someone@example.com",
    "PHONE": "+1 212 555 0100",
    "CARD": "4111111111111111",
    "IBAN": "DE89370400440532013000",
    "SSN": "123-45-6789",
    "IP": "192.0.2.1",
}


@dataclass(slots=True)
class Placeholders:
    """What stands for what in one row. `taken` are texts that the row holds in such a form."""

    taken: Collection[str] = frozenset()
    values: dict[str, str] = field(default_factory=dict)
    _of: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, kind: str, value: str) -> str:
        """Return the placeholder of a value: the same for equal values, never one in the row."""
        if (kind, value) not in self._of:
            number = 1 + sum(each == kind for each, _ in self._of)
            while (made := f"[{kind.upper()}_{number}]") in self.taken or made in self.values:
                number += 1
            self._of[kind, value] = made
            self.values[made] = value
        return self._of[kind, value]


class Redactor:
    """Redacts rows: with placeholders, or for good."""

    def __init__(
        self, finder: Finder, *, reversible: bool, taken: Collection[str] = frozenset()
    ) -> None:
        """`taken` are the placeholders that stand in the prompt's own text: see `literal_in`."""
        self._finder = finder
        self._reversible = reversible
        self._taken = frozenset(taken)

    def row(
        self, row: Mapping[str, Any], columns: Iterable[str]
    ) -> tuple[dict[str, Any], Placeholders]:
        """Return the row with what is found in these columns taken out, and what stands for what.

        Texts are looked through, also in lists and objects, and whole numbers that are one value.
        """
        named = [name for name in sorted(columns) if row.get(name) is not None]
        found = Placeholders(self._taken)
        if self._reversible:
            found.taken = self._taken.union(*(literal_in(str(row[name])) for name in named))
        put = found.of if self._reversible else put_mark
        redacted = {name: replaced(row[name], self._finder, put) for name in named}
        return {**row, **redacted}, found

    def text(self, text: str, allowed: Collection[str]) -> str:
        """Return a text with what is found in it still taken out for good, but for `allowed`.

        Values that come about only where cells stand side by side have no placeholder.
        """
        return self._finder.replace(text, lambda kind, v: v if v in allowed else mark(kind))


def replaced(value: Any, finder: Finder, put: Put, *, typed: bool = False) -> Any:
    """Return a cell with `put(kind, text)` in the place of what is found in it.

    JSON is read first: its escapes would hide values, and its numbers take no text in their place.
    `typed`: a number that is such a value becomes None, as a column of numbers holds no text.
    """
    if isinstance(value, str):
        inner = _json_in(value)
        if inner is None:
            return finder.replace(value, put)
        changed = replaced(inner, finder, put)  # it may hold anything
        return value if changed == inner else json.dumps(changed, ensure_ascii=False)
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        text = str(int(value)) if _is_whole(value) else str(value)
        found = finder.find(text)
        if not found or found[0].end < len(text):
            return value
        return None if typed else put(found[0].kind, text)
    if isinstance(value, list):
        return [replaced(one, finder, put, typed=typed) for one in value]
    if isinstance(value, dict):
        names = value if typed else _names(value, finder, put)
        return {
            name: _named(name, one, finder, put)
            if isinstance(one, str)
            else replaced(one, finder, put, typed=typed)
            for name, one in zip(names, value.values(), strict=True)
        }
    return value


def _is_whole(value: float | Decimal) -> bool:
    """Return whether a number has no fraction: with a gap, pandas makes 7 in a column 7.0."""
    if isinstance(value, Decimal):
        return value.is_finite() and value == value.to_integral_value()
    return isinstance(value, int) or value.is_integer()


def _names(names: Iterable[str], finder: Finder, put: Put) -> list[str]:
    """Return the names of an object with what is found in them replaced; they stay different."""
    made: list[str] = []
    for name in names:
        new = finder.replace(name, put)
        made.append(new if new not in made else f"{new} {1 + len(made)}")
    return made


def _named(name: str, value: str, finder: Finder, put: Put) -> str:
    """Return a text of an object replaced: a name such as `password` says what the text is."""
    changed: str = replaced(value, finder, put)
    if changed != value:
        return changed
    head = f"{name}: "
    for one in reversed(finder.find(head + value)):
        if one.start >= len(head):
            start, end = one.start - len(head), one.end - len(head)
            value = value[:start] + put(one.kind, value[start:end]) + value[end:]
    return value


def _json_in(text: str) -> Any:
    """Return the list or object that a text is as JSON; None where it is just text."""
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; raises ValueError where a name stands there twice: one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def put_mark(kind: str, _: str) -> str:
    """Return what stands for a value for good."""
    return mark(kind)


def literal_in(text: str) -> frozenset[str]:
    """Return what stands in a text and looks like a placeholder."""
    return frozenset(one.upper() for one in _PLACEHOLDER.findall(text))


def has_placeholder(text: str) -> bool:
    """Return whether a text holds what looks like a placeholder."""
    return _PLACEHOLDER.search(text) is not None


def restored(text: str, values: Mapping[str, str], *, in_json: bool) -> str:
    """Return an answer with the row's values in the place of its placeholders.

    Small letters are understood too. A placeholder that the row does not have stays. `in_json`: the
    values stand within JSON text, and are escaped for it.
    """

    def value(found: re.Match[str]) -> str:
        known = values.get(found[0].upper())
        if known is None:
            return found[0]
        return json.dumps(known, ensure_ascii=False)[1:-1] if in_json else known

    return _PLACEHOLDER.sub(value, text)


def with_stand_ins(text: str) -> str:
    """Return an answer with made-up values in the place of its placeholders.

    For whoever judges an answer whose row is not at hand: a declared form fits these as well.
    """

    def value(found: re.Match[str]) -> str:
        return _STAND_INS.get(found[0][1:].rpartition("_")[0].upper(), found[0])

    return _PLACEHOLDER.sub(value, text)
