"""Where results go, as a file or into a table of a database, each time they have changed."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, WithJsonSchema

from ondine_dagster.spec.base import LOCAL, TEMPLATED, FilledText, Flag, Part
from ondine_dagster.spec.database_url import DatabaseUrl
from ondine_dagster.spec.problems import Location, refused_at, shown

Mode = Literal["replace", "append", "update"]
ENDINGS = (".csv", ".parquet", ".jsonl", ".xlsx", ".duckdb")


def is_url(to: str) -> bool:
    """Return whether this is a database and not the path of a file."""
    return "://" in to


def destination(to: str) -> str:
    """Return a path or URL; raises ValueError, which quotes no URL, for what is neither."""
    if is_url(to):
        if DatabaseUrl.parse(to).kind == "sqlite":
            raise ValueError("is a SQLite file, into which nothing is exported: take DuckDB")
    elif not to.lower().endswith(ENDINGS):
        raise ValueError(f"is {shown(to)}; it must end in one of {', '.join(ENDINGS)}, or be a URL")
    return to


def _secret(to: SecretStr | None) -> SecretStr | None:
    if to is not None:
        destination(to.get_secret_value())
    return to


def _variable(name: str | None) -> str | None:
    # what is no name may be the address itself, with its password
    if name is not None and not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise ValueError(
            "is not the name of an environment variable; it must be as in WAREHOUSE_URL"
        )
    return name


class Export(Part):
    """Where results go: a file, or a table of a database."""

    place: ClassVar[Location] = ("export",)

    to: Annotated[SecretStr | None, AfterValidator(_secret), LOCAL, TEMPLATED] = Field(
        default=None,
        description="A file (.csv, .parquet, .jsonl, .xlsx, .duckdb), its path relative to the "
        "project; or the URL of a database: duckdb:///data/shop.duckdb, or one of PostgreSQL, "
        "from the environment if it has a password.",
        examples=["out/reviews.parquet"],
    )
    to_variable: Annotated[FilledText | None, AfterValidator(_variable), LOCAL] = Field(
        default=None,
        description="Instead of `to`: the environment variable that holds it. It is read when the "
        "export is made.",
        examples=["WAREHOUSE_URL"],
    )
    table: Annotated[FilledText | None, LOCAL, TEMPLATED] = Field(
        default=None,
        description="The table of the database, with its schema where it needs one. Default: the "
        "dataset's name; a .duckdb file without it is a file of its own, with a table `results`.",
        examples=["labels.reviews"],
    )
    mode: Annotated[Mode, LOCAL] = Field(
        default="replace",
        description="What happens to rows that the table has. `replace`: it holds the results and "
        "nothing else. `update`: rows with the same key get the new values, others are added, "
        "rows that are gone stay. `append`: only rows that are not there yet are added.",
        examples=["update"],
    )
    lineage: Annotated[Flag, LOCAL] = Field(
        default=False,
        description="Whether the columns that say where an answer is from, and what it cost, are "
        "added.",
        examples=[True],
    )

    def shown(self, dataset: str) -> str:
        """Return where results of a dataset go, as people may see it."""
        to = self.to.get_secret_value() if self.to is not None else None
        if to is None:
            return f"${self.to_variable}"
        if is_url(to):
            return f"table {self.table or dataset} of {DatabaseUrl.parse(to).shown}"
        return to if self.table is None else f"table {self.table} of {to}"

    def refuse_contradictions(self) -> None:
        """Refuse no destination, two of them, and a mode of tables for a file."""
        if (self.to is None) is (self.to_variable is None):
            text = (
                "is missing; it is required, or to_variable"
                if self.to is None
                else ("is set beside to_variable; remove one of them")
            )
            raise refused_at(("to",), text, None)
        if self.to is None:
            return
        to = self.to.get_secret_value()
        table_of_file = to.lower().endswith(".duckdb") and not is_url(to)
        if not is_url(to) and not table_of_file:
            if self.table is not None:
                raise refused_at(("table",), "is for databases; a file has none", None)
            if self.mode != "replace":
                text = f"is {self.mode}, which is for tables; a file is always written as a whole"
                raise refused_at(("mode",), text, None)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


Exports = Annotated[
    tuple[Export, ...],
    BeforeValidator(_as_list),
    WithJsonSchema({"type": "array", "items": {"type": "object"}}),
]
