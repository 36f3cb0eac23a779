"""Which rows `verify` asks again: drawn by chance from all that are answered, each as likely.

Owns what the tags of a run say about it. The same seed draws the same rows, for as long as the same
rows are answered.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from ondine_dagster.assets.rows.merge import rows_of
from ondine_dagster.assets.rows.outcomes import FEED_ROWS
from ondine_dagster.assets.shared.partition_counts import RESPONSES
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.engine.rows import Outcome, Question, stored
from ondine_dagster.errors import OndineError
from ondine_dagster.storage.lake import Lake

if TYPE_CHECKING:
    from ondine_dagster.ledger.ledger import Ledger

ROWS_TAG = "ondine/verify_rows"
SEED_TAG = "ondine/verify_seed"
MAX_DRIFT_TAG = "ondine/max_drift"  # in per cent
FROM_TAG = "ondine/verify_from"
ALL_PARTITIONS = "all"
DEFAULT_ROWS = 20
_PROMPTS = "prompts"

# a drawn row: its place in the draw, its partition and its key
_Drawn = tuple[bytes, str, str]


@dataclass(frozen=True, slots=True)
class Sampled:
    """An answered row: its question and its answer as it is in the ledger.

    `position` is its place among the drawn rows of its partition.
    """

    partition: str
    position: int
    question: Question
    answer: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the tags of a run ask for.

    `max_drift` is a share (0 to 1), None where the declaration decides. `everywhere`: rows of all
    partitions, not only of those of the run.
    """

    rows: int
    seed: str
    max_drift: float | None
    everywhere: bool

    @classmethod
    def of(cls, tags: Mapping[str, str], run_id: str) -> Wanted:
        """Read the tags; without a seed it is the id of the run. Raises OndineError."""
        start = tags.get(FROM_TAG)
        if start not in (None, ALL_PARTITIONS):
            raise OndineError(
                f"The tag {FROM_TAG} is {start!r}; it must be {ALL_PARTITIONS!r}, or not be there."
            )
        drift = tags.get(MAX_DRIFT_TAG)
        return cls(
            int(_number(ROWS_TAG, tags.get(ROWS_TAG, str(DEFAULT_ROWS)), 1, 100_000, whole=True)),
            tags.get(SEED_TAG, run_id),
            None if drift is None else _number(MAX_DRIFT_TAG, drift, 0, 100) / 100,
            start is not None,
        )


def _number(tag: str, text: str, least: int, most: int, *, whole: bool = False) -> float:
    try:
        found = int(text) if whole else float(text)
    except ValueError:
        found = least - 1
    if not least <= found <= most:  # also what is no number at all
        raise OndineError(f"The tag {tag} is {text!r}; it must be a number from {least} to {most}.")
    return found


def sample(
    pipeline: Pipeline,
    ledger: Ledger,
    lake: Lake,
    partitions: Sequence[str],
    wanted: Wanted,
) -> list[Sampled]:
    """Return up to so many rows with a good answer to the present question, in order.

    Of several samples the first stands for its row. Raises OndineError where there is none, which
    says so where the key of their texts is not given.
    """
    count = drawn = wanted.rows
    while True:
        # the smallest hashes are a draw by chance, and need no list of all rows
        lots = heapq.nsmallest(drawn, _lots(pipeline, lake, partitions, wanted.seed))
        known = _known(pipeline, ledger, lake, lots)
        if len(known) >= count or len(lots) < drawn:
            break
        drawn *= 4  # some of them cannot be compared, such as those whose text was purged
    if not known:
        for partition in partitions:
            if lake.exists(pipeline.name, _PROMPTS, partition):
                with closing(lake.open(pipeline.name, _PROMPTS, partition)) as prompts:
                    prompts.refuse_other_key()
        raise OndineError(
            f"Dataset {pipeline.name} has no row to ask again here: none has a good answer of its "
            "own model to the present question whose text is still there. Run it first."
        )
    place = {key: index for index, key in enumerate(partitions)}
    return sorted(known[:count], key=lambda one: (place[one.partition], one.position))


def _lots(pipeline: Pipeline, lake: Lake, partitions: Sequence[str], seed: str) -> Iterator[_Drawn]:
    """Yield the rows whose own model has answered the present question."""
    name, start = pipeline.name, sha256(f"{seed}|".encode())
    for partition in partitions:
        if not all(lake.exists(name, asset, partition) for asset in (_PROMPTS, RESPONSES)):
            continue
        with (
            closing(lake.open(name, _PROMPTS, partition)) as prompts,
            closing(lake.open(name, RESPONSES, partition)) as responses,
        ):
            if prompts.metadata["ondine.order"] != responses.metadata["ondine.order"]:
                continue
            if prompts.metadata["ondine.question_version"] != pipeline.question_version:
                continue
            if not prompts.readable:
                continue  # a lost key: there is nothing to ask with
            asked = rows_of(prompts, ("answer_key",))
            ended = rows_of(responses, ("_row_key", "outcome", "answer_key"))
            for question, row in zip(asked, ended, strict=True):
                key = row["answer_key"]
                if row["outcome"] != Outcome.ANSWERED or key != question["answer_key"]:
                    continue
                lot = start.copy()
                lot.update(row["_row_key"].encode())
                yield lot.digest(), partition, row["_row_key"]


def _known(pipeline: Pipeline, ledger: Ledger, lake: Lake, lots: Sequence[_Drawn]) -> list[Sampled]:
    """Return those of the rows whose answer is in the ledger and good, in the order of the draw."""
    drawn: dict[str, set[str]] = {}
    for _, partition, row_key in lots:
        drawn.setdefault(partition, set()).add(row_key)
    asked = {
        (partition, one["_row_key"]): one
        for partition, keys in drawn.items()
        for one in _prompts(pipeline, lake, partition, keys)
    }
    position = {one: index for index, one in enumerate(asked)}
    answer_keys = {one["answer_key"] for one in asked.values()}
    # not what the files say: they may hold less, and other values
    answers = ledger.look_up(answer_keys, pipeline.provider.ceiling)
    found = []
    for _, partition, row_key in lots:
        key, messages = (asked[partition, row_key][name] for name in ("answer_key", "messages"))
        answer = answers.get(key)
        if answer is None or answer.text is None or stored(answer).outcome is not Outcome.ANSWERED:
            continue
        if isinstance(pipeline.judge(answer.text), dict):
            question = Question(row_key, key, messages, answer.attempt, verify=True)
            place = position[partition, row_key]
            found.append(Sampled(partition, place, question, answer.text))
    return found


def _prompts(
    pipeline: Pipeline, lake: Lake, partition: str, keys: set[str]
) -> Iterator[dict[str, Any]]:
    names = ("_row_key", "answer_key", "messages")
    with closing(lake.open(pipeline.name, _PROMPTS, partition)) as file:
        for batch in file.iter_batches(FEED_ROWS, names, keys):
            yield from batch.to_pylist()
