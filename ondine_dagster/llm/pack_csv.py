"""Packs as CSV: a line per row in the request and in the answer, for plain columns. Pure.

Costs fewer tokens than JSON, as no name is repeated for each row, and gives up what constrains an
answer: the model is told of the fields in words only.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from ondine_dagster.errors import OndineError
from ondine_dagster.llm.pack_words import TEXT, free_name, introduction, question, without_thoughts
from ondine_dagster.llm.packing import (
    Outcomes,
    Split,
    kind_of,
    nullable,
    shared_ends,
    shortest_answer,
    user_message,
)
from ondine_dagster.llm.provider import Schema
from ondine_dagster.llm.static_text import StaticText
from ondine_dagster.llm.structured import compact_json

_PLAIN_KINDS = frozenset({"string", "integer", "number", "boolean"})
_ANSWER = "answer"
# the names of the columns of a pack's rows, the text round and between them, and their cells
_Table = tuple[Sequence[str], Sequence[str], Sequence[Sequence[str]]]
_ORDER = (
    "\nAnswer with CSV and nothing else. Its first line is:\n{header}\n"
    "Then comes one line for each item, in the order of the items: first `{code}`, the item's code "
    "copied letter by letter, then the answer. Leave no item out, and answer none twice. Where a "
    'value has a comma, a line break or a quote in it, stand quotes (") round it, and each quote '
    "within is doubled. No value (null) is empty. The answer to an item is valid against this JSON "
    "schema:\n{schema}\nThe {count} items, as CSV too:\n"
)
# the start of a line that may be an item
_LINE = re.compile(r'^"?([a-z]+)"?,', re.MULTILINE)
_SPECIAL = re.compile(r'[,"\r\n]')
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,300})(\.\d{1,300})?([eE][+-]?\d{1,3})?")


class CsvPacking:
    """Packs whose rows and answers are lines of CSV, which begin with the row's code."""

    schema = None

    def __init__(self, schema: Schema | None, static: StaticText) -> None:
        """`schema` is the wire schema of one row's answer, None for plain text; `static` what the
        user messages of all rows have in common: it is said once, that between columns too.

        Raises OndineError for fields that are no single values.
        """
        self._static = static
        self.empty = static.empty
        self._plain = schema is None
        wanted: Schema = schema or {"type": "object", "properties": {_ANSWER: {"type": "string"}}}
        self._kinds = {name: _kind(name, part) for name, part in wanted["properties"].items()}
        self._nullable = {name for name, part in wanted["properties"].items() if nullable(part)}
        self._code = free_name({*self._kinds, *static.columns})
        self._header = ",".join(map(_quoted, [self._code, *self._kinds]))
        answer = shortest_answer(wanted)
        cells = ["bcd", *(compact_json(value) if value != "" else "" for value in answer.values())]
        alone = 0 if self._plain else len(compact_json(answer))
        self.answer_bytes = len(",".join(cells)) + 1 - alone
        # in this order, by which a reader knows the line
        first = {"type": "object", "properties": wanted["properties"]}
        self._wanted = compact_json({**first, **wanted})

    def compose(self, prefix: str, items: Sequence[tuple[str, str]]) -> str:
        """Return the messages of a pack as canonical JSON, what its rows share said once."""
        texts = [text for _, text in items]
        columns, static, cells = self._columns(texts) or self._whole(texts)
        said = introduction("a table in CSV", self._code, columns) + question(static, columns)
        said += _ORDER.format(
            header=self._header, code=self._code, schema=self._wanted, count=len(items)
        )
        codes = [self._code, *(code for code, _ in items)]
        lines = [
            f"{','.join(map(_quoted, [code, *row]))}\n"
            for code, row in zip(codes, [columns, *cells], strict=True)
        ]
        return user_message(prefix, said + "".join(lines))

    def _columns(self, texts: Sequence[str]) -> _Table | None:
        """Return the rows with a cell for each column of the prompt; None where one has another
        form, or cannot be told apart."""
        static = self._static
        cells = [cells for text in texts if (cells := static.cells(text)) is not None]
        if not static.columns or len(cells) < len(texts):
            return None
        return static.columns, [static.head, *static.between, static.tail], cells

    def _whole(self, texts: Sequence[str]) -> _Table:
        head, tail = shared_ends(self._static, texts)
        return TEXT, [head, tail], [[text[len(head) : len(text) - len(tail)]] for text in texts]

    def split(self, text: str, codes: Sequence[str], *, cut: bool) -> Split:
        """Return the answer of each row; `cut`: the text ended at the ceiling. Never raises."""
        outcomes = Outcomes(codes, cut=cut)
        text = without_thoughts(text, f"{self._code},")
        starts = [one for one in _LINE.finditer(text) if outcomes.asks(one[1])]
        bounds = [*(one.start() for one in starts), len(text)]
        order, others = self._order(text[: bounds[0]])
        # a line that ends with the text may have lost its end, and look whole
        cut = (cut or len(starts) < len(codes)) and not text.endswith("\n")
        for start, end in zip(starts, bounds[1:], strict=True):
            rows = _rows(text[start.start() : end])
            if cut and end == len(text) and rows and len(rows) == 1:
                rows = None
            outcomes.add(start[1], self._answer(order, rows[0]) if rows else None, broken=not rows)
            others += (rows or ())[1:]
        for row in others:
            if len(row) == len(order) + 1:  # and no prose
                outcomes.add(row[0], None, broken=True)
        return outcomes.split()

    def _order(self, before: str) -> tuple[Sequence[str], list[list[str]]]:
        """Return the columns in the order of the header, and the lines that are none."""
        others = _rows(before) or []
        order = [*self._kinds]
        for at, row in enumerate(others):
            names = [name.strip() for name in row]
            if names[:1] == [self._code] and sorted(names[1:]) == sorted(order):
                order = names[1:]
                del others[: at + 1]
                break
        return order, others

    def _answer(self, order: Sequence[str], row: Sequence[str]) -> str | None:
        """Return what a request for the row alone would have brought; None for another shape."""
        if len(row) != len(order) + 1:
            return None
        if self._plain:
            return row[1] if row[1].strip() else None
        cells = dict(zip(order, row[1:], strict=True))
        values = [f"{compact_json(name)}:{self._json(name, cells[name])}" for name in self._kinds]
        return None if any(value.endswith(":") for value in values) else f"{{{','.join(values)}}}"

    def _json(self, name: str, cell: str) -> str:
        """Return a cell as JSON, nothing where there is none to return."""
        kind, bare = self._kinds[name], cell.strip()
        if not bare and name in self._nullable:
            return "null"
        if kind == "string":
            return compact_json(cell)
        if not bare:
            return ""
        if kind == "boolean":
            return bare.lower() if bare.lower() in ("true", "false") else compact_json(cell)
        return bare if _NUMBER.fullmatch(bare) else compact_json(cell)


def _rows(text: str) -> list[list[str]] | None:
    """Return the lines of a text that is CSV; None where its quotes are wrong."""
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error:
        return None


def _quoted(cell: str) -> str:
    # csv.writer leaves a lone carriage return bare, which readers take for the end of a line
    return '"' + cell.replace('"', '""') + '"' if _SPECIAL.search(cell) else cell


def _kind(name: str, schema: Schema) -> str:
    kind = kind_of(schema)
    if kind not in _PLAIN_KINDS:
        raise OndineError(
            f"batching.format is csv, and the field {name} is no single value: it takes fields of "
            "type string, integer, number and boolean. Leave batching.format out"
        )
    return kind
