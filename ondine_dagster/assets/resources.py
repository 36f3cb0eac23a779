"""The Dagster resources of the product: lake, LLM provider, budgets, IO manager.

Two datasets of one project must bring the same objects, or merging their definitions fails: hence
one set of resources per data folder.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from ondine_dagster.assets.budgets import budget_controller
from ondine_dagster.ledger.limits import Limit
from ondine_dagster.ledger.records import RequestContext
from ondine_dagster.llm.provider import Provider, at_once
from ondine_dagster.settings import load_settings
from ondine_dagster.spec import Dataset, Llm
from ondine_dagster.spec.budgets import Budget, shared_budgets
from ondine_dagster.storage.attachments import AttachmentStore
from ondine_dagster.storage.io_manager import DuckDBIOManager
from ondine_dagster.storage.lake import Lake

if TYPE_CHECKING:
    from ondine_dagster.engine.engine import Engine
    from ondine_dagster.engine.events import Hear
    from ondine_dagster.engine.pilot import PilotPlan
    from ondine_dagster.engine.preflight import Preflight
    from ondine_dagster.ledger.ledger import Ledger
    from ondine_dagster.llm.pack_size import PackPlan
    from ondine_dagster.observe.destination import Destination

LAKE, LLM, IO_MANAGER = "ondine_lake", "ondine_llm", "ondine_io_manager"
BUDGETS = "ondine_budgets"


class LakeResource(dg.ConfigurableResource[Any]):
    """The folder of Parquet files that all stages write and read."""

    root: str = Field(description="Absolute path of the lake's folder.")

    def lake(self) -> Lake:
        """Return the lake."""
        return Lake(Path(self.root))


class LLMProviderResource(dg.ConfigurableResource[Any]):
    """Asks LLM providers, through the ledger that remembers every paid answer.

    Keys are read from the environment when a run needs them; they are no part of the config.
    """

    ledger_path: str = Field(description="Absolute path of the ledger's SQLite file.")
    project_root: str = Field(description="Where the project's settings are looked up.")

    def ledger(self) -> "Ledger":
        """Return this process's ledger, opened once."""
        # imported here, as below: loading definitions needs neither database nor HTTP client
        from ondine_dagster.ledger.ledger import open_ledger

        return open_ledger(Path(self.ledger_path))

    def trace_host(self) -> "Destination | None":
        """Return where traces go, None where nobody wants them.

        Raises OndineError where they are wanted and cannot be sent.
        """
        from ondine_dagster.observe.destination import destination_of

        return destination_of(load_settings(Path(self.project_root)))

    def attachments(self) -> AttachmentStore:
        """Return the folder of the rows' images and documents, beside the ledger."""
        return AttachmentStore(Path(self.ledger_path).parent / "attachments")

    def engine(
        self,
        dataset: Dataset,
        llm: Llm,
        provider: Provider,
        run_scope: str,
        budgets: tuple[Limit, ...],
        pilot: "PilotPlan | None" = None,
        command: str = "run",
        run_id: str | None = None,
        why_again: Callable[[str], str | None] | None = None,
        packs: "PackPlan | None" = None,
        hear: "Hear | None" = None,
    ) -> "Engine":
        """Return an engine for one run of `dataset`. Its connections close with its iterator.

        `provider` is that of `llm`, the dataset's own model or its fallback. `command` is what a
        person types to go on where the run stops early. `run_id` is the Dagster run.
        `why_again`: why an answer is asked for once more. `hear` is told of every request.
        """
        from ondine_dagster.engine.azure_identity import token_source
        from ondine_dagster.engine.engine import Engine, EngineLimits
        from ondine_dagster.engine.generations import PROVIDER, settle_as_provider_says
        from ondine_dagster.ledger.rates import Rates

        limits = dataset.limits
        context = RequestContext.of(
            provider,
            dataset=dataset.name,
            run_scope=run_scope,
            max_unknown=limits.max_unknown,
            hold_unknown=limits.on_unknown == "hold",
            limits=budgets,
            command=command,
            run_id=run_id,
            trace_percent=host.sample_percent if (host := self.trace_host()) else None,
        )
        engine_limits = EngineLimits(
            concurrency=at_once(provider, limits.concurrency),
            max_attempts=limits.max_attempts,
            timeout_seconds=limits.timeout_seconds,
            drain_seconds=limits.drain_seconds,
            max_outage_seconds=limits.max_outage_seconds,
            rates=Rates(
                requests_per_minute=limits.requests_per_minute,
                tokens_per_minute=limits.tokens_per_minute,
                requests_per_day=limits.requests_per_day,
                tokens_per_day=limits.tokens_per_day,
            ),
        )
        settings = load_settings(Path(self.project_root))
        keys = settings.keys_in(llm.key_source)
        engine = Engine(
            self.ledger(),
            provider,
            context,
            engine_limits,
            keys,
            pilot,
            self.preflight(dataset, llm, provider),
            token_source(llm),
            self.attachments().load,
            settings.headers_in(llm.header_variables),
            why_again,
            packs,
            hear,
        )
        if llm.provider == PROVIDER:
            # what an earlier run has lost holds money and rows until it is known what became of it
            told = settle_as_provider_says(self.ledger(), keys, dataset.name)
            if told.settled or told.trouble:
                engine.progress.warnings.append(told.text)
        return engine

    def preflight(
        self, dataset: Dataset, llm: Llm, provider: Provider, *, always: bool = False
    ) -> "Preflight":
        """Return what is looked up before the first request to a model of `dataset`.

        `always`: also at a server that a run would not look anything up at.
        """
        from ondine_dagster.engine.catalogue import catalogues_in
        from ondine_dagster.engine.preflight import Preflight

        declared = dataset.limits.preflight
        asks = not llm.on_this_machine if declared is None else declared
        settings = load_settings(Path(self.project_root))
        return Preflight(
            llm,
            provider,
            settings.keys_in(llm.key_source),
            catalogues_in(Path(self.ledger_path).parent / "catalogues"),
            asks=always or asks,
            with_fields=bool(dataset.output.fields) or dataset.batching.asks_for_json,
            with_images=bool(dataset.prompt.images),
            secret_headers=settings.headers_in(llm.header_variables),
        )


def resources(project_root: Path) -> Mapping[str, object]:
    """Return the resources for the data folder that this project uses.

    Raises OndineError where the budgets of the environment cannot be read: ignored, they would
    cost money.
    """
    settings = load_settings(project_root)
    budgets = shared_budgets(settings)
    return _for_folder(settings.lake_root, settings.ledger_path, project_root, budgets)


@cache
def _for_folder(
    lake_root: Path, ledger_path: Path, project_root: Path, budgets: tuple[Budget, ...]
) -> Mapping[str, object]:
    return {
        LAKE: LakeResource(root=str(lake_root)),
        LLM: LLMProviderResource(ledger_path=str(ledger_path), project_root=str(project_root)),
        BUDGETS: budget_controller(budgets),
        IO_MANAGER: DuckDBIOManager(root=str(lake_root)),
    }
