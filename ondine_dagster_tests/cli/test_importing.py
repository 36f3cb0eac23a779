"""`import`: a configuration of Ondine becomes a file that can be planned and run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ondine_dagster.component.declarations import load_declaration
from ondine_dagster_tests.cli.typing_person import Person
from ondine_dagster_tests.component.test_from_ondine import SMALLEST, with_keys


@pytest.fixture
def ondine(person: Person, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(person.folder)
    Path("reviews.csv").write_text("review\ngood\n")
    Path("ondine.yaml").write_text(yaml.safe_dump(dict(SMALLEST)))
    return Path("ondine.yaml")


def test_a_declaration_is_written_that_finds_its_source_and_can_be_planned(
    person: Person, ondine: Path
) -> None:
    result = person.types("import", str(ondine), "--out", "made/reviews/defs.yaml")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    (declared,) = load_declaration(Path("made/reviews/defs.yaml"))
    assert declared.dataset.name == "reviews"
    assert declared.dataset.source.path == "../../reviews.csv"
    assert "rows        1" in person.types("plan", "made/reviews/defs.yaml").output
    again = person.types("import", str(ondine), "--out", "made/reviews/defs.yaml")
    assert again.exit_code == 1
    assert "exists" in again.output


def test_standard_output_holds_the_declaration_and_nothing_else(
    person: Person, ondine: Path
) -> None:
    result = person.types("import", str(ondine), "--name", "moods")
    assert yaml.safe_load(result.stdout)["attributes"]["name"] == "moods"
    assert f"{ondine}:2: dataset.input_columns" in result.stderr


@pytest.mark.parametrize(
    ("out", "name"),
    [
        ("defs/moods/defs.yaml", "moods"),
        ("defs/defs.yaml", "ondine"),
        ("My Moods.yaml", "my_moods"),
    ],
)
def test_the_dataset_is_called_by_its_folder_or_file(
    person: Person, ondine: Path, out: str, name: str
) -> None:
    result = person.types("import", str(ondine), "--out", out)
    assert result.exit_code == 0, result.output
    assert load_declaration(Path(out))[0].dataset.name == name


def test_what_is_still_missing_is_said(person: Person, ondine: Path) -> None:
    keys = {"llm.model": "nobody-knows", "prompt.template": "{review} {nowhere}"}
    ondine.write_text(yaml.safe_dump(with_keys(keys)))
    result = person.types("import", str(ondine), "--out", "labels.yaml")
    assert result.exit_code == 0
    assert "Still to do" in result.stderr
    assert "nobody-knows" in result.stderr


@pytest.mark.parametrize("given", ["nowhere.yaml", "reviews.csv"])
def test_what_cannot_be_read_is_told(person: Person, ondine: Path, given: str) -> None:
    result = person.types("import", given)
    assert result.exit_code == 1
    assert given in result.output
