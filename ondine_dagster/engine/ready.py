"""Questions that are ready to be asked, and who takes them: as many together as may be.

First come, first served. Questions go together that differ in their last message only and belong
to one partition. Repairs go first, as they are.
"""

from __future__ import annotations

import asyncio
from collections import deque

from ondine_dagster.engine.job import Company, Job, Pack
from ondine_dagster.engine.pack_sizes import PackSizes


class Ready:
    """A queue of jobs, taken in packs. Belongs to one event loop."""

    def __init__(self, sizes: PackSizes | None = None) -> None:
        """`sizes` tells how many questions go together; None: each alone."""
        self._sizes = sizes
        self._packs: deque[Pack] = deque()
        self._groups: dict[Company | None, deque[Job]] = {}
        self._takers: deque[asyncio.Future[None]] = deque()
        self._out = 0  # packs of several questions that were taken and not given back
        self._closed = False
        self.never_asked = 0

    def put(self, job: Job) -> None:
        """Add a question."""
        company = job.goes_with() if self._sizes else None
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
        """Return the next pack, to be given back by `done`; None when it is empty and closed."""
        while (pack := self._next()) is None and not (self._closed and self._empty):
            turn = asyncio.get_running_loop().create_future()
            self._takers.append(turn)
            await turn
        if pack is not None:
            self._out += len(pack.jobs) > 1
            self.never_asked -= sum(not job.attempts for job in pack.jobs)
        return pack

    def done(self, *, several: bool) -> None:
        """A pack that was taken has been asked, of `several` questions or one."""
        self._out -= several
        if self._sizes is not None:  # others may have waited for room, or for the end
            while self._takers:
                self._wake()

    @property
    def _empty(self) -> bool:
        return not self._packs and not self._groups

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
        (company, jobs), most = next(iter(self._groups.items())), 1
        if self._sizes is not None and company is not None:
            if not self._sizes.room(self._out):
                return None
            most = self._sizes.next(jobs)
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
