"""Many threads, many processes, killed processes: nothing is lost, nothing is asked twice."""

from __future__ import annotations

import random
import sqlite3
import threading
from pathlib import Path

import pytest

from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.records import Reservation, Settlement
from ondine_dagster.ledger.unknowns import resolve, unknown_attempts
from ondine_dagster.llm.provider import Verdict
from ondine_dagster.storage.ledger_tables import ledger_table
from ondine_dagster_tests.ledger.builders import (
    COST,
    WORST,
    answered,
    counter,
    go,
    key,
    problems,
    released,
    request,
    rows,
    unknown,
    value,
)
from ondine_dagster_tests.ledger.children import Child


def call_indices(path: Path, row_key: str = "r1") -> dict[str, int]:
    """Return the number of each request among those for a row, as people see it."""
    table = ledger_table(path, "asks").to_pylist()
    return {one["attempt"]: one["call_index"] for one in table if one["row_key"] == row_key}


@pytest.mark.behaviour("E-1")
def test_calls_of_one_row_from_64_threads_are_all_recorded_and_numbered(
    ledger: Ledger, path: Path
) -> None:
    start = threading.Barrier(64)
    errors: list[BaseException] = []

    def call(thread: int) -> None:
        try:
            start.wait()
            for number in range(50):
                ledger.settle(answered(go(ledger, request(f"{thread}/{number}"))))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(call_indices(path).values()) == list(range(1, 3201))
    assert counter(ledger.database) == (3200 * COST, 0)
    assert counter(ledger.database, "requests") == (3200, 0)


@pytest.mark.behaviour("E-1b")
def test_numbers_of_calls_go_on_after_a_restart_and_none_is_used_again(path: Path) -> None:
    first = Ledger(path)
    for number in range(5):
        first.settle(answered(go(first, request(number))))
    first.close()
    before = call_indices(path)
    again = Ledger(path)
    again.settle(unknown(go(again, request("later"))))
    again.settle(answered(go(again, request("later"))))
    again.close()
    after = call_indices(path)
    assert {attempt: after[attempt] for attempt in before} == before
    assert sorted(set(after.values()) - set(before.values())) == [6, 7]


@pytest.mark.behaviour("E-1c")
def test_two_processes_record_calls_of_one_row(ledger: Ledger, path: Path) -> None:
    children = [Child("record", path, first, 100) for first in (0, 100)]
    for child in children:
        child.expect("ready")
    for child in children:
        child.say("go")
    assert [child.finish() for child in children] == [0, 0]
    assert sorted(call_indices(path).values()) == list(range(1, 201))
    assert value(ledger.database, "SELECT count(DISTINCT process) FROM attempts") == 2


@pytest.mark.behaviour("E-1c")
def test_eight_processes_with_the_same_questions_ask_each_once(ledger: Ledger, path: Path) -> None:
    children = [Child("same_questions", path, 200, seed) for seed in range(8)]
    for child in children:
        child.expect("ready")
    for child in children:
        child.say("go")
    asked = [number for child in children for number in child.expect("asked")]
    assert [child.finish() for child in children] == [0] * 8
    assert sorted(map(int, asked)) == list(range(200))
    found = rows(ledger.database, "SELECT state, kind, count(*) FROM attempts GROUP BY 1, 2")
    assert found == [("settled", "first", 200)]
    assert rows(ledger.database, "SELECT count(*), sum(current) FROM answers") == [(200, 200)]
    assert counter(ledger.database) == (200 * COST, 0)


@pytest.mark.behaviour("B-1", "A-30")
def test_killed_processes_lose_nothing_that_was_settled(ledger: Ledger, path: Path) -> None:
    """Kill -9 with requests in flight: repeats are at most the unknown ones, and only those."""
    with Child("answer_some", path, 40, 15) as child:
        done = set(map(int, child.expect("answered")))
        child.kill()
    assert len(done) == 15
    ledger.reap()
    with ledger.database.read() as connection:
        lost = {one.row_keys for one in unknown_attempts(connection)}
    assert len(lost) == 25
    repeated = 0
    for number in range(40):
        item = request(number, row_key=str(number))
        decision = ledger.reserve(item)
        assert bool(decision.hits) == (number in done)
        if decision.go:
            repeated += 1
            assert (str(number),) in lost
            ledger.settle(answered(item))
    assert repeated == len(lost)
    assert counter(ledger.database) == (40 * COST, 25 * WORST)


@pytest.mark.behaviour("B-1d")
def test_a_torn_last_write_is_survived(path: Path, tmp_path: Path) -> None:
    """The disk lost the end of the WAL in a power cut: what was committed before it is there."""
    ledger = Ledger(path)
    for number in range(5):
        ledger.settle(answered(go(ledger, request(number))))
    whole = Path(f"{path}-wal").read_bytes()
    copy = tmp_path / "copy" / "ledger.sqlite"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    Path(f"{copy}-wal").write_bytes(whole[: len(whole) - 1000])
    ledger.close()
    survivor = Ledger(copy)
    assert problems(survivor.database) == []
    assert len(survivor.look_up([key(number) for number in range(5)], 100)) == 4
    assert value(survivor.database, "SELECT count(*) FROM attempts WHERE state='unknown'") == 1
    survivor.close()


