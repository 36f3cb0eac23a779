"""`verify` as people type it: what it says, what it costs, its exit code."""

from __future__ import annotations

import pytest

from ondine_dagster.ledger.ledger import close_ledger, open_ledger
from ondine_dagster.simulator import FaultPlan
from ondine_dagster_tests.cli.typing_person import Person


@pytest.mark.slow
def test_it_says_how_many_rows_differ(person: Person) -> None:
    person.write(4, partitions={"rows": 1})
    never = person.types("verify", "notes.yaml")
    assert never.exit_code == 1 and "has no snapshot yet" in never.output
    person.runs()
    result = person.types("verify", "notes.yaml", "--rows", "3", "--seed", "x")
    assert result.exit_code == 0, result.output
    assert "3 as before, 0 differ" in result.stdout and "paid $0.0000" in result.stdout
    assert "--seed x" in result.stdout
    assert person.paid == 7
    drawn = "select partition from notes.verified order by all"
    three = person.asks(drawn)  # of as many partitions
    assert len(set(three.split())) == 4

    # another model answers now, and says the same
    assert "models that answered" not in result.stdout
    person.simulator.fail(FaultPlan(rates={"other_model": 1.0}))
    other = person.types("verify", "notes.yaml", "--rows", "1")
    assert "answered now: 1 demo-model-fallback; before: 4 demo-model" in other.stdout
    person.simulator.fail(FaultPlan())

    # of the same rows one has changed its mind
    with open_ledger(person.settings.ledger_path).database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE payloads SET body = CAST('old' AS BLOB) WHERE answer IN (SELECT id FROM "
            "answers JOIN asks USING (attempt) WHERE answers.current = 1 AND row_key = ?)",
            (f"r{int(three.split()[1].removeprefix('rows-'))}",),
        )
    close_ledger(person.settings.ledger_path)
    for allowed, code in (("33", 1), ("34", 0)):
        again = person.types(
            "verify", "notes.yaml", "--rows", "3", "--seed", "x", "--max-drift", allowed
        )
        assert again.exit_code == code and "drift 33.3 %" in again.stdout, again.output
        assert person.asks(drawn) == three
