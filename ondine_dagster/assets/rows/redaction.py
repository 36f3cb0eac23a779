"""`privacy:` at work: rows before they are asked about, answers when they are read, files at rest.

What stands for what in a row is worked out from the row itself, by the rules that the file of its
prompts, and every file made from it, has in its notes: an answer gets its values back by the rules
under which it was asked, whatever is declared today.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ondine_dagster.assets.shared.pipeline import Pipeline, scrub_of
from ondine_dagster.engine.rows import Outcome, RowOutcome
from ondine_dagster.errors import OndineError
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.structured import compact_json
from ondine_dagster.patterns import PatternTooSlow
from ondine_dagster.privacy import placeholders
from ondine_dagster.privacy.detectors import VERSION, Finder
from ondine_dagster.privacy.placeholders import Redactor, put_mark, replaced
from ondine_dagster.privacy.scrubbing import Scrub
from ondine_dagster.spec import LINEAGE_COLUMNS, SNAPSHOT_COLUMNS, Privacy

if TYPE_CHECKING:
    import pyarrow as pa

# a note of `prompts` and of what is made from it; there only where placeholders were sent
PRIVACY_NOTE = "ondine.privacy"
_IN_JSON = frozenset({"fields", "model", "json"})  # of the ways to read an answer
# a note of `prompts`: what the dataset declares, where that is not the default
DECLARED_NOTE = "ondine.privacy_declared"


class PromptRedactor:
    """Takes what `privacy:` names out of the prompts of a dataset."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Raises OndineError where the prompt's own texts cannot be read."""
        self._privacy = privacy = pipeline.dataset.privacy
        renderer = pipeline.renderer
        self._active = privacy.prompt != "keep"
        self._columns = None if renderer.needs_whole_row else sorted(_columns(pipeline))
        if not self._active:
            return
        texts = pipeline.prompt_texts
        own = [texts.system or "", texts.template, *texts.partials.values(), renderer.static_json]
        finder = finder_of(privacy)
        # what the declaration itself says is no row's
        self._allowed = {text[one.start : one.end] for text in own for one in finder.find(text)}
        self._taken = sorted(placeholders.literal_in("\n".join(own)))
        self._reversible = privacy.prompt == "placeholders"
        self._redactor = Redactor(finder, reversible=self._reversible, taken=self._taken)
        self._head = len(renderer.static_json)

    def row(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a row as the prompt may know it."""
        if not self._active:
            return row
        return self._redactor.row(row, self._columns or row)[0]

    def messages(self, messages: str) -> str:
        """Return messages (canonical JSON) without what comes about where cells meet."""
        if not self._active:
            return messages
        head, tail = messages[: 1 + self._head], messages[1 + self._head :]
        own = json.loads(f"[{tail}")
        for one in own:
            one["content"] = self._redactor.text(one["content"], self._allowed)
        changed = compact_json(own)[1:]
        return head + changed

    def notes(self) -> dict[str, str]:
        """Return the notes of a file of prompts: by which rules values are put back and shown."""
        declared = self._privacy.model_dump(mode="json", exclude_defaults=True)
        notes = {DECLARED_NOTE: json.dumps(declared)} if declared else {}
        if not self._active or not self._reversible:
            return notes
        rules = {
            "detectors": VERSION,
            "detect": sorted(self._privacy.detect),
            "patterns": dict(self._privacy.patterns),
            "columns": self._columns,
            "taken": self._taken,
        }
        return {**notes, PRIVACY_NOTE: json.dumps(rules)}


def _columns(pipeline: Pipeline) -> frozenset[str]:
    """Return the columns whose text the prompt may show; files of rows are looked for by theirs."""
    return pipeline.renderer.columns - {one.column for one in pipeline.dataset.prompt.attached}


def finder_of(privacy: Privacy, *, hide_slow: bool = False) -> Finder:
    """Return what finds what a declaration names; see `Finder`."""
    return Finder(privacy.detect, privacy.patterns, hide_slow=hide_slow)


def scrub_as_noted(notes: Mapping[str, str]) -> Scrub:
    """Return what is done to shown texts of the dataset whose file of prompts has these notes."""
    return scrub_of(Privacy.model_validate(json.loads(notes.get(DECLARED_NOTE, "{}"))))


class Restorer:
    """Puts the values of rows back into their answers, by the rules in the notes of a file."""

    def __init__(self, pipeline: Pipeline, partition: str, notes: Mapping[str, str]) -> None:
        """Raises OndineError where detectors have changed since: other values would come back."""
        self._rules: dict[str, Any] | None = None
        if PRIVACY_NOTE in notes and not pipeline.dataset.privacy.at_rest:
            self._rules = rules = json.loads(notes[PRIVACY_NOTE])
            if rules["detect"] and rules.get("detectors") != VERSION:
                raise OndineError(
                    f"{pipeline.name} {partition}: its prompts have placeholders of an older "
                    "version of ondine_dagster, and the detectors of personal data have changed "
                    "since. Materialize `prompts` and `responses` too: rows in which the same is "
                    "found cost nothing."
                )
            finder = Finder(rules["detect"], rules["patterns"])
            self._redactor = Redactor(finder, reversible=True, taken=rules["taken"])
        self._in_json = pipeline.dataset.output.kind in _IN_JSON

    def outcomes(self, raw: pa.Table, outcomes: Sequence[RowOutcome]) -> Sequence[RowOutcome]:
        """Return how rows have ended, with the values of each row in its answers."""
        if self._rules is None:
            return outcomes
        return [self._restored(raw, place, one) for place, one in enumerate(outcomes)]

    def _restored(self, raw: pa.Table, place: int, outcome: RowOutcome) -> RowOutcome:
        try:
            return self._outcome(raw, place, outcome)
        except PatternTooSlow as slow:  # it was quick enough when the row was asked
            return replace(
                outcome,
                outcome=Outcome.ERROR,
                error_class=ErrorClass.ROW,
                code=ErrorCode.PATTERN_TOO_SLOW,
                message=f"privacy.patterns: {slow}",
            )

    def _outcome(self, raw: pa.Table, place: int, outcome: RowOutcome) -> RowOutcome:
        texts = [one.text for one in (outcome, *outcome.samples) if one.text is not None]
        if not any(map(placeholders.has_placeholder, texts)):
            return outcome
        assert self._rules is not None
        (row,) = raw.slice(place, 1).to_pylist()
        row = {name: value for name, value in row.items() if name not in SNAPSHOT_COLUMNS}
        columns = self._rules["columns"]
        values = self._redactor.row(row, row if columns is None else columns)[1].values

        def with_values(one: RowOutcome) -> RowOutcome:
            if one.text is None:
                return one
            text = placeholders.restored(one.text, values, in_json=self._in_json)
            return replace(one, text=text)

        samples = tuple(with_values(one) for one in outcome.samples)
        return replace(with_values(outcome), samples=samples)


def as_judged(pipeline: Pipeline, outcome: RowOutcome) -> RowOutcome:
    """Return an outcome to be judged without its row: made-up values for its placeholders."""
    if pipeline.dataset.privacy.prompt != "placeholders":
        return outcome

    def judged(one: RowOutcome) -> RowOutcome:
        return one if one.text is None else replace(one, text=placeholders.with_stand_ins(one.text))

    return replace(judged(outcome), samples=tuple(map(judged, outcome.samples)))


def shown(scrub: Scrub, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row to be shown: a cell in which something is found is its scrubbed text."""
    cells = {name: str(value) for name, value in row.items() if value is not None}
    scrubbed = {name: scrub(text) for name, text in cells.items()}
    return {**row, **{name: text for name, text in scrubbed.items() if text != cells[name]}}


def at_rest(pipeline: Pipeline, table: pa.Table) -> pa.Table:
    """Return rows for a file as `privacy.at_rest` has them: scrubbed, but for the lineage.

    A whole number that is itself such a value becomes NULL.
    """
    import pyarrow as pa

    privacy = pipeline.dataset.privacy
    if not privacy.at_rest:
        return table
    finder = finder_of(privacy, hide_slow=True)
    for place, field in enumerate(table.schema):
        kind = field.type
        has_none = pa.types.is_temporal(kind) or pa.types.is_boolean(kind)
        if has_none or field.name in LINEAGE_COLUMNS:
            continue
        cells = table.column(place).to_pylist()
        clean = [replaced(one, finder, put_mark, typed=True) for one in cells]
        if clean != cells:
            table = table.set_column(place, field, pa.array(clean, kind))
    return table
