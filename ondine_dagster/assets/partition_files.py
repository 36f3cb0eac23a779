"""Writes `responses`, `results` and `rejected_rows` of one partition: in pieces, then at once.

Owns the parsing of answers on the way, the counting, and the two rules of a partition's files:
every row of `raw_rows` ends in exactly one of `results` and `rejected_rows`, and a file that
answers fewer rows never replaces one that answers more. Imported only where a stage runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import compress
from typing import Any

import pyarrow as pa  # noqa: TID253 (this module is imported lazily)

from ondine_dagster.assets.audit.replay import REPLAYED
from ondine_dagster.assets.metadata.figures import Figures
from ondine_dagster.assets.rows.outcomes import refuse_other_rows
from ondine_dagster.assets.rows.outlook import ESTIMATE_NOTE
from ondine_dagster.assets.rows.purged_files import PURGED_NOTE
from ondine_dagster.assets.rows.redaction import PRIVACY_NOTE, Restorer, at_rest
from ondine_dagster.assets.rows.response_rows import response_rows, shared_columns
from ondine_dagster.assets.rows.row_ends import ReadRow, problem
from ondine_dagster.assets.rows.row_events import event_rows, life_of
from ondine_dagster.assets.rows.samples import read_row
from ondine_dagster.assets.shared import tables
from ondine_dagster.assets.shared.partition_counts import (
    COSTS,
    MODELS,
    REJECTED,
    RESPONSES,
    RESULTS,
    TRIO,
    PartitionCounts,
)
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.watched_reader import WatchedReader
from ondine_dagster.assets.verdicts import field_counts
from ondine_dagster.assets.verdicts.field_counts import FieldCounts
from ondine_dagster.engine.rows import WAITING, Outcome, RowOutcome
from ondine_dagster.ledger.estimates import Estimate
from ondine_dagster.ledger.key_secret import KEYS_NOTE
from ondine_dagster.llm.answers import Values
from ondine_dagster.llm.errors import ErrorClass, ErrorCode
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.parquet_files import LakeFile, LakeWriter, to_table
from ondine_dagster.storage.sealed_texts import readable

# what the files say of the rows they are made from
_PASSED_ON = ("ondine.order", "ondine.content_hash", "ondine.question_version")
_Parsed = Values | Rejection | None
# told of rows that have ended: their partition, their keys, how, and what their answers say
OnRows = Callable[[str, Sequence[str], Sequence[ReadRow]], None]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some rows in order: their source and keys, how they ended, what their answers say.

    A skipped row says nothing: all of its output columns are NULL.
    """

    raw: pa.Table
    keys: Sequence[bytes | None]
    outcomes: Sequence[RowOutcome]
    parsed: Sequence[_Parsed]

    def where(self, *, good: bool) -> _Piece:
        """Return the rows that have a result, or those that have none."""
        chosen = [i for i, one in enumerate(self.parsed) if isinstance(one, dict) is good]
        if len(chosen) == len(self.parsed):
            return self
        return _Piece(
            self.raw.take(pa.array(chosen, pa.int64())),
            [self.keys[i] for i in chosen],
            [self.outcomes[i] for i in chosen],
            [self.parsed[i] for i in chosen],
        )


