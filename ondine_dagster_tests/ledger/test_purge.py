"""Texts of old answers go; keys, outcomes and money stay, and nobody is asked again."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ondine_dagster.ledger import database, payloads
from ondine_dagster.ledger import purge as purging
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.history import requests_for_row
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.purge import purge
from ondine_dagster.ledger.records import Reservation
from ondine_dagster.ledger.steps import Steps
from ondine_dagster.ledger.writer import wait_for
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.provider import Verdict
from ondine_dagster_tests.ledger.builders import (
    answered,
    ask_and_answer,
    counter,
    go,
    key,
    request,
    rows,
    value,
)

SECRET = "canary-4711-of-a-customer"
LATER = 60_000


def texts_left(ledger: Ledger) -> int:
    found: int = value(ledger.database, "SELECT count(*) FROM payloads")
    return found


def test_only_what_is_old_goes(ledger: Ledger) -> None:
    ask_and_answer(ledger, "old")
    time.sleep(0.005)
    between = now_ms()
    time.sleep(0.005)
    ask_and_answer(ledger, "new")
    assert purge(ledger.database, between).answers == 1
    found = ledger.look_up([key("old"), key("new")], 100)
    assert found[key("new")].text == "yes"
    assert found[key("old")].lost is not None
    assert found[key("old")].lost.code is ErrorCode.ANSWER_PURGED
    states = rows(ledger.database, "SELECT payload_state FROM answers ORDER BY id")
    assert states == [("purged",), ("present",)]


def test_only_those_of_a_dataset_go(ledger: Ledger) -> None:
    ask_and_answer(ledger, "mine")
    other = go(ledger, request("theirs", dataset="others"))
    ledger.settle(answered(other))
    assert purge(ledger.database, now_ms() + LATER, "others").answers == 1
    found = ledger.look_up([key("mine"), key("theirs")], 100)
    assert (found[key("mine")].lost, found[key("theirs")].text) == (None, None)


def test_money_and_outcomes_stay_and_nothing_is_reserved(ledger: Ledger) -> None:
    ask_and_answer(ledger, "good")
    ask_and_answer(ledger, "refused", verdict=Verdict.REFUSED)
    before = counter(ledger.database), rows(ledger.database, "SELECT * FROM attempts")
    purge(ledger.database, now_ms() + LATER)
    assert (counter(ledger.database), rows(ledger.database, "SELECT * FROM attempts")) == before
    good, refused = (ledger.reserve(request(name)).hits[key(name)] for name in ("good", "refused"))
    assert good.lost is not None
    # what it was refused for stands in its verdict: no text is missed
    assert (refused.verdict, refused.lost) == (Verdict.REFUSED, None)


def test_a_purged_answer_is_asked_again_where_a_person_wants_it(ledger: Ledger) -> None:
    first = ask_and_answer(ledger, "q")
    purge(ledger.database, now_ms() + LATER)
    again = go(ledger, instead_of(request("q", kind="retry"), first))
    ledger.settle(answered(again, text="once more"))
    assert ledger.look_up([key("q")], 100)[key("q")].text == "once more"
    # another process that wants it as well takes what is there
    assert ledger.reserve(instead_of(request("q", kind="retry"), first)).hits


def instead_of(item: Reservation, first: Reservation) -> Reservation:
    """Return a reservation that wants another answer than that to `first`."""
    asks = tuple(replace(ask, instead_of=first.attempt) for ask in item.asks)
    return replace(item, asks=asks)


def test_no_byte_of_a_text_is_left_in_the_files(ledger: Ledger) -> None:
    for number in range(50):
        ask_and_answer(ledger, number, text=f"{SECRET} {number}")

    def found() -> bool:
        folder = ledger.path.parent
        return any(SECRET.encode() in one.read_bytes() for one in folder.glob("ledger.sqlite*"))

    assert found()
    done = purge(ledger.database, now_ms() + LATER)
    assert (done.answers, texts_left(ledger)) == (50, 0)
    assert not found()


def test_no_copy_of_a_text_is_left_where_rows_of_others_stay(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite moves rows to other pages when their neighbours go, and leaves copies behind."""
    monkeypatch.setattr(payloads, "_SHORTEST", 10**9)  # nothing is compressed: texts can be found
    lengths = random.Random(7)
    for _ in range(3):
        items = [request(new_id(), dataset="ab"[n % 2]) for n in range(500)]
        wait_for(ledger._writer.submit, items)
        texts = [f"{SECRET} {one.context.dataset}" for one in items]
        long = [text + os.urandom(lengths.choice([1, 20, 200, 2000])).hex() for text in texts]
        pairs = zip(items, long, strict=True)
        ledger.settle_all([answered(one, text=text) for one, text in pairs])

    def found(dataset: str) -> int:
        files = [one.read_bytes() for one in ledger.path.parent.glob("ledger.sqlite*")]
        return sum(one.count(f"{SECRET} {dataset}".encode()) for one in files)

    assert purge(ledger.database, now_ms() + LATER, "a").answers == 750
    assert (found("a"), texts_left(ledger)) == (0, 750)
    ledger.database.rewrite()
    assert found("b") == 750
    assert purge(ledger.database, now_ms() + LATER).answers == 750
    assert (found("b"), texts_left(ledger)) == (0, 0)


