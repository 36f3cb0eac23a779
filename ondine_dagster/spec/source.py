"""Where the rows come from."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, WithJsonSchema

from ondine_dagster.spec.base import LOCAL, TEMPLATED, FilledText, Part
from ondine_dagster.spec.database_url import DatabaseUrl
from ondine_dagster.spec.file_places import readable_files
from ondine_dagster.spec.problems import Location, refused_at, shown
from ondine_dagster.spec.source_formats import CsvDialect, file_format
from ondine_dagster.spec.upstream import UpstreamAsset, UpstreamDataset

ColumnType = Literal["text", "integer", "number", "boolean", "date", "timestamp"]


# Where rows may come from; a source declares one of them.
_PLACES = ("path", "dataset", "asset", "database", "database_variable", "sql", "dataframe")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _database(url: SecretStr | None) -> SecretStr | None:
    if url is not None:
        DatabaseUrl.parse(url.get_secret_value())
    return url


def _variable(name: str | None) -> str | None:
    # what is no name may be the address itself, with its password
    if name is not None and not _VARIABLE.fullmatch(name):
        raise ValueError(
            "is not the name of an environment variable; it must be as in WAREHOUSE_URL"
        )
    return name


def _frame(value: Any) -> Any:
    """Return a function that returns the table; two are the same if they are one object."""
    if value is None or callable(value):
        return value
    if isinstance(value, str | int | float | list | dict | tuple):
        raise ValueError("is only for declarations in Python; it must be a DataFrame")
    return lambda: value


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


SourcePath = Annotated[FilledText, AfterValidator(readable_files)]
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
        "may be packed (.gz, .bz2, .zst, .zip). A relative path is looked up beside the YAML file "
        "first, then in the project root. `*` stands for any part of a name, `**` for any "
        "folders; a path that ends in / is all files of a folder. Or an address of an object "
        "store: s3://, gs://, az://. Required, unless `partitions` name the files.",
        examples=["data/product_reviews.csv", "data/2026-*.parquet", "s3://shop/reviews/"],
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
    file_column: Annotated[FilledText | None, LOCAL] = Field(
        default=None,
        description="The name of a column to add: the file that a row is from, below the folder "
        "that the pattern looks through.",
        examples=["file"],
    )
    dataframe: Annotated[
        Callable[[], Any] | None, BeforeValidator(_frame), WithJsonSchema({"not": {}}), LOCAL
    ] = Field(
        default=None,
        exclude=True,
        repr=False,
        description="Instead of `path`, in Python alone: a DataFrame of pandas or Polars, a table "
        "of Arrow, or a function that returns one and is called when the snapshot is taken.",
    )
    database: Annotated[SecretStr | None, AfterValidator(_database), LOCAL, TEMPLATED] = Field(
        default=None,
        description="Instead of `path`: the URL of a database, a file (duckdb:///data/shop.duckdb, "
        "sqlite:///data/shop.sqlite; four slashes before an absolute path) or a server of "
        "PostgreSQL. With `table` or `query`. A URL with a password stands in the environment.",
        examples=["sqlite:///data/shop.sqlite"],
    )
    database_variable: Annotated[FilledText | None, AfterValidator(_variable), LOCAL] = Field(
        default=None,
        description="Instead of `database`: the environment variable that holds the URL. It is "
        "read when the snapshot is taken.",
        examples=["WAREHOUSE_URL"],
    )
    table: Annotated[FilledText | None, LOCAL, TEMPLATED] = Field(
        default=None,
        description="The table or view of the database, with its schema where it needs one.",
        examples=["shop.reviews"],
    )
    query: Annotated[FilledText | None, LOCAL, TEMPLATED] = Field(
        default=None,
        description="Instead of `table`: one query in the SQL of the database. It can only read.",
        examples=["select id, review from reviews where country = 'de'"],
    )
    sql: Annotated[FilledText | None, LOCAL, TEMPLATED] = Field(
        default=None,
        description="Instead of `path`: one query in the SQL of DuckDB, over files. Relative paths "
        "in it are looked up beside the YAML file first, then in the project root.",
        examples=["select * from 'data/2026-*.parquet' where review is not null"],
    )
    watch: Annotated[FilledText | None, LOCAL, TEMPLATED] = Field(
        default=None,
        description="A query whose answer changes when the rows do. The watch sensor asks it to "
        "learn of changes of a database or of `sql`.",
        examples=["select max(updated_at), count(*) from reviews"],
    )
    key: KeyColumns = Field(
        default=(),
        description="The column, or list of columns, that identifies a row. Without it a row is "
        "identified by all its values, so a corrected typo makes it a new row.",
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

    @property
    def is_query(self) -> bool:
        """Whether a database is asked for the rows."""
        return any((self.database, self.database_variable, self.sql))

    def refuse_contradictions(self) -> None:
        """Refuse rows from two places, and a database of which nobody knows what to read."""
        places = self.place_names()
        if len(places) > 1:
            raise refused_at((), f"has {' and '.join(places)}; it must have one of them", None)
        asked = [name for name in ("table", "query") if getattr(self, name) is not None]
        if places[:1] in (["database"], ["database_variable"]):
            if len(asked) != 1:
                found = " and ".join(asked) or "neither table nor query"
                text = f"has {places[0]} and {found}; it must have exactly one of table and query"
                raise refused_at((), text, None)
        elif asked:
            text = "is for a database; declare its URL as `database`, or remove it"
            raise refused_at((asked[0],), text, None)
        if self.watch is not None and not self.is_query:
            text = "is for databases and `sql`: others tell by themselves; remove it"
            raise refused_at(("watch",), text, None)

    def refuse_strange(self, pattern: str | None) -> None:
        """Refuse settings that are for other files than `pattern` names; None: for no file."""
        if self.file_column is not None and pattern is None:
            text = f"is {shown(self.file_column)}, but the rows are in no files; remove it"
            raise refused_at(("source", "file_column"), text, self.file_column)
        if pattern is not None and pattern.endswith("/"):
            return  # its files may be of any kind
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
