"""Random interleavings of everything that may happen to a ledger, with its audit as the judge.

A model keeps what the provider may have billed, request by request. Whatever is reserved, settled,
released, lost, settled twice, crashed, repeated after a commit in doubt, resolved or declared anew,
in whatever order and across midnight: the counters add up, no limit is passed by a reservation,
nothing is refused that would have fitted, and no question is asked twice at once.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule
from sqlalchemy.engine import Connection

from ondine_dagster.ledger.clock import utc_day
from ondine_dagster.ledger.database import Database, LedgerUnavailable
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.limits import Limit, WindowKind, declare, scope_of
from ondine_dagster.ledger.records import Decision, Reservation
from ondine_dagster.ledger.unknowns import resolve
from ondine_dagster.ledger.writer import wait_for
from ondine_dagster_tests.ledger.builders import (
    WORST,
    answered,
    problems,
    released,
    request,
    unknown,
)

SCOPE = scope_of("reviews")
MAX_UNKNOWN = 2
_DAY_MS = 86_400_000
_START = 1_790_000_000_000  # an afternoon in September 2026
_COSTS = st.sampled_from([0, 7, WORST // 2, WORST, 2 * WORST])  # the last: the bound was broken
_WINDOWS: st.SearchStrategy[WindowKind] = st.sampled_from(["run", "day", "month", "total"])
_AMOUNTS = st.integers(0, 6).map(lambda worst_cases: worst_cases * WORST)
_QUESTIONS, _RUNS, _PROCESSES = st.integers(0, 4), st.sampled_from("ab"), st.integers(0, 1)


@dataclass
class Sent:
    """A request as the provider knows it."""

    item: Reservation
    process: int
    day: str
    state: str = "open"
    cost: int = 0
    answered: bool = False

    @property
    def question(self) -> bytes:
        return self.item.asks[0].answer_key

    def counts(self) -> int:
        """Return what it counts for: what it may have cost at most, or what it did cost."""
        return self.item.reserved if self.state in ("open", "unknown") else self.cost

    def falls_in(self, limit: Limit, run: str, day: str) -> bool:
        mine = limit.window_of(self.item.context.run_scope, self.day)
        return mine == limit.window_of(run, day)


class Interleavings(RuleBasedStateMachine):
    """Two processes on one ledger, two runs, five questions, and limits that come and go."""

    requests: Bundle[Sent] = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self._undo = ExitStack()
        folder = Path(tempfile.mkdtemp(prefix="interleavings"))
        self._undo.callback(shutil.rmtree, folder)
        self.path = folder / "ledger.sqlite"
        self.now = _START
        for module in ("reserve", "settle"):
            name = f"ondine_dagster.ledger.{module}.now_ms"
            self._undo.enter_context(mock.patch(name, lambda: self.now))
        self.ledgers = [Ledger(self.path), Ledger(self.path)]
        self.sent: list[Sent] = []
        self.in_ledger: dict[WindowKind, Limit] = {}

    # what may happen

    @rule(target=requests, process=_PROCESSES, run=_RUNS, question=_QUESTIONS)
    def ask(self, process: int, run: str, question: int) -> Sent | None:
        item = request(question, run_scope=run, max_unknown=MAX_UNKNOWN)
        return self._judge(process, item, self.ledgers[process].reserve(item))

    @rule(process=_PROCESSES, run=_RUNS, window=_WINDOWS, amount=_AMOUNTS)
    def ask_all_at_once_with_a_limit_of_their_own(
        self, process: int, run: str, window: WindowKind, amount: int
    ) -> None:
        own = (Limit(SCOPE, window, "usd", amount),)
        items = [
            request(question, run_scope=run, max_unknown=MAX_UNKNOWN, limits=own)
            for question in range(5)
        ]
        decisions = wait_for(self.ledgers[process].submit, items)
        for item, decision in zip(items, decisions, strict=True):
            assert decision is not None
            self._judge(process, item, decision)

    @rule(process=_PROCESSES, one=requests, cost=_COSTS)
    def answer(self, process: int, one: Sent | None, cost: int) -> None:
        """Also late, and also by another process: it took the lines of a dead one."""
        if one is not None:
            self.ledgers[process].settle(answered(one.item, cost=cost))
            if one.state != "settled":
                one.state, one.cost, one.answered = "settled", cost, True

    @rule(process=_PROCESSES, one=requests)
    def refuse(self, process: int, one: Sent | None) -> None:
        if one is not None:
            self.ledgers[process].settle(released(one.item))
            if one.state in ("open", "unknown"):
                one.state, one.cost = "released", 0

    @rule(process=_PROCESSES, one=requests)
    def lose(self, process: int, one: Sent | None) -> None:
        if one is not None:
            self.ledgers[process].settle(unknown(one.item))
            if one.state == "open":
                one.state = "unknown"

    @rule(one=requests, free=st.booleans())
    def resolve(self, one: Sent | None, free: bool) -> None:
        if one is not None and one.state == "unknown":
            resolve(
                self.ledgers[0].database,
                [one.item.attempt.hex()],
                "free" if free else "charged",
            )
            one.state, one.cost = ("released", 0) if free else ("settled", one.item.reserved)

    @rule(process=_PROCESSES)
    def crash(self, process: int) -> None:
        """The process is killed; another one starts and finds what it left."""
        dead = self.ledgers[process]
        dead._writer.close()
        dead._lock.leave_to_parent()
        dead.database.close()
        self.ledgers[process] = Ledger(self.path)
        for one in self.sent:
            if one.process == process and one.state == "open":
                one.state = "unknown"

    @rule(process=_PROCESSES, committed=st.booleans())
    def doubt_the_next_commit(self, process: int, committed: bool) -> None:
        """The writer loses its database at COMMIT: before it took effect, or after."""
        writer = self.ledgers[process]._writer
        writer._database = _Doubtful(self.ledgers[process].database, committed)

    @rule(window=_WINDOWS, amount=st.none() | _AMOUNTS)
    def declare(self, window: WindowKind, amount: int | None) -> None:
        self.in_ledger.pop(window, None)
        if amount is not None:
            self.in_ledger[window] = Limit(SCOPE, window, "usd", amount)
        with self.ledgers[0].database.write() as connection:
            declare(connection, SCOPE, self.in_ledger.values())

    @rule(days=st.sampled_from([1, 31]))
    def let_time_pass(self, days: int) -> None:
        self.now += days * _DAY_MS

    # what must hold

    def teardown(self) -> None:
        assert problems(self.ledgers[1].database) == []
        for ledger in self.ledgers:
            ledger.close()
        assert problems(Ledger(self.path).database) == []
        self._undo.close()

    def _judge(self, process: int, item: Reservation, decision: Decision) -> Sent | None:
        """Compare a decision with what the model says, and take a request in that goes."""
        question = item.asks[0].answer_key
        history = [one for one in self.sent if one.question == question]
        lost = sum(one.state == "unknown" for one in history)
        if any(one.answered for one in history):
            assert list(decision.hits) == [question]
        elif any(one.state == "open" for one in history):
            assert decision == Decision(taken=[question])
        elif lost > MAX_UNKNOWN:
            assert decision == Decision(held={question: lost})
        else:
            return self._judge_money(process, item, decision)
        return None

    def _judge_money(self, process: int, item: Reservation, decision: Decision) -> Sent | None:
        limits = [*item.context.limits, *self.in_ledger.values()]
        if any(self._used(limit, item, "settled", "unknown") > limit.amount for limit in limits):
            assert decision.broke is not None
        elif any(self._used(limit, item) > limit.amount for limit in limits):
            assert decision == Decision(wait=True)
        else:
            assert decision == Decision(go=[item.asks[0].answer_key])
            self.sent.append(Sent(item, process, utc_day(self.now)))
            return self.sent[-1]
        return None

    def _used(self, limit: Limit, item: Reservation, *states: str) -> int:
        """Return what would be used of a limit with `item`, counting requests in these states."""
        run, day = item.context.run_scope, utc_day(self.now)
        counted = [one for one in self.sent if not states or one.state in states]
        return item.reserved + sum(one.counts() for one in counted if one.falls_in(limit, run, day))


class _Doubtful:
    """A database whose next commit ends with an error."""

    def __init__(self, database: Database, committed: bool) -> None:
        self.path = database.path
        self._database = database
        self._committed = committed
        self._done = False

    @contextmanager
    def write(self) -> Iterator[Connection]:
        doubt, self._done = not self._done, True
        with self._database.write() as connection:
            yield connection
            if doubt and not self._committed:
                raise LedgerUnavailable("lost before the commit")
        if doubt:
            raise LedgerUnavailable("lost after the commit")


Interleavings.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # to shrink takes minutes; what failed fails again as it is
    suppress_health_check=list(HealthCheck),
)
TestInterleavings = Interleavings.TestCase
