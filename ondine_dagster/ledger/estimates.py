"""What requests will probably use, by what was learnt of others, and kept to be compared.

Owns the table `estimates`. What is here is for people: the reservation of a request uses the true
bound, one token per byte, which is several times as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.budgets import amount_of
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.learnt import ASSUMED_BYTES_PER_TOKEN, Learnt
from ondine_dagster.ledger.pack_estimates import PackedRequests, Size
from ondine_dagster.llm.pack_size import PackPlan
from ondine_dagster.llm.provider import Completion, Provider, Usage, Verdict
from ondine_dagster.wording import plural

# the part of the ceiling that an answer has where nothing tells more
ASSUMED_PART_OF_CEILING = 4
# at most, of what is said with an answer that is asked for once more
_REASON_TOKENS = 1000
_e = schema.estimates.c
# what many dear requests can cost at most passes what a column holds; it is for people to look at
_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """What some requests are expected to use, and what they can at most (money in picodollars).

    `rows` are the questions that they carry, 0 where an older version noted it: one for each.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    expected: int = 0
    most: int = 0
    most_tokens: int = 0
    rows: int = 0

    @property
    def each(self) -> float:
        """Return what a question is expected to cost; 0 where there is none."""
        questions = self.rows or self.requests
        return self.expected / questions if questions else 0

    def __add__(self, other: Estimate) -> Estimate:
        names = [field.name for field in fields(self)]
        return Estimate(*(getattr(self, name) + getattr(other, name) for name in names))


_KEPT = [field.name for field in fields(Estimate)]


