"""Asks rejected rows again: which ones, and how what comes takes its place among the others.

The rows of a partition that are not asked stay as they are in its file. What was paid since that
file was written, by a process that died for instance, is taken before anybody is asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from ondine_dagster.assets.rows.merge import Asked, Ended, Merge, rows_of
from ondine_dagster.assets.rows.outcomes import FEED_ROWS, stored_outcome
from ondine_dagster.assets.rows.packs import estimator_of
from ondine_dagster.assets.rows.purged_files import refuse_purged
from ondine_dagster.assets.rows.redaction import as_judged
from ondine_dagster.assets.rows.samples import put_together, read_row, read_sample, together
from ondine_dagster.assets.shared.partition_counts import RESPONSES
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.engine.rows import (
    WAITING,
    Chunk,
    Outcome,
    PartitionFeed,
    Question,
    RowOutcome,
)
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.estimates import Estimate
from ondine_dagster.ledger.identity import text_digest
from ondine_dagster.ledger.learnt import learnt
from ondine_dagster.ledger.lookup import look_up, paid_in, usable
from ondine_dagster.ledger.pack_estimates import Size
from ondine_dagster.llm.asking_again import Chance, Selection, chance, may_go_together, selection
from ondine_dagster.llm.prices import usd
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.parquet_files import LakeFile
from ondine_dagster.wording import plural

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from ondine_dagster.engine.engine import Engine
    from ondine_dagster.ledger.ledger import Ledger

# of a run that asks rejected rows again: their classes and codes, or `all`
RETRY_TAG = "ondine/retry"
_PROMPTS = "prompts"
_SAME_ROWS = ("ondine.order", "ondine.content_hash")
_NAMES = ("_row_key", "answer_key", "messages")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A rejected row: why, and its questions, where it is asked again: those without an answer."""

    error_class: str
    code: str
    questions: tuple[Question, ...] = ()

    @property
    def could_be_named(self) -> bool:
        """Return whether it was left out, and would be asked if it were named."""
        return not self.questions and chance(self.error_class, self.code) is not Chance.NONE


@dataclass(slots=True)
class RetryPlan:
    """What asking again will do: rows by code, and what their requests will use.

    `left_out` are rejected rows that were not chosen and could be. `answered` rows have a newer
    answer in the ledger, which costs nothing.
    """

    chosen: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    partitions: list[str] = field(default_factory=list)
    rows: int = 0
    questions: int = 0
    answered: int = 0
    estimate: Estimate = field(default_factory=Estimate)

    def sentence(self, model: str) -> str:
        """Return what will be asked of `model`, and what it can cost at most."""
        if not self.rows:
            return "no rejected row to ask again"
        text = f"to ask again: {plural(self.rows, 'rejected row')}, {counted(self.chosen)}"
        if self.answered:
            text += f"; {self.answered:,} of them have a newer answer already"
        most, expected = (usd(one) for one in (self.estimate.most, self.estimate.expected))
        return (
            f"{text}; {plural(self.estimate.requests, 'request')} to {model}: "
            f"${expected:.6f} expected, "
            f"${most:.6f} at most"
        )


def retry_of(
    tags: Mapping[str, str], pipeline: Pipeline, lake: Lake, run_scope: str
) -> Retry | None:
    """Return what the tags of a run ask for; None where it is a usual run.

    Raises OndineError for a class that cannot be asked again.
    """
    text = tags.get(RETRY_TAG)
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    return Retry(pipeline, lake, selection([name for name in names if name]), run_scope)


