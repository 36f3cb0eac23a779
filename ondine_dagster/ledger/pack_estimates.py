"""What requests for several rows are made of: bytes that they have once, and bytes for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ondine_dagster.llm.pack_size import MOST_AUTO, PackPlan
from ondine_dagster.llm.packing import user_message
from ondine_dagster.llm.provider import Provider

_CODE = "bcd"

Size = tuple[int, int]  # bytes of a request, and the bound of its prompt tokens


@dataclass(frozen=True, slots=True)
class Packs:
    """Some requests for several rows each: how many, all their sizes, and the ceiling of each."""

    requests: int
    size: Size
    ceiling: int


class PackedRequests:
    """Tells what rows that would have a request each come to together."""

    def __init__(self, provider: Provider, plan: PackPlan, prefix: str) -> None:
        """`prefix` are the messages that all rows have in common, see `PackableMessages`."""
        self.plan = plan
        nothing = plan.packing.empty
        self._alone = _size(provider, user_message(prefix, nothing))
        self._shared = _size(plan.provider, plan.packing.compose(prefix, []))
        one = _size(plan.provider, plan.packing.compose(prefix, [(_CODE, nothing)]))
        self._item = one[0] - self._shared[0], one[1] - self._shared[1]

    def rows(self, count: int, size: Size, answer_tokens: float) -> int:
        """Return how many of `count` rows go together, whose single requests have `size` in all."""
        if self.plan.rows is not None:
            return self.plan.rows
        row = (size[0] - count * self._alone[0]) / count + self._item[0]
        return min(MOST_AUTO, self.plan.worth(self._shared[0], max(0, row), answer_tokens))

    def packs(self, groups: Sequence[int], size: Size, rows: int) -> Packs:
        """Return the requests for groups of rows, `rows` in each of them at most."""
        count, requests = sum(groups), sum(-(-group // rows) for group in groups)
        both = (
            alone_bytes + requests * shared + count * (item - alone)
            for alone_bytes, shared, item, alone in zip(
                size, self._shared, self._item, self._alone, strict=True
            )
        )
        each = self.plan.provider.ceiling
        fullest = min(rows, max(groups, default=1))
        return Packs(requests, (next(both), next(both)), self.plan.ceiling(fullest, each))


def _size(provider: Provider, messages: str) -> Size:
    body = provider.body(messages, provider.ceiling)
    return len(body), provider.prompt_tokens_bound(messages)
