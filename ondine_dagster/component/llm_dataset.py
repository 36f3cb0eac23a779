"""`LLMDataset`, the Dagster component, and `dataset_definitions` for code without components."""

# No `from __future__ import annotations`: Dagster reads annotations of components at run time.

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel, GetJsonSchemaHandler, RootModel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ondine_dagster.component.attributes import Attributes
from ondine_dagster.component.declarations import absolute, project_root_of, project_scope
from ondine_dagster.component.documents import read_documents
from ondine_dagster.component.presets import user_presets
from ondine_dagster.component.scaffolder import LLMDatasetScaffolder
from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Dataset


class DatasetAttributes(RootModel[dict[Any, Any]]):
    """The attributes as they stand in YAML; to editors and `dg check yaml` they are a `Dataset`.

    Dagster checks attributes before it resolves templates, and `{{ env('URL') }}` is no URL. So
    this model takes everything, and `LLMDataset.load` checks after the templates are resolved.
    """

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # by reference, since fields may hold fields: editors look for `properties` at the top
        return handler.resolve_ref_schema(handler(Dataset.__pydantic_core_schema__))


@dg.scaffold_with(LLMDatasetScaffolder)
@dataclass(frozen=True, eq=False)  # a dataset holds mappings, so it has no hash
class LLMDataset(dg.Component):
    """Labels the rows of a table with an LLM, and never pays for an answer twice.

    One dataset becomes the assets snapshot, raw_rows, prompts, responses, results, rejected_rows
    and report, with the dataset's name as their prefix and group. Only `responses` spends
    money. In Python: `LLMDataset(Dataset(name=..., ...))`, returned from a function decorated
    with `@dg.component_instance`.
    """

    dataset: Dataset
    declared_in: Path | None = None

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """Return the model of the YAML attributes."""
        return DatasetAttributes

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Return what `dg list components` shows."""
        return dg.ComponentTypeSpec(description=cls.__doc__, tags=["llm"], produces=["asset"])

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "LLMDataset":
        """Resolve the templates of a YAML document and check it.

        Raises:
            OndineError: one line per problem, each with file and line, key, value and remedy.
        """
        positions = context.resolution_context.source_position_tree
        declared_in = Path(positions.position.filename) if positions else context.path
        if not isinstance(attributes, DatasetAttributes):
            raise OndineError(
                f"{declared_in}: a dataset has its settings below `attributes:`, and there are none"
            )
        if positions:
            # Dagster has read the file already, but lets through what YAML swallows.
            read_documents(declared_in)
        scope: Mapping[str, Any] = {
            **context.resolution_context.scope,
            **project_scope(declared_in),
        }
        presets = partial(user_presets, project_root_of(declared_in), scope)
        dataset = Attributes(attributes.root, positions, scope, presets).dataset()
        return cls(dataset, absolute(declared_in))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the assets of the dataset."""
        return dataset_definitions(self.dataset, self.declared_in or context.path)


def dataset_definitions(dataset: Dataset, declared_in: str | Path) -> dg.Definitions:
    """Return the assets of a dataset that is declared in Python, outside of a defs folder.

    `declared_in` is the file that declares it, usually `__file__`: relative source paths are
    looked up beside it first, then in the project root. Several datasets:
    `dg.Definitions.merge(dataset_definitions(a, __file__), dataset_definitions(b, __file__))`.
    """
    from ondine_dagster.assets.factory import build_definitions

    place = absolute(Path(declared_in))
    return build_definitions(dataset, declared_in=place, project_root=project_root_of(place))
