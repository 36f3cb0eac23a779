"""Texts of old answers go; keys, outcomes and money stay, and nobody is asked again."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from ondine_dagster.ledger import purge as purging
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.purge import purge
from ondine_dagster.ledger.records import Reservation
from ondine_dagster.ledger.steps import Steps
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


def texts(ledger: Ledger) -> int:
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
    assert (done.answers, texts(ledger)) == (50, 0)
    assert not found()


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