class Retry:
    """The rejected rows of some partitions, asked once more. Use it for one step.

    A run asks a row once: where Dagster repeats a run that failed, what it has paid is not asked
    again.
    """

    def __init__(
        self, pipeline: Pipeline, lake: Lake, chosen: Selection, run_scope: str = ""
    ) -> None:
        self.llm = pipeline.fallback_llm or pipeline.dataset.llm
        self.provider = pipeline.fallback or pipeline.provider
        self.not_asked: Counter[str] = Counter()  # chosen rows that stay as they were, by reason
        self._pipeline = pipeline
        self._lake = lake
        self._chosen = chosen
        self._run_scope = run_scope

    def announce(
        self, partitions: Sequence[str], ledger: Ledger, log: Callable[[str], object]
    ) -> tuple[int, Estimate]:
        """Say what will be asked; return how many questions, and what they will use."""
        with ledger.database.read() as connection:
            plan = self.plan(partitions, connection)
        log(f"{self._pipeline.name}: {plan.sentence(self.provider.model)}")
        return plan.questions, plan.estimate

    def chunks(self, engine: Engine, ledger: Ledger, partitions: Sequence[str]) -> Generator[Chunk]:
        """Ask, and yield all rows of the partitions: those that were asked between the others.

        Raises OndineError where a partition has no answers yet, or those of other rows or of
        another declaration.
        """
        for partition in partitions:
            self._open(partition).close()  # before money is spent
        asked: dict[str, deque[Asked]] = {}
        merges: dict[str, Merge] = {}
        with ExitStack() as stack:
            sizes: defaultdict[str, deque[int]] = defaultdict(deque)
            rows = engine.run(self._feeds(partitions, ledger, asked, sizes))
            if self._pipeline.dataset.samples > 1:
                rows = put_together(rows, lambda partition: sizes[partition].popleft())
            ended = stack.enter_context(closing(rows))
            for chunk in ended:
                key = chunk.partition
                if key not in merges:
                    merges[key] = Merge(self._answers(key), key, asked[key], self.judged)
                    stack.callback(merges[key].close)
                yield from merges[key].rows_of(chunk)
                if chunk.last:
                    merges.pop(key).close()

    def plan(self, partitions: Sequence[str], connection: Connection | None) -> RetryPlan:
        """Return what `chunks` would ask for. Reads only; without a ledger nothing is known."""
        self._pipeline.keys.look(connection)
        plan, seen = RetryPlan(), set[bytes]()
        alone, together, groups = Counter[Size](), Counter[Size](), list[int]()
        known = learnt(connection, self.provider, self._pipeline.name) if connection else None
        estimator = estimator_of(self._pipeline, known, retry=True)
        for partition in partitions:
            before, packable = plan.rows, together.total()
            for batch in self._batches(partition, connection):
                plan.left_out.update(one.code for one in batch if one.could_be_named)
                chosen = [one for one in batch if one.questions]
                plan.chosen.update(one.code for one in chosen)
                plan.rows += len(chosen)
                plan.questions += sum(len(one.questions) for one in chosen)
                to_ask = self._unanswered(chosen, connection)
                plan.answered += sum(to_ask.isdisjoint(one.questions) for one in chosen)
                for question in sorted(to_ask, key=lambda one: one.answer_key):
                    if question.answer_key not in seen:
                        sizes = alone if question.alone else together
                        sizes[estimator.size(question.messages)] += 1
                        seen.add(question.answer_key)
            if plan.rows > before:
                plan.partitions.append(partition)
            if together.total() > packable:
                groups.append(together.total() - packable)
        plan.estimate = estimator.first(alone) + estimator.together(together, groups)
        return plan

    def judged(self, old: Ended, new: Ended, numbers: Sequence[int]) -> Ended:
        """Return how a row ends that was asked again, and the key of its question.

        `numbers` are its samples that were asked, where it has several.
        """
        (before, key), (now, _) = old, new
        if not before.samples:
            return self._judged(old, new)
        samples = list(before.samples)
        for number, one in zip(numbers, now.samples, strict=True):
            there = samples[number]
            ended, own = self._judged((there, there.answer_key), (one, one.answer_key))
            samples[number] = replace(ended, answer_key=own)
        return together(samples), key

    def _judged(self, old: Ended, new: Ended) -> Ended:
        """Return how a question ends that was asked again, and its key.

        An answer counts, good or bad. Where none came, the one that is there stays: it is paid.
        """
        (before, key), (now, asked) = old, new
        if now.outcome in WAITING:
            self.not_asked[now.message or ""] += 1
        elif now.text is not None or before.text is None:
            return replace(now, model_requested=self.provider.model), asked
        if not now.attempts:
            return old
        costs = replace(
            before,
            kept=False,
            cost=now.cost,
            unknown_cost=now.unknown_cost,
            cost_source="reused" if before.cost_source else None,
            attempts=now.attempts,
            requests=now.requests,
            latency_ms=now.latency_ms,
        )
        return costs, key

    def _unanswered(
        self, chosen: Sequence[Rejected], connection: Connection | None
    ) -> set[Question]:
        ceiling = self.provider.raised_ceiling or self.provider.ceiling
        questions = [question for one in chosen for question in one.questions]
        found = look_up(connection, {one.answer_key for one in questions}) if connection else {}

        def served(question: Question) -> bool:
            answer = found.get(question.answer_key)
            return bool(answer and usable(answer, ceiling) and question.served_by(answer))

        return {question for question in questions if not served(question)}

    def _feeds(
        self,
        partitions: Sequence[str],
        ledger: Ledger,
        asked: dict[str, deque[Asked]],
        sizes: Mapping[str, deque[int]],
    ) -> Iterator[PartitionFeed]:
        for partition in partitions:
            asked[partition] = deque()
            questions = self._questions(partition, ledger, asked[partition], sizes[partition])
            yield PartitionFeed(partition, questions)

    def _questions(
        self, partition: str, ledger: Ledger, asked: deque[Asked], sizes: deque[int]
    ) -> Iterator[Sequence[Question | RowOutcome]]:
        rejected = self._rejected(partition)
        while batch := list(islice(rejected, FEED_ROWS)):
            with ledger.database.read() as connection:
                batch = self._not_asked_yet(batch, connection)
            rows = [one.questions for one in batch if one.questions]
            sizes.extend(map(len, rows))
            asked.extend((one[0].row_key, tuple(each.sample for each in one)) for one in rows)
            yield [question for one in rows for question in one]

    def _batches(self, partition: str, connection: Connection | None) -> Iterator[list[Rejected]]:
        rejected = self._rejected(partition)
        while batch := list(islice(rejected, FEED_ROWS)):
            yield self._not_asked_yet(batch, connection) if connection else batch

    def _not_asked_yet(self, batch: Sequence[Rejected], connection: Connection) -> list[Rejected]:
        """Leave out what this very run has asked and paid, before Dagster repeated it."""
        before = {each.instead_of for one in batch for each in one.questions}
        paid = paid_in(connection, [one for one in before if one], self._run_scope)
        left = [
            replace(one, questions=tuple(q for q in one.questions if q.instead_of not in paid))
            for one in batch
        ]
        return [
            now for one, now in zip(batch, left, strict=True) if now.questions or not one.questions
        ]

    def _rejected(self, partition: str) -> Iterator[Rejected]:
        """Yield the rejected rows of a partition, in order."""
        with closing(self._open(partition)) as prompts, closing(self._answers(partition)) as file:
            for row, prompt in zip(rows_of(file), rows_of(prompts, _NAMES), strict=True):
                why = self._why(row)
                if why is not None:
                    chosen = prompt["messages"] is not None and self._chosen.takes(*why)
                    questions = self._questions_of(row, prompt, why) if chosen else ()
                    yield Rejected(*why, questions)

    def _why(self, row: Mapping[str, Any]) -> tuple[str, str] | None:
        if row["outcome"] == Outcome.ERROR:
            return row["error_class"], row["error_code"]
        if row["outcome"] != Outcome.ANSWERED:
            return None
        read = read_row(self._pipeline, self._stored(row))
        return (read.error_class, read.code) if isinstance(read, Rejection) else None

    def _stored(self, row: Mapping[str, Any]) -> RowOutcome:
        return as_judged(self._pipeline, stored_outcome(row))

    def _questions_of(
        self, row: Mapping[str, Any], prompt: Mapping[str, Any], why: tuple[str, str]
    ) -> tuple[Question, ...]:
        """Return what is asked again of a row: of several samples those that are of no use."""
        samples = row.get("samples") or (row,)
        if len(samples) == 1:
            return (self._question(row["_row_key"], samples[0], prompt, 0, why),)
        read = [read_sample(self._pipeline, self._stored(one)) for one in samples]
        return tuple(
            self._question(row["_row_key"], one, prompt, number, (found.error_class, found.code))
            for number, (one, found) in enumerate(zip(samples, read, strict=True))
            if isinstance(found, Rejection)
        )

    def _question(
        self,
        row_key: str,
        ended: Mapping[str, Any],
        prompt: Mapping[str, Any],
        number: int,
        why: tuple[str, str],
    ) -> Question:
        pipeline, digest = self._pipeline, text_digest(prompt["messages"])
        key = prompt["answer_key"] if number == 0 else pipeline.sample_key(digest, number)
        if pipeline.fallback is not None:
            key = pipeline.fallback_key(digest, number)
        # what was never asked like this has no answer that it could be asked instead of
        before = ended.get("attempt_id") if ended["answer_key"] == key else None
        alone = not may_go_together(*why)
        return Question(row_key, key, prompt["messages"], before, number, alone=alone)

    def _open(self, partition: str) -> LakeFile:
        """Open the prompts of a partition, which have to be those that were asked."""
        name, lake = self._pipeline.name, self._lake
        if not lake.exists(name, RESPONSES, partition):
            raise OndineError(
                f"{name} {partition} was never asked, so it has no rejected rows. Run it: "
                f"ondine-dagster run {name} --partition {partition}"
            )
        asked = lake.metadata(name, RESPONSES, partition)
        refuse_purged(name, partition, asked)
        prompts = lake.open(name, _PROMPTS, partition)
        if not self._pipeline.keys.made(asked):
            raise _refused(
                prompts,
                f"{name} {partition}: the answer keys in `responses` are not made as the ledger "
                "makes them now. Bring them over: ondine-dagster rekey. Where that does not help, "
                f"run it: ondine-dagster run {name} --partition {partition}",
            )
        for notes in (asked, prompts.metadata):
            if notes["ondine.question_version"] != self._pipeline.question_version:
                raise _refused(
                    prompts,
                    f"{name} {partition}: prompt, llm or output fields have "
                    "changed since it was asked: a few rows of it under the new declaration would "
                    f"mix two. Ask all of it: ondine-dagster run {name} --partition {partition}",
                )
        if any(asked[note] != prompts.metadata[note] for note in _SAME_ROWS):
            raise _refused(
                prompts,
                f"{name} {partition}: its rows have changed since it was "
                f"asked. Run it first: ondine-dagster run {name} --partition {partition}",
            )
        return prompts

    def _answers(self, partition: str) -> LakeFile:
        return self._lake.open(self._pipeline.name, RESPONSES, partition)


def counted(codes: Counter[str]) -> str:
    """Return rows by code in words."""
    return ", ".join(f"{rows:,} {code}" for code, rows in codes.most_common())


def _refused(file: LakeFile, message: str) -> OndineError:
    file.close()
    return OndineError(message)
