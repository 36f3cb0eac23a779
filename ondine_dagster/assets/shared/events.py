"""What Dagster shows of a stage: metadata, version tags, refusals that read well."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from ondine_dagster.errors import for_a_person
from ondine_dagster.llm.prices import usd

Metadata = dict[str, Any]
# Dagster's own tag names: https://docs.dagster.io/guides/build/assets/asset-versioning-and-caching
ROW_COUNT = "dagster/partition_row_count"
CODE_VERSION, DATA_VERSION = "dagster/code_version", "dagster/data_version"


@contextmanager
def readable_failures() -> Iterator[None]:
    """Turn an error that a person can fix into a Dagster failure with just its sentence."""
    try:
        yield
    except Exception as error:
        told = for_a_person(error)
        if told is None:
            raise
        raise dg.Failure(description=told, allow_retries=False) from None


def dollars(picodollars: int) -> float:
    """Return money for a chart: a plotted point need not be exact, stored money is."""
    return float(usd(picodollars))


def version_tags(code_version: str, data_version: str) -> Mapping[str, str]:
    """Return the tags that let Dagster show staleness per partition."""
    return {CODE_VERSION: code_version, DATA_VERSION: data_version}
