"""The DataFrame of a dataset's results as a type of Dagster, with what holds for its columns.

Made with dagster-pandas. Imported only where somebody asks for it, as pandas is heavy.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import cache

import dagster as dg
import pandas as pd  # noqa: TID253 (this module is imported lazily)
from dagster_pandas import (  # noqa: TID253
    PandasColumn,
    create_dagster_pandas_dataframe_type,
)
from dagster_pandas.constraints import (  # noqa: TID253
    ColumnConstraint,
    ColumnConstraintViolationException,
)
from pandas.api import types  # noqa: TID253

from ondine_dagster.assets.metadata.constraints import Constraints, constraints_of
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.patterns import OwnPattern

_IS_OF_TYPE: dict[str, Callable[[pd.Series], bool]] = {
    "string": types.is_string_dtype,
    "json": types.is_string_dtype,
    "integer": types.is_integer_dtype,
    "number": types.is_numeric_dtype,
    "boolean": types.is_bool_dtype,
}
_Mask = Callable[[pd.Series], "pd.Series[bool]"]


class _Holds(ColumnConstraint):
    """Something that holds for every value of a column; `wrong` marks those for which not."""

    def __init__(self, words: str, wrong: _Mask) -> None:
        self._wrong = wrong
        super().__init__(words, words)  # type: ignore[no-untyped-call]

    def validate(self, dataframe: pd.DataFrame, column_name: str) -> None:
        """Raise where a value is wrong, with the rows."""
        wrong = dataframe[self._wrong(dataframe[column_name])]
        if len(wrong):
            raise ColumnConstraintViolationException(
                constraint_name=self.name,
                constraint_description=self.error_description,
                column_name=column_name,
                offending_rows=wrong,
            )


def frame_type(pipeline: Pipeline) -> dg.DagsterType:
    """Return the type of the DataFrame that `results` are loaded as."""
    return _made(pipeline.name, tuple(constraints_of(pipeline.dataset).items()))


@cache  # Dagster takes no two types of one name
def _made(dataset: str, columns: tuple[tuple[str, Constraints], ...]) -> dg.DagsterType:
    key = [_Holds("not NULL", pd.isna), _Holds("unique", _repeated)]
    expected = [PandasColumn(name, list(_column(found))) for name, found in columns]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # whose release decides, not its user
        made: dg.DagsterType = create_dagster_pandas_dataframe_type(
            name=f"{dataset}_results",
            description=f"The results of the dataset {dataset}, as a pandas DataFrame.\n",
            columns=[*expected, PandasColumn("_row_key", key)],
        )
    return made


def _repeated(values: pd.Series) -> pd.Series[bool]:
    return values.duplicated()


def _column(found: Constraints) -> Iterable[ColumnConstraint]:
    words = iter(found.in_words())
    if (of_type := _IS_OF_TYPE.get(found.type)) is not None:
        yield _Holds(found.type, lambda values: _all(values, not of_type(values)))
    else:
        yield _Holds(found.type, lambda values: _all(values, wrong=False))
    if not found.nullable:
        yield _Holds("not NULL", pd.isna)
    if (allowed := found.allowed) is not None:
        yield _Holds(next(words), lambda values: values.notna() & ~values.isin(allowed))
    if (low := found.minimum) is not None:
        yield _Holds(next(words), lambda values: (values < low).fillna(False).astype(bool))
    if (high := found.maximum) is not None:
        yield _Holds(next(words), lambda values: (values > high).fillna(False).astype(bool))
    if (pattern := found.pattern) is not None:
        fits = OwnPattern(pattern).fullmatch
        yield _Holds(next(words), lambda values: values.map(lambda one: _misfit(fits, one)))


def _all(values: pd.Series, wrong: bool) -> pd.Series[bool]:
    return pd.Series(wrong, index=values.index, dtype=bool)


def _misfit(fits: Callable[[str], object], value: object) -> bool:
    return isinstance(value, str) and fits(value) is None
