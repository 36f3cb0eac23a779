"""`results_type`: what the results of a dataset are, for the assets of people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ondine_dagster.component.declarations import (
    Declared,
    absolute,
    find_declaration,
    load_declaration,
    project_root_of,
)
from ondine_dagster.errors import OndineError
from ondine_dagster.settings import find_project_root
from ondine_dagster.spec import Dataset

if TYPE_CHECKING:
    import dagster as dg


def results_type(
    dataset: Dataset | str | Path, declared_in: str | Path | None = None
) -> dg.DagsterType:
    """Return the type of the pandas DataFrame that a dataset's `results` are loaded as.

    It names the output columns with what holds for their values: type, NULL or not, allowed
    values, bounds. Give it to an input (`dg.AssetIn(..., dagster_type=...)`) or an asset
    (`dagster_type=...`), and Dagster checks it and shows it.

    Args:
        dataset: a `Dataset`, the path of a YAML file (the last part may be `#name`), or the name
            of a dataset of the project in the current folder.
        declared_in: the file of a `Dataset` that names code of its own beside it.

    Raises:
        OndineError: there is no such dataset, or its declaration is wrong.
    """
    from ondine_dagster.assets.metadata.frame_type import frame_type
    from ondine_dagster.assets.shared.pipeline import Pipeline

    if isinstance(dataset, Dataset):
        place = absolute(Path(declared_in or "declaration.py"))
        found = Declared(dataset, place, project_root_of(place))
    else:
        found = _find(str(dataset))
    return frame_type(Pipeline(found.dataset, found.declared_in, found.project_root))


def _find(called: str) -> Declared:
    path, _, name = called.partition("#")
    if path.isidentifier():
        root = find_project_root(Path.cwd())
        if root is None:
            raise OndineError(
                f"There is no project here in which to look for the dataset {called}: give the "
                "path of its YAML file."
            )
        return find_declaration(path, root)
    declared = [one for one in load_declaration(Path(path)) if name in ("", one.dataset.name)]
    if len(declared) != 1:
        raise OndineError(f"{path} declares {len(declared)} datasets like that; name one: #name.")
    return declared[0]
