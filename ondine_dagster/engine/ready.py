"""Questions that are ready to be asked, and who takes them: as many together as may be.

First come, first served. Questions go together that differ in their last message only and belong
to one partition. Repairs go first, as they are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from ondine_dagster.engine.job import Job, Pack


class Ready:
    """A queue of jobs, taken in packs. Belongs to one event loop."""

    def __init__(self, size: Callable[[Sequence[Job]], int] | None = None) -> None:
        """`size` is how many of the questions that may go together do so next; None: each alone."""
        self._size = size
        self._packs: deque[Pack] = deque()
        self._groups: dict[tuple[str, str, int] | None, deque[Job]] = {}
        self._takers: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.never_asked = 0

    def put(self, job: Job) -> None:
        """Add a question."""
        company = job.goes_with() if self._size else None
        self._groups.setdefault(company, deque()).append(job)
        self._added(job)

    def put_pack(self, pack: Pack) -> None:
        """Add questions that go together as they are."""
        self._packs.append(pack)
        self._added(*pack.jobs)

    def close(self) -> None:
        """Nothing more will be added, except by those who take."""
        self._closed = True
        while self._takers:
            self._wake()

    async def take(self) -> Pack | None:
        """Return the next pack; None when the queue is empty and closed."""
        while (pack := self._next()) is None and not self._closed:
            turn = asyncio.get_running_loop().create_future()
            self._takers.append(turn)
            await turn
        if pack is not None:
            self.never_asked -= sum(not job.attempts for job in pack.jobs)
        return pack

    def _added(self, *jobs: Job) -> None:
        self.never_asked += sum(not job.attempts for job in jobs)
        self._wake()

    def _wake(self) -> None:
        while self._takers:
            turn = self._takers.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _next(self) -> Pack | None:
        if self._packs:
            return self._packs.popleft()
        if not self._groups:
            return None
        company, jobs = next(iter(self._groups.items()))
        most = self._size(jobs) if self._size and company else 1
        pack = Pack(_some(jobs, most))
        if not jobs:
            del self._groups[company]
        return pack


def _some(jobs: deque[Job], most: int) -> list[Job]:
    """Take the first of `jobs`. The same text twice stays apart: one would copy the other."""
    taken: list[Job] = []
    texts: set[str] = set()
    while jobs and len(taken) < most and jobs[0].question.messages not in texts:
        job = jobs.popleft()
        texts.add(job.question.messages)
        taken.append(job)
    return taken
