"""`ondine-dagster explain` as people and programs see it."""

from __future__ import annotations

import json

from ondine_dagster_tests.cli.typing_person import Person
from ondine_dagster_tests.workbench import numbered


def test_people_and_programs_read_the_story_of_a_row(person: Person) -> None:
    person.write(numbered(2) + numbered(1, "[[fault=refusal times=1]] row {n}", first=2))
    person.runs()
    shown = person.types("explain", "notes.yaml", "r1").stdout
    assert "notes row r1, partition rows-00000" in shown
    assert "now in results" in shown
    assert "[[token=t1]] row 1" in shown and "1 request for it, $0.0000" in shown

    rejected = person.types("explain", "notes.yaml", "r2").stdout
    assert "now in rejected_rows" in rejected and "_error_code     refused" in rejected

    told = json.loads(person.types("explain", "notes.yaml", "r1", "--json").stdout)
    assert told["requests"][0]["sent"][-1]["content"] == "[[token=t1]] row 1"
    assert told["row"]["text"] == "[[token=t1]] row 1"

    nobody = person.types("explain", "notes.yaml", "nobody")
    assert nobody.exit_code == 1 and "has no row 'nobody'" in nobody.output
    assert person.paid == 3
