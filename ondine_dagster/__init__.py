"""LLM datasets as Dagster assets: a table in, a labelled table out, no answer paid twice.

The public names of the package. They are loaded when they are first used, so that the simulator
and the command line do not wait for Dagster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ondine_dagster.component import LLMDataset, dataset_definitions
    from ondine_dagster.component.results_type import results_type
    from ondine_dagster.engine.events import (
        AttemptEnded,
        Event,
        Observer,
        PartitionFinished,
        RequestSent,
        RowEnded,
        RunEnded,
        RunStarted,
        Warned,
    )
    from ondine_dagster.errors import OndineError
    from ondine_dagster.notebook import enrich
    from ondine_dagster.spec import (
        AcceptList,
        AcceptPattern,
        AcceptRange,
        Budget,
        Dataset,
        DeclaredPrices,
        Limits,
        Llm,
        Output,
        OutputField,
        Partitions,
        Prompt,
        Schedule,
        Source,
    )
    from ondine_dagster.storage.io_manager import DuckDBIOManager

__all__ = [
    "AcceptList",
    "AcceptPattern",
    "AcceptRange",
    "AttemptEnded",
    "Budget",
    "Dataset",
    "DeclaredPrices",
    "DuckDBIOManager",
    "Event",
    "LLMDataset",
    "Limits",
    "Llm",
    "Observer",
    "OndineError",
    "Output",
    "OutputField",
    "PartitionFinished",
    "Partitions",
    "Prompt",
    "RequestSent",
    "RowEnded",
    "RunEnded",
    "RunStarted",
    "Schedule",
    "Source",
    "Warned",
    "dataset_definitions",
    "enrich",
    "results_type",
]

_ROOMS = {
    "LLMDataset": "component",
    "dataset_definitions": "component",
    "DuckDBIOManager": "storage.io_manager",
    "OndineError": "errors",
    "enrich": "notebook",
    "results_type": "component.results_type",
    **dict.fromkeys(
        (
            "AttemptEnded",
            "Event",
            "Observer",
            "PartitionFinished",
            "RequestSent",
            "RowEnded",
            "RunEnded",
            "RunStarted",
            "Warned",
        ),
        "engine.events",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ROOMS.get(name, 'spec')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    # `dg` lists the component types of a module by its directory.
    return sorted({*globals(), *__all__})