def test_a_purge_that_was_cut_short_shows_no_overwritten_text_and_ends_later(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ask_and_answer(ledger, "q")

    class Killed(Exception):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(purging._DELETE, "run", kill)
        with pytest.raises(Killed):
            purge(ledger.database, now_ms() + LATER)
    assert texts_left(ledger) == 1
    lost = ledger.look_up([key("q")], 100)[key("q")].lost
    assert lost is not None and lost.code is ErrorCode.ANSWER_PURGED
    with ledger.database.read() as connection:
        (story,) = requests_for_row(connection, "reviews", asked.asks[0].row_key, [])
    assert (story.text, story.payload_state) == (None, "purged")
    assert purge(ledger.database, now_ms() + LATER).answers == 0
    assert texts_left(ledger) == 0


def test_where_somebody_reads_the_ledger_a_purge_says_that_texts_are_still_there(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_and_answer(ledger, "q", text=SECRET)
    ledger.database.compact()
    wal = Path(f"{ledger.path}-wal")
    with closing(sqlite3.connect(f"file:{ledger.path}?mode=ro", uri=True)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM answers").fetchone()
        monkeypatch.setattr(database, "_READERS_SECONDS", 0.1)
        assert purge(ledger.database, now_ms() + LATER).in_wal
        assert wal.stat().st_size or SECRET.encode() in ledger.path.read_bytes()
    assert not purge(ledger.database, now_ms() + LATER).in_wal
    assert wal.stat().st_size == 0
    assert SECRET.encode() not in ledger.path.read_bytes()


def test_it_works_in_steps_and_gives_the_room_back(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "Steps", lambda: Steps(first=1, largest=4))
    noise = "".join(chr(0x4E00 + number * 7919 % 20000) for number in range(9000))
    for number in range(20):
        ask_and_answer(ledger, number, text=noise)
    ledger.database.compact()
    size = ledger.path.stat().st_size
    steps = 0
    write = ledger.database.write

    def counted():  # type: ignore[no-untyped-def]
        nonlocal steps
        steps += 1
        return write()

    monkeypatch.setattr(ledger.database, "write", counted)
    assert purge(ledger.database, now_ms() + LATER).answers == 20
    assert steps > 20 / 4
    assert ledger.path.stat().st_size < size / 2


@pytest.mark.parametrize("purged", [True, False])
def test_a_failure_for_good_takes_the_place_of_a_purged_answer_only(
    ledger: Ledger, purged: bool
) -> None:
    """Else its row would wait for ever for a text that nobody brings back."""
    first = ask_and_answer(ledger, "q")
    if purged:
        purge(ledger.database, now_ms() + LATER)
    again = go(ledger, instead_of(request("q", kind="retry"), first))
    ledger.settle(answered(again, verdict=Verdict.FAILED, text="too long"))
    found = ledger.look_up([key("q")], 100)[key("q")]
    expected = (Verdict.FAILED, "too long") if purged else (Verdict.OK, "yes")
    assert (found.verdict, found.text) == expected
