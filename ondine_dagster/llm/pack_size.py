"""How many rows in one request are worth it, and how many fit. Pure.

More rows share what is the same for all of them, and each further row saves less. Beyond the size
at which the shared part is a twentieth of what a row costs anyhow, a pack only has more to lose.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ondine_dagster.llm.packing import Packing
from ondine_dagster.llm.provider import Completion, Provider, Usage, Verdict

MOST_AUTO = 50
_SHARED = 20  # the shared part may be this part of a row's own cost
_BYTES_PER_TOKEN = 4
# so that what is counted to fit does fit: text in other scripts has more tokens
_CAREFUL_BYTES_PER_TOKEN = 3


@dataclass(frozen=True, slots=True)
class PackPlan:
    """How several questions go together: `packing`, and `provider`, the model with its schema.

    `rows` is how many at most, None: found out. `most_completion_tokens` is what the model can put
    out at most, None where nobody knows. `completion_tokens` is what an answer to one question
    probably has.
    """

    packing: Packing
    provider: Provider
    rows: int | None
    completion_tokens: float
    most_completion_tokens: int | None = None

    def ceiling(self, rows: int, each: int) -> int:
        """Return the most completion tokens of a request for `rows` questions."""
        most = self.most_completion_tokens
        return rows * each if most is None else max(each, min(rows * each, most))

    def worth(
        self, shared_bytes: float, row_bytes: float, answer_tokens: float | None = None
    ) -> int:
        """Return how many rows of `row_bytes` are worth to be asked together where none is said.

        `answer_tokens` is what an answer has, where that is known better.
        """
        answer = answer_tokens or self.completion_tokens
        worth = worth_together(self.provider, shared_bytes, row_bytes, answer)
        most = self.most_completion_tokens
        return worth if most is None else max(1, min(worth, most // self.provider.ceiling))

    def shared_bytes(self, prefix: str) -> int:
        """Return what a request has but once, whatever the number of its rows."""
        messages = self.packing.compose(prefix, [])
        return len(self.provider.body(messages, self.provider.ceiling))


def worth_together(
    provider: Provider, shared_bytes: float, row_bytes: float, completion_tokens: float
) -> int:
    """Return how many rows are worth to be asked together, by the prices of `provider`.

    `shared_bytes` is what a request has once, `row_bytes` what each row adds, `completion_tokens`
    the answer to one. Where nothing costs anything tokens count alike.
    """
    shared, own = round(shared_bytes / _BYTES_PER_TOKEN), round(row_bytes / _BYTES_PER_TOKEN)
    nothing = _cost(provider, 0, 0)
    answer = max(1, round(completion_tokens))
    shared_cost = _cost(provider, shared, 0) - nothing
    own_cost = _cost(provider, own, answer) - nothing
    if not own_cost:
        shared_cost, own_cost = shared, own + answer
    return max(1, min(MOST_AUTO, -(-_SHARED * shared_cost // max(1, own_cost))))


def fit_together(
    most: int, sizes: Iterable[int], shared_bytes: int, window: int, ceiling_each: int
) -> int:
    """Return how many of the next rows, of these `sizes` in bytes, fit into `window` tokens.

    Their answers have to fit too, `ceiling_each` tokens for each. It is at least one.
    """
    left = window - shared_bytes // _CAREFUL_BYTES_PER_TOKEN
    count = 0
    for size in sizes:
        left -= size // _CAREFUL_BYTES_PER_TOKEN + ceiling_each
        if count == most or (left < 0 and count):
            break
        count += 1
    return max(1, count)


def _cost(provider: Provider, prompt: int, completion: int) -> int:
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion)
    return provider.cost(Completion(Verdict.OK, "", usage=usage)).amount or 0
