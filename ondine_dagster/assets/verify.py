"""`verify`: asks some answered rows again and compares; what is there stays, whatever comes.

Owns the sample, the comparison by output columns, and the file `verified` that holds what was
found. The answers are paid, within the budgets, and never become current: no table changes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ondine_dagster.assets.merge import rows_of
from ondine_dagster.assets.outcomes import stored_outcome
from ondine_dagster.assets.partition_counts import RESPONSES, VERIFIED
from ondine_dagster.assets.pipeline import Pipeline
from ondine_dagster.assets.samples import read_sample
from ondine_dagster.engine.rows import Outcome, PartitionFeed, Question, RowOutcome
from ondine_dagster.errors import OndineError
from ondine_dagster.storage.lake import Lake
from ondine_dagster.wording import plural

if TYPE_CHECKING:
    import pyarrow as pa

    from ondine_dagster.engine.engine import Engine
    from ondine_dagster.ledger.ledger import Ledger
    from ondine_dagster.ledger.records import Answer

ROWS_TAG = "ondine/verify_rows"
DEFAULT_ROWS = 20
_PROMPTS = "prompts"
_NAMES = ("_row_key", "answer_key", "messages")
_PURGED = "what was compared is purged"


class Same(StrEnum):
    """What became of a row that was asked again."""

    MATCH = "match"
    MISMATCH = "mismatch"
    INDETERMINATE = "indeterminate"  # no answer came, or it could not be read


@dataclass(frozen=True, slots=True)
class Sampled:
    """An answered row: its question and the values of its output columns."""

    partition: str
    question: Question
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verified:
    """A row that was asked again. `changed` are the columns that differ: before and now."""

    partition: str
    row_key: str
    same: Same
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    why: str | None = None


def rows_to_verify(tags: Mapping[str, str]) -> int:
    """Return how many rows the tags of a run ask for; raises OndineError for no number."""
    text = tags.get(ROWS_TAG, str(DEFAULT_ROWS))
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 100_000:
        raise OndineError(f"The tag {ROWS_TAG} is {text!r}; it must be a number from 1 to 100000.")
    return int(text)


def sample(
    pipeline: Pipeline,
    ledger: Ledger,
    lake: Lake,
    partitions: Sequence[str],
    count: int,
    seed: str,
) -> list[Sampled]:
    """Return up to `count` rows with a good answer to the present question, in order.

    Chosen by the hash of `seed` and row key. Equal questions are taken once; of several samples
    the first stands for its row. Raises OndineError where there is none.
    """
    place = {key: index for index, key in enumerate(partitions)}
    drawn = (
        (sha256(f"{seed}|{one.question.row_key}".encode()).digest(), one)
        for partition in partitions
        for one in _answered(pipeline, lake, partition)
    )
    chosen = heapq.nsmallest(count, drawn, key=lambda pair: pair[0])
    apart = {one.question.answer_key: one for _, one in chosen}
    stored = ledger.look_up(apart, pipeline.provider.ceiling)
    rows = [_as_in_ledger(pipeline, one, stored.get(key)) for key, one in apart.items()]
    known = sorted(filter(None, rows), key=lambda one: place[one.partition])
    if not known:
        raise OndineError(
            f"Dataset {pipeline.name} has no row to ask again here: none has a good answer of its "
            "own model to the present question whose text is still there. Run it first."
        )
    return known


def _as_in_ledger(pipeline: Pipeline, one: Sampled, answer: Answer | None) -> Sampled | None:
    """Return a row with what its answer says in the ledger: files may hold less than that."""
    if answer is None or answer.text is None:
        return None
    read = pipeline.reader.read(answer.text)
    if not isinstance(read, dict):
        return None
    question = replace(one.question, instead_of=answer.attempt)
    return replace(one, question=question, values=read)


def _answered(pipeline: Pipeline, lake: Lake, partition: str) -> Iterator[Sampled]:
    name = pipeline.name
    if not all(lake.exists(name, asset, partition) for asset in (_PROMPTS, RESPONSES)):
        return
    with (
        closing(lake.open(name, _PROMPTS, partition)) as prompts,
        closing(lake.open(name, RESPONSES, partition)) as responses,
    ):
        if prompts.metadata["ondine.order"] != responses.metadata["ondine.order"]:
            return
        if not (prompts.readable and responses.readable):
            return  # a lost key: there is nothing to compare with
        for asked, row in zip(rows_of(prompts, _NAMES), rows_of(responses), strict=True):
            if row["outcome"] != Outcome.ANSWERED or row["answer_key"] != asked["answer_key"]:
                continue  # also what a fallback has answered
            ended = stored_outcome(row)
            first = ended.samples[0] if ended.samples else ended
            values = _values(pipeline, first)
            if values is not None and first.attempt is not None:
                keys = asked["answer_key"], asked["messages"]
                question = Question(asked["_row_key"], *keys, first.attempt, verify=True)
                yield Sampled(partition, question, values)


def _values(pipeline: Pipeline, outcome: RowOutcome) -> Mapping[str, Any] | None:
    if outcome.outcome is not Outcome.ANSWERED:
        return None
    read = read_sample(pipeline, outcome)
    return read if isinstance(read, dict) else None


def ask_again(pipeline: Pipeline, engine: Engine, chosen: Sequence[Sampled]) -> list[Verified]:
    """Ask the chosen rows, which have to be in the order of their partitions; compare."""
    feeds = [
        PartitionFeed(partition, [[one.question for one in rows]])
        for partition, rows in groupby(chosen, key=lambda one: one.partition)
    ]
    ended: dict[bytes, RowOutcome] = {}
    with closing(engine.run(feeds)) as chunks:
        for chunk in chunks:
            for key, outcome in zip(chunk.keys, chunk.outcomes, strict=True):
                if key is not None:
                    ended[key] = outcome
    return [_compared(pipeline, one, ended[one.question.answer_key]) for one in chosen]


def _compared(pipeline: Pipeline, one: Sampled, now: RowOutcome) -> Verified:
    row = one.partition, one.question.row_key
    values = _values(pipeline, now)
    if values is None:
        return Verified(*row, Same.INDETERMINATE, why=now.message or "the answer cannot be read")
    changed = {
        name: (before, values.get(name))
        for name, before in one.values.items()
        if before != values.get(name)
    }
    return Verified(*row, Same.MISMATCH if changed else Same.MATCH, changed)


def write_verified(
    pipeline: Pipeline, lake: Lake, found: Sequence[Verified], run_scope: str
) -> None:
    """Write what was found to the file `verified`; what the same call has found is kept in it."""
    import json

    import pyarrow as pa

    names = ("partition", "_row_key", "verdict", "column", "before", "now", "why")
    schema = pa.schema([(name, pa.string()) for name in (*names, "verified_at", "call")])
    at = datetime.now(UTC).isoformat(timespec="seconds")

    def text(value: Any) -> str:
        return pipeline.scrub(json.dumps(value, ensure_ascii=False, default=str))

    nothing: list[tuple[str | None, str | None, str | None]] = [(None, None, None)]
    rows = [
        (one.partition, one.row_key, one.same.value, column, before, after, why, at, run_scope)
        for one in found
        for why in [one.why and pipeline.scrub(one.why)]
        for column, before, after in (
            [(name, text(was), text(now)) for name, (was, now) in one.changed.items()] or nothing
        )
    ]
    made = [dict(zip(schema.names, row, strict=True)) for row in rows]
    tables = [pa.Table.from_pylist(made, schema)]
    before = _present(lake, pipeline.name)
    if before is not None:
        kept = [scope == run_scope for scope in before.column("call").to_pylist()]
        tables.insert(0, before.filter(pa.array(kept, pa.bool_())))
    lake.write(pipeline.name, VERIFIED, None, pa.concat_tables(tables))


def _present(lake: Lake, dataset: str) -> pa.Table | None:
    """Return the file `verified`, None where there is none."""
    if not lake.exists(dataset, VERIFIED, None):
        return None
    return lake.read(dataset, VERIFIED, None, shown=True)


@dataclass(frozen=True, slots=True)
class Drift:
    """What the last call of verify has found.

    `examples` are rows that differ, and how; `unclear` those that cannot be compared, and why.
    """

    rows: Mapping[str, int]
    examples: tuple[tuple[str, str], ...]
    unclear: tuple[tuple[str, str], ...]
    at: str

    @property
    def percent(self) -> float:
        """Return how many of the rows that could be compared differ, in per cent."""
        compared = self.rows.get(Same.MATCH, 0) + self.rows.get(Same.MISMATCH, 0)
        return 100 * self.rows.get(Same.MISMATCH, 0) / compared if compared else 0.0

    @property
    def text(self) -> str:
        """Return it as a sentence."""
        counts = [self.rows.get(one, 0) for one in Same]
        match, differ, unclear = counts
        return (
            f"Asked {plural(sum(counts), 'row')} again ({self.at}): {match:,} as before, "
            f"{differ:,} differ, {unclear:,} cannot be compared; drift {self.percent:.3g} %."
        )


def _example(row: Mapping[str, Any]) -> str:
    if row["before"] is None:
        return f"{row['_row_key']}, {row['column']}: {_PURGED}"
    return f"{row['_row_key']}, {row['column']}: was {row['before']}, now {row['now']}"


def read_drift(lake: Lake, dataset: str) -> Drift | None:
    """Return what the last call of verify has found; None where there was none."""
    present = _present(lake, dataset)
    if present is None:
        return None
    rows = present.to_pylist()
    verdicts = {(row["partition"], row["_row_key"]): row["verdict"] for row in rows}
    counts = {one: sum(verdict == one for verdict in verdicts.values()) for one in Same}
    examples = tuple(
        (row["partition"], _example(row)) for row in rows if row["verdict"] == Same.MISMATCH
    )
    unclear = tuple(
        (row["partition"], f"{row['_row_key']}: {row['why'] or _PURGED}")
        for row in rows
        if row["verdict"] == Same.INDETERMINATE
    )
    at = max((row["verified_at"] for row in rows), default="")
    return Drift(
        {str(one): rows for one, rows in counts.items()},
        examples,
        unclear,
        at.replace("T", " ").replace("+00:00", " UTC"),
    )
