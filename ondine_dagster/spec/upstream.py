"""What may stand upstream of a dataset: another dataset, or any asset of Dagster, by name."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from ondine_dagster.spec.base import FilledText
from ondine_dagster.spec.problems import shown

DATASET_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def _dataset(name: str) -> str:
    if not DATASET_NAME.fullmatch(name):
        raise ValueError(
            f"is {shown(name)}; it must be the name of another dataset, such as product_reviews"
        )
    return name


def _asset(key: str) -> str:
    if not all(part.strip() == part and part for part in key.split("/")):
        raise ValueError(
            f"is {shown(key)}; it must be the key of an asset, its parts joined by /, such as "
            "warehouse/orders"
        )
    return key


UpstreamDataset = Annotated[FilledText, AfterValidator(_dataset)]
UpstreamAsset = Annotated[FilledText, AfterValidator(_asset)]
