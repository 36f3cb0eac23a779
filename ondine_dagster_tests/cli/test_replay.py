"""`run --replay` as people type it: all is made again, and the provider hears nothing."""

from __future__ import annotations

import shutil

import pytest

from ondine_dagster_tests.cli.typing_person import Person


@pytest.mark.slow
def test_all_is_made_again_without_a_provider(person: Person) -> None:
    person.write(12)
    assert person.runs().exit_code == 0
    before = person.asks("select * exclude (_position) from notes.results order by all")
    asked = person.simulator.bill.totals
    again = person.runs("--replay")
    assert again.exit_code == 0, again.output
    assert "to replay: 2 partitions, 12 rows; nobody is asked" in again.stderr
    assert person.asks("select * exclude (_position) from notes.results order by all") == before

    shutil.rmtree(person.settings.dagster_home)  # another machine: Dagster has to learn anew
    (person.folder / "notes.csv").unlink()
    one = person.runs("--replay", "--partition", "rows-00001")
    assert one.exit_code == 0 and "1 partition, 2 rows" in one.stderr

    person.declare(prompt={"template": "Other {{ text }}"})
    missed = person.runs("--replay")
    assert missed.exit_code == 1
    assert "10 rows cannot be replayed: row r0 (prompt changed)" in missed.stderr
    assert "2 rows cannot be replayed: row r10 (prompt changed)" in missed.stderr
    assert person.runs("--replay", "--all").exit_code == 2
    assert person.simulator.bill.totals == asked
