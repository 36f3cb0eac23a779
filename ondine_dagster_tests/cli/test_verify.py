"""`verify` as people type it: what it says, what it costs, its exit code."""

from __future__ import annotations

import pytest

from ondine_dagster_tests.cli.typing_person import Person


@pytest.mark.slow
def test_it_says_how_many_rows_differ(person: Person) -> None:
    person.write(4)
    never = person.types("verify", "notes.yaml")
    assert never.exit_code == 1 and "has no snapshot yet" in never.output
    person.runs()
    result = person.types("verify", "notes.yaml", "--rows", "3")
    assert result.exit_code == 0, result.output
    assert "3 as before, 0 differ" in result.stdout and "paid $0.0000" in result.stdout
    assert person.paid == 7
    assert person.asks("select count(*) from notes.verified") == "count_star()\n3\n"