# random interleavings, the audit and a model as oracles


class Person:
    """Does random things with questions that others ask too, and remembers what must be true."""

    def __init__(self, ledgers: list[Ledger], seed: int) -> None:
        self.ledgers = ledgers
        self.random = random.Random(seed)
        self.sent: list[Reservation] = []
        self.whole: set[bytes] = set()  # questions with an answer that serves any ceiling

    def act(self) -> None:
        ledger = self.random.choice(self.ledgers)
        if self.sent and self.random.random() < 0.55:
            self.settle(ledger, self.random.choice(self.sent))
        elif self.random.random() < 0.05:
            self.resolve(ledger)
        else:
            self.reserve(ledger)

    def reserve(self, ledger: Ledger) -> None:
        names = self.random.sample(range(12), self.random.choice([1, 1, 1, 3]))
        item = request(
            *names,
            ceiling=self.random.choice([50, 100, 200]),
            kind=self.random.choice(["first"] * 8 + ["retry", "verify"]),  # type: ignore[arg-type]
            max_unknown=self.random.choice([0, 2]),
            run_scope=self.random.choice(["run-1", "run-2"]),
        )
        decision = ledger.reserve(item)
        decided = [*decision.go, *decision.hits, *decision.taken, *decision.held]
        assert sorted(decided) == sorted(key(name) for name in names)
        if item.kind == "first":
            assert not set(decision.go) & self.whole, "a whole answer was asked for again"
        if decision.go:
            kept = [ask for ask in item.asks if ask.answer_key in decision.go]
            self.sent.append(
                Reservation(item.attempt, item.context, tuple(kept), 0, 0, 0, kind=item.kind)
            )

    def settle(self, ledger: Ledger, item: Reservation) -> None:
        verdict = self.random.choice([Verdict.OK, Verdict.TRUNCATED, Verdict.INVALID])
        settlement: Settlement = self.random.choice(
            [answered(item, verdict), answered(item, verdict), released(item), unknown(item)]
        )
        before = value(ledger.database, "SELECT state FROM attempts WHERE id=?", item.attempt)
        group = [settlement, unknown(item)]
        self.random.shuffle(group)
        ledger.settle_all(group if self.random.random() < 0.2 else [settlement])
        if not settlement.answers or before == "settled" or item.kind == "verify":
            return
        keys = {ask.answer_key for ask in item.asks}
        if verdict is not Verdict.TRUNCATED:
            self.whole |= keys
        elif item.kind == "retry":  # a person asked anew, and got a cut answer
            self.whole -= keys

    def resolve(self, ledger: Ledger) -> None:
        with ledger.database.read() as connection:
            ids = [one.id for one in unknown_attempts(connection)]
        resolve(ledger.database, ids[:1], self.random.choice(["free", "charged"]))


@pytest.mark.parametrize("seed", range(4))
def test_the_ledger_adds_up_after_every_random_history(path: Path, seed: int) -> None:
    ledgers = [Ledger(path), Ledger(path)]
    person = Person(ledgers, seed)
    for step in range(250):
        person.act()
        if step % 10 == 0:
            assert problems(ledgers[0].database) == []
    for ledger in ledgers:
        ledger.close()
    last = Ledger(path)
    assert problems(last.database) == []
    assert value(last.database, "SELECT count(*) FROM attempts WHERE state='open'") == 0
    last.close()


def test_random_histories_of_threads_at_once_add_up(ledger: Ledger, path: Path) -> None:
    second = Ledger(path)
    failures: list[BaseException] = []

    def live(seed: int) -> None:
        chance = random.Random(seed)
        mine: list[Reservation] = []
        try:
            for _ in range(60):
                item = request(chance.randrange(20))
                if chance.choice([ledger, second]).reserve(item).go:
                    mine.append(item)
                if mine and chance.random() < 0.7:
                    item = mine.pop(chance.randrange(len(mine)))
                    end = chance.choice([answered, released, unknown])
                    chance.choice([ledger, second]).settle(end(item))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=live, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    second.close()
    twice = rows(
        ledger.database,
        "SELECT answer_key FROM answers JOIN attempts ON attempts.id = answers.attempt "
        "WHERE kind = 'first' GROUP BY answer_key HAVING count(*) > 1",
    )
    lost = value(ledger.database, "SELECT count(*) FROM asks WHERE verdict = 'unknown'")
    assert twice == []
    assert lost > 0


def test_integrity_of_the_file_itself(ledger: Ledger, path: Path) -> None:
    for number in range(100):
        ledger.settle(answered(go(ledger, request(number))))
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