class PartitionFiles:
    """The files of one partition while they are written; void unless committed."""

    def __init__(
        self,
        pipeline: Pipeline,
        lake: Lake,
        partition: str,
        wanted: Collection[str],
        notes: Mapping[str, str],
        on_rows: OnRows | None = None,
    ) -> None:
        """Open the files `wanted`; `notes` are those of the file whose rows will end here."""
        self._on_rows = on_rows
        self._pipeline = pipeline
        self._reader = pipeline.reader
        self._lake = lake
        self._partition = partition
        self._notes = notes
        self._raw = _Rows(lake.open(pipeline.name, "raw_rows", partition))
        refuse_other_rows(pipeline, partition, self._raw.file.metadata, notes)
        self._restorer = Restorer(pipeline, partition, notes)
        source = pa.schema(
            [one for one in self._raw.file.schema if one.name not in ("_row_key", "_position")]
        )
        output = pipeline.dataset.output
        schemas = {
            RESPONSES: tables.responses_schema(pipeline.dataset.samples),
            RESULTS: tables.results_schema(source, output, pipeline.dataset.samples),
            REJECTED: tables.rejected_schema(source),
        }
        self._writers: dict[str, LakeWriter] = {}
        try:
            for asset in TRIO:
                if asset in wanted:
                    writer = lake.open_writer(pipeline.name, asset, partition, schemas[asset])
                    self._writers[asset] = writer
        except BaseException:  # an interrupt between two of them
            self.abort()
            raise
        self._content = sha256(notes["ondine.content_hash"].encode())
        self._row_keys: list[str] = []
        self._failed_for_good: set[str] = set()
        self._fields = {name: FieldCounts() for name in pipeline.dataset.output_columns()}
        self._figures = Figures(pipeline, source.names)
        self.counts = PartitionCounts(
            max_rejected=pipeline.dataset.limits.max_rejected,
            columns={
                asset: {field.name: str(field.type) for field in writer.schema}
                for asset, writer in self._writers.items()
            },
            source_columns=source.names,
        )

    @property
    def data_version(self) -> str:
        """Return a hash of what the rows ended with."""
        return self._content.hexdigest()[:16]

    def append(self, outcomes: Sequence[RowOutcome], keys: Sequence[bytes | None]) -> None:
        """Add the next rows, in order, with the answer keys under which they were asked."""
        if not outcomes:
            return
        raw = self._raw.next(len(outcomes))
        row_keys = raw.column("_row_key").to_pylist()
        self._row_keys += (
            key
            for key, one in zip(row_keys, outcomes, strict=True)
            if one.outcome is not Outcome.SKIPPED
        )
        self._failed_for_good.update(
            key for key, one in zip(row_keys, outcomes, strict=True) if _for_good(one)
        )
        restored = self._restorer.outcomes(raw, outcomes)
        read = [self._read(*one) for one in zip(row_keys, restored, strict=True)]
        if RESPONSES in self._writers:
            responses = response_rows(raw, outcomes, keys, self._pipeline)
            self._writers[RESPONSES].append(responses)
            self._figures.responses(responses)
        piece = _Piece(raw, keys, [one for one, _ in read], [parsed for _, parsed in read])
        self._write_results(piece.where(good=True))
        self._write_rejected(piece.where(good=False))
        self._count(piece)
        if self._on_rows is not None:
            self._on_rows(self._partition, row_keys, read)

    def commit(self) -> PartitionCounts:
        """Put the files in place, unless the present ones answer more rows."""
        expected = self._raw.remaining()
        if expected:  # a bug of ours: a row without an outcome must never look like success
            raise RuntimeError(
                f"{self._pipeline.name} {self._partition}: {expected} rows have no outcome"
            )
        counts = self.counts
        self._figures.note(counts)
        final = counts.rows - counts.unanswered - counts.skipped
        answers = (counts.answers, final)
        if RESPONSES in self._writers and self._present_answers() > answers:
            self.counts.kept_older = True
            self.abort()
            return self.counts
        metadata = self._metadata() | self._costs()
        own = {
            RESPONSES: {MODELS: json.dumps(counts.models, sort_keys=True)},
            RESULTS: {field_counts.NOTE: field_counts.to_note(self._fields)},
        }
        for asset in (RESPONSES, REJECTED, RESULTS):  # results last: the status reads its notes
            if asset in self._writers:
                self._writers[asset].commit(metadata | own.get(asset, {}))
        self._raw.file.close()
        return self.counts

    def abort(self) -> None:
        """Forget what was written; does nothing after a commit."""
        self._raw.file.close()
        for writer in self._writers.values():
            writer.abort()

    def _metadata(self) -> dict[str, str]:
        return {
            **{name: self._notes[name] for name in _PASSED_ON},
            **{
                name: self._notes[name] for name in (PRIVACY_NOTE, KEYS_NOTE) if name in self._notes
            },
            "ondine.local_version": self._pipeline.local_version,
            "ondine.outcomes": self._content.hexdigest(),
            "ondine.rows": str(self.counts.rows),
            "ondine.results": str(self.counts.results),
            "ondine.skipped": str(self.counts.skipped),
            "ondine.rejected": str(self.counts.rejected),
            "ondine.unanswered": str(self.counts.unanswered),
            "ondine.truncated": str(self.counts.codes[ErrorCode.TRUNCATED]),
            "ondine.ceiling": str(self._asked_up_to()),
            # not for too many rejected rows: how many may be is a matter of today's declaration
            "ondine.red": "true" if self.counts.incomplete else "false",
        }

    def _costs(self) -> dict[str, str]:
        """Return what the requests for the rows cost beside what was expected, and why rows wait.

        Rows that are parsed again cost what they did when they were asked.
        """
        if RESPONSES not in self._writers or REPLAYED in self._notes:
            return {name: self._notes[name] for name in COSTS if name in self._notes}
        estimate = Estimate(**json.loads(self._notes.get(ESTIMATE_NOTE, "{}")))
        counts = self.counts
        values = (
            counts.cost,
            counts.asked,
            round(estimate.each * counts.questions),
            counts.why_waiting,
        )
        return dict(zip(COSTS, map(str, values), strict=True))

    def _asked_up_to(self) -> int:
        """Return the ceiling under which every answer that was cut off has been asked for."""
        pipeline = self._pipeline
        if self.counts.kept_cut:
            return int(self._notes["ondine.ceiling"])
        return pipeline.provider.ceiling if self.counts.not_raised else pipeline.highest_ceiling

    def _present_answers(self) -> tuple[int, int]:
        """Return how many of these rows the file in place answers, and for how many it is final.

        An answer of no use counts: a retry may have replaced it by another one of no use. Rows that
        are skipped, now or there, do not count. Nor do those whose text is gone there, purged or
        under a lost key, and which have failed for good now: they get no better answer.
        """
        lake, name, partition = self._lake, self._pipeline.name, self._partition
        if not lake.exists(name, RESPONSES, partition):
            return 0, 0
        ours = set(self._row_keys)
        notes = lake.metadata(name, RESPONSES, partition)
        purged = PURGED_NOTE in notes
        lost = not readable(lake.path(name, RESPONSES, partition), notes)
        names = ["_row_key", "outcome", "text", "finish_reason"]
        present = lake.read(name, RESPONSES, partition, names, as_it_lies=True)
        columns = (*present.columns[:2], *(column.is_valid() for column in present.columns[2:]))
        kept = []
        for key, outcome, there, finished in zip(
            *(one.to_pylist() for one in columns), strict=True
        ):
            # a text that was purged came with a reason to finish
            gone = there if lost else purged and finished and not there
            if gone and key in ours:
                self.counts.texts_gone = True
            if key in ours and not (gone and key in self._failed_for_good):
                kept.append((outcome, there or gone))
        final = sum(outcome not in (*WAITING, Outcome.SKIPPED) for outcome, _ in kept)
        return sum(answered for _, answered in kept), final

    def _read(self, row_key: str, outcome: RowOutcome) -> tuple[RowOutcome, _Parsed]:
        """Return what an answer says, and its row with the flags of what had to be repaired."""
        if outcome.outcome is Outcome.SKIPPED:
            return outcome, dict.fromkeys(self._pipeline.dataset.result_columns())
        if outcome.outcome is not Outcome.ANSWERED:
            return outcome, None
        flags: list[str] = []
        if isinstance(self._reader, WatchedReader):
            self._reader.next_row(self._partition, row_key)
        parsed = read_row(self._pipeline, outcome, flags)
        if not flags:
            return outcome, parsed
        self.counts.repairs.update(flags)
        return replace(outcome, flags=tuple(dict.fromkeys((*outcome.flags, *flags)))), parsed

    def _write_results(self, piece: _Piece) -> None:
        writer = self._writers.get(RESULTS)
        if writer is None or not piece.outcomes:
            return
        values = [one for one in piece.parsed if isinstance(one, dict)]
        columns = {
            name: [one[name] for one in values] for name in self._pipeline.dataset.result_columns()
        }
        asked = [one.outcome is not Outcome.SKIPPED for one in piece.outcomes]
        named = ["ok" if one else str(Outcome.SKIPPED) for one in asked]
        rows = _rows(piece, writer.schema, {**columns, "_outcome": named})
        if self._pipeline.dataset.privacy.at_rest:
            rows = at_rest(self._pipeline, rows)
            columns = {name: rows.column(name).to_pylist() for name in columns}
        for name, counted in self._fields.items():
            counted.add(list(compress(columns[name], asked)))
        writer.append(rows)
        self._figures.rows(RESULTS, rows)

    def _write_rejected(self, piece: _Piece) -> None:
        writer = self._writers.get(REJECTED)
        if writer is None or not piece.outcomes:
            return
        pairs = zip(piece.outcomes, piece.parsed, strict=True)
        classes, codes, messages = zip(*(problem(*pair) for pair in pairs), strict=True)
        columns = {
            "_error_class": classes,
            "_error_code": codes,
            "_error_message": messages,
            "_raw_text": [one.text for one in piece.outcomes],
            "_events": [event_rows(life_of(one)) for one in piece.outcomes],
            "_outcome": [_rejected_outcome(one) for one in piece.outcomes],
        }
        rows = at_rest(self._pipeline, _rows(piece, writer.schema, columns))
        writer.append(rows)
        self._figures.rows(REJECTED, rows)

    def _count(self, piece: _Piece) -> None:
        counts = self.counts
        counts.rows += len(piece.outcomes)
        for outcome, answer in zip(piece.outcomes, piece.parsed, strict=True):
            counts.outcomes[outcome.outcome] += 1
            if RESPONSES in self._writers:
                counts.add_costs(outcome)
            elif outcome.outcome is not Outcome.SKIPPED:
                counts.reused += 1  # parsed again: what it cost was counted when it was asked
            for one in outcome.samples or (outcome,):
                self._content.update(f"{one.outcome}\0{one.text}\0".encode())
            if isinstance(answer, dict):
                counts.results += 1
            else:
                error_class, code, message = problem(outcome, answer)
                counts.codes[code] += 1
                if outcome.outcome not in WAITING:
                    counts.rejections[error_class, code] += 1
                counts.classes[error_class] += 1
                if code not in counts.messages:
                    counts.messages[code] = self._pipeline.scrub(message)