class Estimator:
    """Says what requests to one model will probably use."""

    def __init__(
        self,
        provider: Provider,
        learnt: Learnt | None,
        packed: PackedRequests | None = None,
        *,
        reask: bool = False,
        by_form: float | None = None,
    ) -> None:
        """`packed`: how rows are asked together; None: each alone.

        `reask`: an answer that is rejected is asked for once more, with the answer. `by_form`: the
        tokens of an answer as its form tells them, see `answer_tokens`.
        """
        self._reask = reask
        self.by_form = by_form
        self.learnt = learnt
        self._packed = packed
        self._provider = provider
        # what every request has, apart from its messages
        self._around = len(provider.body("[]", provider.ceiling)) - len("[]")
        self._completion = answer_tokens(learnt, by_form, provider.ceiling)
        self._tokens_per_byte = learnt.tokens_per_byte if learnt else 1 / ASSUMED_BYTES_PER_TOKEN

    def size(self, messages: str) -> Size:
        """Return what counts of a request with these messages."""
        return self._bytes(messages), self._provider.prompt_tokens_bound(messages)

    def tokens_of(self, messages: str) -> int:
        """Return the prompt tokens that a request with these messages will probably have."""
        return self._prompt_tokens(self._bytes(messages))

    def tokens_in(self, text: str) -> int:
        """Return the tokens that a text will probably have."""
        return self._prompt_tokens(len(text.encode()))

    @property
    def tokens_around(self) -> int:
        """Return the tokens that every request has, apart from its messages."""
        return self._prompt_tokens(self._around)

    def _bytes(self, messages: str) -> int:
        tokens = self._provider.attachment_tokens(messages).likely
        return len(messages.encode()) + self._around + ASSUMED_BYTES_PER_TOKEN * tokens

    def _prompt_tokens(self, request_bytes: int) -> int:
        return round(request_bytes * self._tokens_per_byte)

    def first(self, sizes: Mapping[Size, int]) -> Estimate:
        """Return the estimate for questions that are asked as they are, so many of each size.

        A second request where an answer is cut off, or rejected, counts in what they can use at
        most.
        """
        raised = self._provider.raised_ceiling
        ceilings = (self._provider.ceiling, *([raised] if raised else []))
        return self._estimate(sizes, self._completion, ceilings)

    def together(self, sizes: Mapping[Size, int], groups: Sequence[int]) -> Estimate:
        """Return the estimate for such questions that may go together, so many in each group.

        At most each is asked three times: in a pack, in one of half the size, and alone.
        """
        alone = self.first(sizes)
        if self._packed is None or alone.requests < 2:
            return alone
        count = alone.requests
        size = tuple(sum(one[i] * many for one, many in sizes.items()) for i in (0, 1))
        total = size[0], size[1]
        answer = self._answer_in_a_pack(self._packed.plan)
        rows = self._packed.rows(count, total, answer)
        if rows == 1:
            return alone
        most, most_tokens = alone.most, alone.most_tokens
        for at_once in {rows, max(1, rows // 2)} - {1}:
            packs = self._packed.packs(groups, total, at_once)
            bound = -(-packs.size[1] // packs.requests)
            worst = self._packed.plan.provider.worst_case(bound, packs.ceiling)
            most += packs.requests * worst
            most_tokens += packs.requests * (bound + packs.ceiling)
        packs = self._packed.packs(groups, total, rows)
        requests, completion = packs.requests, answer * count
        known = self.learnt and (self.learnt.together or self.learnt)
        prompt = packs.size[0] * self._tokens_per_byte
        if known is not None:
            prompt = known.in_larger(requests, packs.size[0])
        each = self._expected_cost(round(prompt / requests), completion / requests, known)
        return Estimate(
            requests,
            round(prompt),
            round(completion),
            requests * each,
            most,
            most_tokens,
            count,
        )

    def _answer_in_a_pack(self, plan: PackPlan) -> float:
        """Return the tokens of the answer to one question of a pack."""
        together = self.learnt and self.learnt.together
        if together and tells_length(together, self.by_form):
            return min(together.completion_tokens, self._provider.ceiling)
        more = plan.packing.answer_bytes / ASSUMED_BYTES_PER_TOKEN
        return max(1.0, min(self._completion + more, self._provider.ceiling))

    def cut(self, sizes: Mapping[Size, int]) -> Estimate:
        """Return the estimate for questions whose answers were cut off under a lower ceiling.

        Nobody knows how long they would have been: counted as long as the ceiling lets them be.
        """
        ceiling = self._provider.raised_ceiling or self._provider.ceiling
        return self._estimate(sizes, ceiling, (ceiling,))

    def _estimate(
        self, sizes: Mapping[Size, int], completion: float, ceilings: tuple[int, ...]
    ) -> Estimate:
        requests = sum(sizes.values())
        prompt = expected = most = most_tokens = 0
        for (request_bytes, bound), count in sizes.items():
            tokens = self._prompt_tokens(request_bytes)
            prompt += count * tokens
            expected += count * self._expected_cost(tokens, completion, self.learnt)
            asked = [(bound, one) for one in ceilings]
            if self._reask:  # with all that came, and the reason
                longest = max(ceilings)
                asked.append((bound + longest + _REASON_TOKENS, longest))
            most += count * sum(self._provider.worst_case(*one) for one in asked)
            most_tokens += count * sum(map(sum, asked))
        answers = round(completion * requests)
        return Estimate(requests, prompt, answers, expected, most, most_tokens, requests)

    def _expected_cost(self, prompt: int, completion: float, known: Learnt | None) -> int:
        """Return what a request costs; its tokens are whole, so a mean lies between two of them."""
        below = int(completion)
        low, high = (self._cost(prompt, one, known) for one in (below, below + 1))
        return low + round((completion - below) * (high - low))

    def _cost(self, prompt: int, completion: int, known: Learnt | None) -> int:
        usage = Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            cached_tokens=round(prompt * known.cached_share) if known else 0,
            cache_write_tokens=round(prompt * known.cache_write_share) if known else 0,
        )
        return self._provider.cost(Completion(Verdict.OK, "", usage=usage)).amount or 0


def answer_tokens(known: Learnt | None, by_form: float | None, ceiling: int) -> float:
    """Return the completion tokens that an answer to one question probably has.

    The dataset's own answers tell best, then `by_form`, what the form of an answer says, then
    answers for other datasets. Where there is nothing of that it is a part of the ceiling.
    """
    if known is not None and tells_length(known, by_form):
        return min(known.completion_tokens, ceiling)
    return min(ceiling / ASSUMED_PART_OF_CEILING if by_form is None else by_form, ceiling)


def tells_length(known: Learnt, by_form: float | None) -> bool:
    """Return whether earlier answers tell more of the length of an answer than its form does."""
    return known.own or by_form is None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a run was expected to use when it began to ask.

    `asked` are the questions that it did ask; 0 while it lasts, and where it was interrupted.
    """

    run_scope: str
    estimate: Estimate
    asked: int = 0


def record(connection: Connection, dataset: str, run_scope: str, estimate: Estimate) -> None:
    """Remember what a step is expected to use; the steps of one run add up."""
    before = find(connection, dataset, run_scope)
    if before is None:
        values = {"dataset": dataset, "run_scope": run_scope, "made_at": now_ms()}
        connection.execute(sa.insert(schema.estimates), [values | _amounts(estimate)])
    else:
        connection.execute(
            sa.update(schema.estimates)
            .where(_e.dataset == dataset, _e.run_scope == run_scope)
            .values(_amounts(before.estimate + estimate))
        )


def record_asked(connection: Connection, dataset: str, run_scope: str, asked: int) -> None:
    """Remember how many questions a step has asked; the steps of one run add up."""
    connection.execute(
        sa.update(schema.estimates)
        .where(_e.dataset == dataset, _e.run_scope == run_scope)
        .values(asked=_e.asked + asked)
    )


def _amounts(estimate: Estimate) -> dict[str, int]:
    return {name: min(getattr(estimate, name), _LARGEST) for name in _KEPT}


def find(connection: Connection, dataset: str, run_scope: str | None = None) -> Recorded | None:
    """Return what was expected of a run, without `run_scope` of the last one."""
    columns = [_e[name] for name in _KEPT]
    statement = sa.select(_e.run_scope, _e.asked, *columns).where(_e.dataset == dataset)
    if run_scope is not None:
        statement = statement.where(_e.run_scope == run_scope)
    row = connection.execute(statement.order_by(_e.made_at.desc()).limit(1)).one_or_none()
    return None if row is None else Recorded(row[0], Estimate(*row[2:]), row[1])


def compared(estimate: Estimate, requests: int, cost: int, asked: int | None = None) -> str:
    """Return how near an estimate came to what was sent and paid.

    `asked`: requests carry several rows, and not always as many; so many rows were asked, 0 where
    nobody knows. None: each request is for one row.
    """
    expected, most, paid = (
        amount_of("usd", one) for one in (estimate.expected, estimate.most, cost)
    )
    text = f"expected {expected} (at most {most}), was {paid}"
    if requests != estimate.requests:  # a run that was stopped says nothing of its estimate
        text += f" in {plural(requests, 'request')} instead of {estimate.requests:,}"
    done, wanted, one = requests, estimate.requests, "request"
    if asked is not None:
        done, wanted, one = asked, estimate.rows, "row"
    fair = estimate.expected * done / wanted if wanted else 0
    if not fair or cost == fair:
        return text
    each = "" if done == wanted else f" a {one}"
    percent = 100 * abs(cost - fair) / fair
    return f"{text}: {percent:.0f} % {'more' if cost > fair else 'less'}{each}"
