"""The story of one row: every request for it over all runs, and where it stands now. Reads only.

Texts are scrubbed as those of traces and logs are. The ledger keeps no prompts: what was sent is
known from the lake's `prompts`, for as long as the row is asked the same there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ondine_dagster.assets.shared.partition_counts import REJECTED, RESPONSES, RESULTS
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.coverage import reading
from ondine_dagster.ledger.history import RowRequest, requests_for_row
from ondine_dagster.ledger.identity import text_digest
from ondine_dagster.ledger.tracing import trace_id
from ondine_dagster.llm.reask import conversation
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.observe.scrubbing import scrubbed, scrubbed_messages
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.sealed_texts import UNREADABLE
from ondine_dagster.storage.snapshot import current_snapshot
from ondine_dagster.storage.snapshot_file import SNAPSHOT

_BATCH_ROWS = 10_000
_EARLIER = "an earlier question"
_OTHER = "another of its questions, or an earlier one"


@dataclass(frozen=True, slots=True)
class Explained:
    """One request for the row. `question` says which of its questions it asked.

    `sent` are the messages for this row alone (JSON); None where they are not known any more, or
    are encrypted under a key that is not given (`sent_unreadable`). `problem` is why its answer,
    which came in order, is of no use as answers are read now.
    """

    request: RowRequest
    question: str
    trace_id: str
    sent: Sequence[Mapping[str, Any]] | None
    sent_unreadable: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class RowStory:
    """A row: `place` is the stage where it is now, `row` what stands there; oldest request first.

    `partition` is None for a row that the source does not have any more.
    """

    dataset: str
    row_key: str
    partition: str | None
    place: str
    row: Mapping[str, Any] = field(default_factory=dict)
    requests: Sequence[Explained] = ()


def explain_row(pipeline: Pipeline, lake: Lake, ledger_path: Path, row_key: str) -> RowStory:
    """Return what became of a row.

    Raises OndineError for a row that neither the source nor the ledger knows.
    """
    partition = _partition(lake, pipeline.name, row_key)
    prompt = _row(lake, pipeline.name, "prompts", partition, row_key) or {}
    with reading(ledger_path) as connection:
        pipeline.keys.look(connection)
        questions = _questions(pipeline, prompt)
        found = (
            []
            if connection is None
            else requests_for_row(connection, pipeline.name, row_key, questions)
        )
    if partition is None and not found:
        raise OndineError(
            f"Dataset {pipeline.name} has no row {row_key!r}, and none was ever asked. Row keys "
            f"are in the column _row_key of {pipeline.name}.raw_rows."
        )
    place, row = _place(lake, pipeline.name, partition, row_key, prompt)
    told = _told(pipeline, row_key, found, questions, prompt.get("messages"))
    row = {name: scrubbed(value, pipeline.scrub) for name, value in row.items()}
    return RowStory(pipeline.name, row_key, partition, place, row, told)


def _partition(lake: Lake, name: str, row_key: str) -> str | None:
    """Return the partition of a row in the current snapshot; None where it is not there."""
    snapshot = current_snapshot(lake, name)
    if snapshot is None:
        return None
    row = _found(lake, (name, SNAPSHOT, snapshot.version), row_key, ["_row_key", "_partition"])
    return None if row is None else str(row["_partition"])


def _row(
    lake: Lake, name: str, asset: str, partition: str | None, row_key: str
) -> dict[str, Any] | None:
    if partition is None or not lake.exists(name, asset, partition):
        return None
    return _found(lake, (name, asset, partition), row_key)


def _found(
    lake: Lake, file: tuple[str, str, str], row_key: str, columns: Sequence[str] | None = None
) -> dict[str, Any] | None:
    with closing(lake.open(*file, shown=True)) as opened:
        for found in opened.iter_batches(_BATCH_ROWS, columns, [row_key]):
            if found.num_rows:
                row: dict[str, Any] = found.to_pylist()[0]
                return row
    return None


def _questions(pipeline: Pipeline, prompt: Mapping[str, Any]) -> dict[bytes, str]:
    """Return the keys under which the row is asked as it is declared now, and what each is."""
    key, messages = prompt.get("answer_key"), prompt.get("messages")
    if key is None or messages is None:
        return {}
    several = pipeline.dataset.samples > 1
    found = {key: "sample 1" if several else "its question"}
    if messages == UNREADABLE:  # what the others are is made from the messages
        return found
    digest = text_digest(messages)
    for number in range(1, pipeline.dataset.samples):
        found[pipeline.sample_key(digest, number)] = f"sample {number + 1}"
    if pipeline.fallback_llm is not None:
        for number in range(pipeline.dataset.samples):
            named = f"fallback, sample {number + 1}" if several else "fallback"
            found[pipeline.fallback_key(digest, number)] = named
    return found


def _place(
    lake: Lake, name: str, partition: str | None, row_key: str, prompt: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return the stage where a row is now, and what stands there."""
    if partition is None:
        return "not in the source any more", {}
    for asset in (RESULTS, REJECTED):
        row = _row(lake, name, asset, partition, row_key)
        if row is not None:
            return asset, row
    if _row(lake, name, RESPONSES, partition, row_key) is not None:
        return RESPONSES, {}
    return ("prompts" if prompt else "not run yet"), {}


def _told(
    pipeline: Pipeline,
    row_key: str,
    requests: Sequence[RowRequest],
    questions: Mapping[bytes, str],
    messages: str | None,
) -> list[Explained]:
    told: list[Explained] = []
    scrub = pipeline.scrub
    answers: dict[bytes, str] = {}  # by key, the last one before a request
    unreadable = messages == UNREADABLE
    other = _OTHER if unreadable else _EARLIER
    for one in requests:
        known = messages if one.answer_key in questions and not unreadable else None
        if known is not None and one.kind == "reask":
            known = _reasked(pipeline, known, answers.get(one.answer_key))
        trace = trace_id(one.run_id or one.run_scope, one.dataset, one.partition).hex()
        sent = None if known is None else scrubbed_messages(known, scrub).messages
        if one.text is not None:
            answers[one.answer_key] = one.text
        text = None if one.text is None else scrub(one.text)
        others = one.for_row if one.for_row == row_key else scrub(one.for_row)
        shown = replace(one, text=text, for_row=others)
        question = questions.get(one.answer_key, other)
        problem = _problem(pipeline, one) if one.answer_key in questions else None
        told.append(Explained(shown, question, trace, sent, unreadable, problem))
    return told


def _problem(pipeline: Pipeline, request: RowRequest) -> str | None:
    """Return why an answer that came in order is of no use for the row, None where it is not."""
    if request.rows > 1 and request.state == "settled" and request.payload_state is None:
        return "its part of the answer is missing or damaged"  # its verdict says how
    if request.text is None or request.verdict != "ok":
        return None
    read = pipeline.judge(request.text)
    return pipeline.scrub(read.message) if isinstance(read, Rejection) else None


def _reasked(pipeline: Pipeline, messages: str, answer: str | None) -> str | None:
    """Return the conversation in which a model was told what is wrong with an answer.

    Not known where the answer is gone, or would be accepted today.
    """
    read = pipeline.why_again
    problem = read(answer) if read is not None and answer is not None else None
    return None if answer is None or problem is None else conversation(messages, answer, problem)