def _for_good(outcome: RowOutcome) -> bool:
    """Return whether a row brought no text, and would bring none if it were asked once more."""
    failed = outcome.outcome is Outcome.ERROR and outcome.text is None
    return failed and outcome.error_class in (ErrorClass.ROW, ErrorClass.ROW_RETRYABLE)


def _rejected_outcome(outcome: RowOutcome) -> str:
    return "error" if outcome.outcome is Outcome.ANSWERED else outcome.outcome


def _rows(piece: _Piece, schema: pa.Schema, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Return rows for people: their source columns, `columns`, and their lineage."""
    everything = {
        **{name: piece.raw.column(name) for name in piece.raw.column_names},
        **columns,
        **shared_columns(piece.outcomes, prefix="_"),
        "_answer_key": [None if key is None else key.hex() for key in piece.keys],
    }
    return to_table(everything, schema)


class _Rows:
    """Reads an open file forward, as many rows at a time as are asked for."""

    def __init__(self, file: LakeFile) -> None:
        self.file = file
        self._batches = file.iter_batches()
        self._rest: pa.Table | None = None

    def next(self, rows: int) -> pa.Table:
        """Return the next `rows` rows; raises RuntimeError where there are fewer."""
        pieces = [] if self._rest is None else [self._rest]
        have = sum(piece.num_rows for piece in pieces)
        while have < rows:
            batch = next(self._batches, None)
            if batch is None:
                raise RuntimeError("raw_rows has fewer rows than outcomes")
            pieces.append(pa.Table.from_batches([batch]))
            have += batch.num_rows
        joined = pa.concat_tables(pieces)
        self._rest = joined.slice(rows)
        return joined.slice(0, rows)

    def remaining(self) -> int:
        """Return how many rows were not asked for."""
        rest = 0 if self._rest is None else self._rest.num_rows
        return int(rest + sum(batch.num_rows for batch in self._batches))
