"""Which questions need no request: the same that a reservation would not send."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondine_dagster.ledger.coverage import Cover, Covered, covered, reading
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.llm.provider import Verdict
from ondine_dagster_tests.ledger.builders import (
    CONTEXT,
    ask_and_answer,
    go,
    key,
    request,
    unknown,
)

URL = CONTEXT.base_url


def cover(
    ledger: Ledger, *names: object, ceiling: int = 100, max_unknown: int = 2
) -> dict[bytes, Covered]:
    with ledger.database.read() as connection:
        keys = [key(name) for name in names]
        return covered(connection, keys, ceiling=ceiling, max_unknown=max_unknown)


def test_an_answer_covers_its_question_and_says_who_gave_it(ledger: Ledger) -> None:
    ask_and_answer(ledger, "good")
    ask_and_answer(ledger, "refused", verdict=Verdict.REFUSED)
    found = cover(ledger, "good", "refused", "new")
    assert found == {
        key("good"): Covered(Cover.PAID, URL),
        key("refused"): Covered(Cover.PAID, URL),
    }


@pytest.mark.parametrize(("ceiling", "expected"), [(100, Cover.PAID), (101, Cover.CUT)])
def test_a_cut_answer_covers_only_as_long_as_no_more_is_asked_for(
    ledger: Ledger, ceiling: int, expected: Cover
) -> None:
    ask_and_answer(ledger, "cut", verdict=Verdict.TRUNCATED)
    assert cover(ledger, "cut", ceiling=ceiling) == {key("cut"): Covered(expected, URL)}


def test_a_question_that_is_being_asked_or_held_needs_no_request(ledger: Ledger) -> None:
    go(ledger, request("open"))
    for _ in range(3):
        ledger.settle(unknown(go(ledger, request("held"))))
    ledger.settle(unknown(go(ledger, request("lost once"))))
    assert cover(ledger, "open", "held", "lost once") == {
        key("open"): Covered(Cover.ASKING),
        key("held"): Covered(Cover.HELD),
    }
    assert cover(ledger, "lost once", max_unknown=0) == {key("lost once"): Covered(Cover.HELD)}


def test_a_ledger_that_is_not_there_covers_nothing_and_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with reading(path) as connection:
        assert connection is None
        assert covered(connection, [key("q")], ceiling=1, max_unknown=0) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_whose_making_was_cut_short_is_none_yet(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.touch()
    with reading(path) as connection:
        assert connection is None
