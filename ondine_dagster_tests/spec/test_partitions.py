"""How partitions may be declared, and what is said to those who declare them otherwise."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ondine_dagster.spec import Dataset, NoPartitions, Partitions, TimePartitions
from ondine_dagster.spec.file_names import FileNames
from ondine_dagster_tests.spec.declarations import attributes, only_problem

DAY = {"column": "at", "every": "day", "start": "2026-01-01"}
NAMED = {"every": "day", "start": "2026-01-01"}
KINDS: list[tuple[Any, str]] = [
    ("none", "none"),
    ({"rows": 5}, "rows"),
    ({"time": DAY}, "time"),
    ({"time": {**DAY, "timezone": "Europe/Berlin", "start": "2026-01-01T06:00"}}, "time"),
    ({"time": {**NAMED, "filename": "in/o-%Y-%m-%d.csv"}}, "time"),
    ({"files": "in/**/*.parquet"}, "files"),
    ({"values": {"column": "country"}}, "values"),
    ({"values": {"column": "country", "listed": ["de", "no"]}}, "values"),
]


def declared(partitions: Any) -> dict[str, Any]:
    """Return attributes with these partitions; those that name files come without a path."""
    names_files = "filename" in str(partitions) or "files" in str(partitions)
    source = {"key": "id"} if names_files else {"path": "reviews.csv", "key": "id"}
    return attributes(partitions=partitions, source=source)


@pytest.mark.behaviour("B-9")
@pytest.mark.parametrize(("partitions", "kind"), KINDS)
def test_each_kind_is_accepted_by_the_model_and_by_the_schema_of_editors(
    partitions: Any, kind: str
) -> None:
    values = declared(partitions)
    assert Dataset.model_validate(values).partitions.kind == kind
    Draft202012Validator(Dataset.model_json_schema()).validate(values)


def test_python_declares_the_same() -> None:
    in_python = TimePartitions(column="at", every="day", start=datetime(2026, 1, 1))
    in_yaml = Dataset.model_validate(declared({"time": DAY})).partitions
    assert in_yaml == Partitions(time=in_python)
    assert TimePartitions.model_validate({**DAY, "start": date(2026, 1, 1)}) == in_python
    assert Dataset.model_validate(declared("none")).partitions == NoPartitions("none")
    assert Dataset.model_validate(declared(NoPartitions("none"))).partitions.kind == "none"


@pytest.mark.parametrize(
    ("partitions", "path", "message"),
    [
        ({}, "", "has no kind; it must have exactly one of rows, time, files, values, or be"),
        ({"rows": 5, "time": DAY}, "", "has rows and time; it must have exactly one of"),
        ("all", "", "is 'all'; it must be a mapping with one of rows, time, files, values, or"),
        (None, "", "is empty; write its settings below it"),
        ({"time": {**DAY, "filename": "o-%Y-%m-%d.csv"}}, ".time", "has column and filename; it"),
        ({"time": NAMED}, ".time", "has neither column nor filename; it must have exactly one"),
        ({"time": {"column": "a", "every": "day"}}, ".time.start", "is missing; it is required"),
        ({"time": {**DAY, "every": "year"}}, ".time.every", "it must be one of 'hour', 'day'"),
        ({"time": {**DAY, "start": "soon"}}, ".time.start", "is 'soon'; it must be a date or a"),
        ({"time": {**DAY, "start": 2026}}, ".time.start", "is 2026; it must be a date or a time"),
        (
            {"time": {**DAY, "start": datetime(2026, 1, 1, tzinfo=UTC)}},
            ".time.start",
            "it must be a time without an offset",
        ),
        (
            {"time": {**DAY, "timezone": "Europe/Berln"}},
            ".time.timezone",
            "is 'Europe/Berln'; it must be the name of an IANA time zone: did you mean Europe/Ber",
        ),
        (
            {"time": {**DAY, "every": "hour", "timezone": "Australia/Lord_Howe"}},
            ".time.every",
            "changes its clocks by half an hour",
        ),
        (
            {"time": {**NAMED, "filename": "in/o-%Y-%m.csv"}},
            ".time.filename",
            "it must tell the whole day, as in in/orders-%Y-%m-%d.csv",
        ),
        ({"time": {**NAMED, "filename": "o-%s.csv"}}, ".time.filename", "it knows no %s, only %Y"),
        ({"files": "in/*.txt"}, ".files", "it must end in .csv, .tsv, .parquet"),
        ({"files": "../in/*.csv"}, ".files", "it must not leave its folder with .."),
        ({"files": "ftp://in/*.csv"}, ".files", "of addresses, it must be"),
        ({"values": {"listed": ["a"]}}, ".values.column", "is missing; it is required"),
        ({"values": {"column": "c", "listed": []}}, ".values.listed", "is empty; it must list"),
        ({"values": {"column": "c", "listed": ["a", "a"]}}, ".values.listed", "lists 'a' twice"),
        ({"values": {"column": "c", "listed": [False]}}, ".values.listed[0]", "must be text (in"),
    ],
)
def test_what_is_no_kind_is_refused_with_what_would_be(
    partitions: Any, path: str, message: str
) -> None:
    problem = only_problem(declared(partitions))
    assert problem.path == f"partitions{path}"
    assert message in problem.message


def test_rows_come_from_one_place() -> None:
    twice = attributes(partitions={"files": "in/*.csv"})
    message = only_problem(twice).message
    assert message.startswith("`source.path` is 'reviews.csv', but `partitions` name the files")
    nowhere = attributes(source={"key": "id"})
    assert only_problem(nowhere).message == "`source.path` is missing; it is required"
    typed = attributes(partitions={"files": "*.parquet"}, source={"types": {"a": "text"}})
    assert "is for CSV files" in only_problem(typed).message


@pytest.mark.parametrize(
    ("pattern", "name", "moment"),
    [
        ("in/o-%Y-%m-%d.csv", "in/o-2026-03-29.csv", datetime(2026, 3, 29)),
        ("in/o-%Y-%m-%d.csv", "in/o-2026-02-30.csv", None),
        ("in/o-%Y-%m-%d.csv", "in/o-latest.csv", None),
        ("*/%Y%m%dT%H.csv", "shop/20260329T05.csv", datetime(2026, 3, 29, 5)),
        ("**/%Y/%j_*.csv", "a/b/2026/032_x.csv", datetime(2026, 2, 1)),
        ("%Y-%m-%d%z.csv", "2026-01-01+0200.csv", datetime.fromisoformat("2026-01-01T00:00+02:00")),
        ("a[1]-%Y%m%d.csv", "a[1]-20260101.csv", datetime(2026, 1, 1)),
    ],
)
def test_names_of_files_tell_a_time(pattern: str, name: str, moment: datetime | None) -> None:
    assert FileNames(pattern).moment(name) == moment
