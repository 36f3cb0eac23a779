"""Where the rows come from."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ondine_dagster.spec.base import LOCAL, TEMPLATED, FilledText, Part
from ondine_dagster.spec.problems import Location, refused_at, shown
from ondine_dagster.spec.source_formats import ENDINGS, CsvDialect, file_format
from ondine_dagster.spec.upstream import UpstreamAsset, UpstreamDataset

ColumnType = Literal["text", "integer", "number", "boolean", "date", "timestamp"]


# Where rows may come from; a source declares one of them.
_PLACES = ("path", "dataset", "asset")


def _readable_file(path: str) -> str:
    if "://" in path:
        raise ValueError(
            f"is {shown(path)}; addresses are not supported yet: it must be the path of a file"
        )
    if file_format(path) is None:
        raise ValueError(
            f"is {shown(path)}; files of this kind are not supported: it must end in {ENDINGS}"
        )
    return path


def _as_list(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"is {shown(value)}; it must be a column, or a list of columns")
    return value


def _all_different(columns: tuple[str, ...]) -> tuple[str, ...]:
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice:
        raise ValueError(f"names the column {shown(twice)} twice; it must name each column once")
    return columns


SourcePath = Annotated[FilledText, AfterValidator(_readable_file)]
KeyColumns = Annotated[
    tuple[FilledText, ...],
    BeforeValidator(_as_list),
    AfterValidator(_all_different),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    LOCAL,
]


class Source(Part):
    """The table to label."""

    place: ClassVar[Location] = ("source",)

    path: Annotated[SourcePath | None, LOCAL, TEMPLATED] = Field(
        default=None,
        description="The file with the rows: CSV with a header line (.csv, .tsv), JSON Lines "
        "(.jsonl, .ndjson), a JSON list of objects (.json), Parquet, or Excel (.xlsx). Text files "
        "may be packed (.gz, .bz2, .zst). A relative path is looked up beside the YAML file first, "
        "then in the project root. Required, unless `partitions` name the files.",
        examples=["data/product_reviews.csv"],
    )
    dataset: Annotated[UpstreamDataset | None, LOCAL, TEMPLATED] = Field(
        default=None,
        description="Instead of `path`: another dataset of the project, whose `results` are the "
        "rows: its source columns and its output columns. A row keeps the key that it has there, "
        "unless `key` says otherwise.",
        examples=["product_reviews"],
    )
    asset: Annotated[UpstreamAsset | None, LOCAL, TEMPLATED] = Field(
        default=None,
        description="Instead of `path`: any other asset of Dagster, by its key. Its table (pandas, "
        "Polars or Arrow) is loaded by its IO manager when `snapshot` is materialized in Dagster.",
        examples=["warehouse/orders"],
    )
    key: KeyColumns = Field(
        default=(),
        description="The column, or list of columns, that names a row for good. Without it a row "
        "is known by all its values, and a corrected typo makes a new row.",
        examples=["review_id", ["country", "order_id"]],
    )
    types: Annotated[dict[FilledText, ColumnType], LOCAL] = Field(
        default={},
        description="Column types of a CSV file. Columns that are not named are text. One of "
        "text, integer, number, boolean, date, timestamp.",
        examples=[{"stars": "integer", "bought_on": "date"}],
    )
    csv: CsvDialect = Field(
        default=CsvDialect(), description="How the CSV file is written, where it is not as usual."
    )
    sheet: Annotated[FilledText | None, LOCAL] = Field(
        default=None,
        description="The sheet of an Excel file. Required where it has several.",
        examples=["Reviews"],
    )

    def place_names(self) -> list[str]:
        """Return which settings say where the rows are; in a right declaration it is one."""
        return [name for name in _PLACES if getattr(self, name) is not None]

    def refuse_contradictions(self) -> None:
        """Refuse rows from two places."""
        places = self.place_names()
        if len(places) > 1:
            raise refused_at((), f"has {' and '.join(places)}; it must have one of them", None)

    def refuse_strange(self, pattern: str | None) -> None:
        """Refuse settings that are for other files than `pattern` names; None: for no file."""
        kind = file_format(pattern) if pattern else None
        if self.types and kind != "csv":
            text = "is for CSV files, and others bring their own types; remove it"
            raise refused_at(("source", "types"), text, self.types)
        if self.csv != CsvDialect() and kind != "csv":
            text = f"is for CSV files, not for {pattern or 'tables'}"
            raise refused_at(("source", "csv"), text, None)
        if self.sheet is not None and kind != "excel":
            text = f"is {shown(self.sheet)}, but {pattern or 'a table'} is no Excel file"
            raise refused_at(("source", "sheet"), text, self.sheet)
