"""How many questions go into the next request: declared, or found out while the run goes on.

`auto` begins small, and with few requests at once: what they bring says how the others are made.
Packs whose answers come whole grow, up to the size that is worth it; packs of whose rows too many
are lost shrink. What no budget has room for shrinks too, whoever declared it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from ondine_dagster.engine.job import Job
from ondine_dagster.llm.pack_size import PackPlan, fit_together

_FIRST_AUTO = 10
# shares of the rows, judged once so many were asked: one bad answer of the first few says little
_LOST_TOO_MANY, _LOST_FEW, _ENOUGH_ROWS = 0.05, 0.02, 100
# packs that have to come whole before their size is doubled: at first, and once it was too much
_FIRST_PACKS, _LATER_PACKS = 2, 20
_SAMPLE = 50


class PackSizes:
    """The size of the next pack of one run. Belongs to one event loop."""

    def __init__(
        self,
        plan: PackPlan,
        answer_tokens: Callable[[], float | None],
        most_tokens: int | None = None,
    ) -> None:
        """`answer_tokens` is what the answers of this run have had, None where too few came.

        `most_tokens` is what a request should use at most: of a declared allowance, None without.
        """
        self._plan = plan
        self._most_tokens = most_tokens
        self._answer_tokens = answer_tokens
        self._most = plan.rows or _FIRST_AUTO
        self._packs_to_grow = _FIRST_PACKS
        self._finding_out = plan.rows is None
        self._affordable: int | None = None
        self._asked = self._lost = 0
        self._shared: dict[str, int] = {}
        # tokens that fit into the model, as far as that is known
        self.window: int | None = None

    def next(self, jobs: Sequence[Job]) -> int:
        """Return how many of these questions, which have the same prefix, go next."""
        most = self._most
        if self._plan.rows is None:
            worth = self._worth(jobs)
            self._finding_out &= most < worth
            most = min(most, worth)
        if self._affordable is not None:
            most = min(most, self._affordable)
        if self.window is not None:
            most = self._fitting(jobs, most, self.window, self._plan.provider.ceiling)
        if self._most_tokens is not None:
            answer = self._answer_tokens() or self._plan.completion_tokens
            most = self._fitting(jobs, most, self._most_tokens, round(answer))
        return most

    def _fitting(self, jobs: Sequence[Job], most: int, tokens: int, answer: int) -> int:
        if most == 1:
            return 1
        sizes = (len(job.text.encode()) for job in islice(jobs, most))
        return fit_together(most, sizes, self._shared_bytes(jobs[0]), tokens, answer)

    def room(self, packs: int) -> bool:
        """Return whether one more pack may go while so many are on their way."""
        return not self._finding_out or packs < _FIRST_PACKS

    def learn(self, asked: int, lost: int) -> None:
        """Take in that of `asked` questions, asked together for the first time, `lost` failed."""
        if self._plan.rows is not None:
            return
        self._asked += asked
        self._lost += lost
        enough = self._asked >= max(_ENOUGH_ROWS, self._packs_to_grow * self._most)
        hopeless = self._asked >= _FIRST_PACKS * self._most and 2 * self._lost > self._asked
        if hopeless or (enough and self._lost > _LOST_TOO_MANY * self._asked):
            self._packs_to_grow, self._finding_out = _LATER_PACKS, False
            self._resize(self._most // 2)
        elif self._asked >= self._packs_to_grow * self._most and not self._lost:
            self._resize(2 * self._most)
        elif enough:
            self._resize(2 * self._most if self._lost <= _LOST_FEW * self._asked else self._most)

    def too_dear(self, rows: int) -> None:
        """No budget has room for a pack of so many rows, nor will it have."""
        self._affordable = max(1, rows // 2)

    def _resize(self, most: int) -> None:
        self._most = max(1, most)
        self._asked = self._lost = 0

    def _worth(self, jobs: Sequence[Job]) -> int:
        sample = [len(job.text.encode()) for job in islice(jobs, _SAMPLE)]
        row = sum(sample) / len(sample)
        return self._plan.worth(self._shared_bytes(jobs[0]), row, self._answer_tokens())

    def _shared_bytes(self, job: Job) -> int:
        found = self._shared.get(job.prefix)
        if found is None:
            self._shared.clear()  # most datasets have one prefix
            found = self._shared[job.prefix] = self._plan.shared_bytes(job.prefix)
        return found
